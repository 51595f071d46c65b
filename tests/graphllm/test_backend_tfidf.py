"""The encoder without a model, beside scikit-learn's own steps."""

import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from graphfm.graphllm import Counts, TextEncoder, TfidfEncoder

TEXTS = ["graphs of words", "words in graphs", "a river runs", "", "rivers of the river bank", "bank of graphs"]


def test_it_is_tfidf_then_svd():
    terms = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit_transform(TEXTS)
    wanted = TruncatedSVD(3, random_state=0, n_iter=7).fit_transform(terms)
    found = TfidfEncoder(3).encode(TEXTS)
    torch.testing.assert_close(found @ found.T, torch.from_numpy(wanted @ wanted.T).float(), atol=1e-5, rtol=0)


def test_the_same_texts_give_the_same_bits_and_no_words_give_zeros():
    encoder = TfidfEncoder(4, seed=3)
    assert isinstance(encoder, TextEncoder)
    found = encoder.encode(TEXTS)
    assert torch.equal(found, encoder.encode(TEXTS))
    assert found.shape == (6, encoder.dim)
    assert torch.equal(found[3], torch.zeros(4))
    assert torch.equal(encoder.encode(["", " "]), torch.zeros(2, 4))
    assert encoder.encode([]).shape == (0, 4)
    assert encoder.count(TEXTS) == Counts(6, empty=1)


def test_bad_input():
    with pytest.raises(ValueError, match="size must be at least 1"):
        TfidfEncoder(0)
    with pytest.raises(TypeError, match="one string"):
        TfidfEncoder().encode("a text")
    with pytest.raises(TypeError, match=r'texts\[1\] must be a string, got NoneType; use ""'):
        TfidfEncoder().encode(["a", None])
