"""Vectors on disk: exact, made once, shared by processes, and not fooled by damage."""

import multiprocessing
import time

import numpy as np
import pytest
import torch

from graphfm.graphllm import CachedEncoder, Counts, TfidfEncoder
from graphfm.graphllm.backends.cache import VectorCache, cache_folder
from graphfm.graphllm.backends.identity import model_identity
from graphfm.graphllm.stock import Remembered


class Letters:
    """Counts of letters: an encoder whose right answer is known, and which remembers what it was asked."""

    name, dim = "letters", 26

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        return torch.tensor([[text.count(chr(97 + i)) for i in range(26)] for text in texts]).float().view(-1, 26)

    def count(self, texts):
        return Counts(len(texts))


TEXTS = ["abba", "cab", "", "abba", "é\udcff", "zebra"]


def test_only_missing_texts_are_encoded_and_each_once(tmp_path):
    first = Letters()
    got = CachedEncoder(first, tmp_path).encode(TEXTS[:4])
    torch.testing.assert_close(got, Letters().encode(TEXTS[:4]), rtol=0, atol=0)
    assert first.asked == ["abba", "cab", ""]
    second = Letters()
    torch.testing.assert_close(CachedEncoder(second, tmp_path).encode(TEXTS[::-1]), Letters().encode(TEXTS[::-1]))
    assert sorted(second.asked) == ["zebra", "é\udcff"]


def test_what_vectors_took_is_remembered_beside_them(tmp_path):
    class Slow(Letters):
        def encode(self, texts):
            time.sleep(0.1)
            return super().encode(texts)

    first, second = CachedEncoder(Slow(), tmp_path), CachedEncoder(Slow(), tmp_path)
    first.encode(TEXTS[:4])
    assert first.seconds >= 0.1
    second.encode(TEXTS[:4])
    assert second.encoder.asked == []
    assert second.seconds == pytest.approx(first.seconds, rel=1e-6)
    second.encode(TEXTS[:1])
    assert second.seconds == pytest.approx(first.seconds / 3, rel=1e-6), "one of three different texts"
    remembered = Remembered(CachedEncoder(Slow(), tmp_path))
    remembered.encode(TEXTS[:4])
    assert remembered.seconds == pytest.approx(first.seconds, rel=1e-6)
    assert remembered.paid < first.seconds


def test_a_segment_of_before_there_were_seconds_is_read(tmp_path):
    CachedEncoder(Letters(), tmp_path).encode(TEXTS)
    (path,) = tmp_path.glob("*/*.npz")
    with np.load(path) as found:
        kept = {name: found[name] for name in ("keys", "rows")}
    np.savez(path, **kept)
    again = CachedEncoder(Letters(), tmp_path)
    torch.testing.assert_close(again.encode(TEXTS), Letters().encode(TEXTS))
    assert again.encoder.asked == []
    assert again.seconds == 0


def test_nothing_to_encode(tmp_path):
    assert CachedEncoder(Letters(), tmp_path).encode([]).shape == (0, 26)
    assert list(tmp_path.iterdir()) == []


def test_another_name_shares_nothing(tmp_path):
    CachedEncoder(Letters(), tmp_path).encode(TEXTS)
    other = Letters()
    other.name = "letters, cased"
    CachedEncoder(other, tmp_path).encode(TEXTS[:2])
    assert other.asked == TEXTS[:2]


def test_an_interrupted_run_keeps_whole_chunks(tmp_path):
    def fails_late(texts):
        if "text 5" in texts:
            raise KeyboardInterrupt
        return Letters().encode(texts)

    texts = [f"text {i}" for i in range(8)]
    with pytest.raises(KeyboardInterrupt):
        VectorCache(tmp_path, "n", (26,), chunk=2).fetch(texts, fails_late)
    rest = Letters()
    VectorCache(tmp_path, "n", (26,), chunk=2).fetch(texts, rest.encode)
    assert rest.asked == texts[4:]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("damage", ["half", "empty", "flipped", "foreign"])
def test_a_damaged_file_is_noticed_and_its_texts_made_again(tmp_path, damage):
    CachedEncoder(Letters(), tmp_path).encode(TEXTS)
    (path,) = tmp_path.rglob("*.npz")
    blob = bytearray(path.read_bytes())
    if damage == "flipped":
        blob[-500] ^= 1  # inside the rows, which lie last
    path.write_bytes({"half": blob[: len(blob) // 2], "empty": b"", "foreign": b"<html>"}.get(damage, bytes(blob)))
    again = Letters()
    with pytest.warns(UserWarning, match="damaged"):
        got = CachedEncoder(again, tmp_path).encode(TEXTS)
    torch.testing.assert_close(got, Letters().encode(TEXTS), rtol=0, atol=0)
    assert len(again.asked) == 5
    silent = Letters()
    CachedEncoder(silent, tmp_path).encode(TEXTS)
    assert silent.asked == []


def test_a_file_that_goes_away_under_an_open_cache_is_made_again(tmp_path):
    encoder = Letters()
    cached = CachedEncoder(encoder, tmp_path)
    cached.encode(TEXTS[:2])
    for path in tmp_path.rglob("*.npz"):
        path.unlink()
    cached.encode(TEXTS[:2])
    assert encoder.asked == TEXTS[:2] * 2


def test_rows_of_a_wrong_shape_are_refused_before_they_are_stored(tmp_path):
    with pytest.raises(ValueError, match=r"rows must be \[3\]"):
        VectorCache(tmp_path, "n", (3,)).fetch(["a"], lambda texts: torch.zeros(1, 4))
    assert list(tmp_path.iterdir()) == []


def _work(folder, offset):
    texts = [f"text {i}" for i in range(offset, offset + 60)]
    VectorCache(folder, "n", (26,), chunk=3).fetch(texts, Letters().encode)


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(tmp_path, offset)) for offset in (0, 30)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    after = Letters()
    texts = [f"text {i}" for i in range(90)]
    got = VectorCache(tmp_path, "n", (26,)).fetch(texts, after.encode)
    assert after.asked == []
    torch.testing.assert_close(got, Letters().encode(texts), rtol=0, atol=0)


def test_a_warm_cache_reads_ten_thousand_rows_in_a_second(tmp_path):
    texts = [f"the text of node {i} " * 20 for i in range(10_000)]
    rows = torch.randn(10_000, 384, generator=torch.Generator().manual_seed(0))
    VectorCache(tmp_path, "n", (384,)).fetch(texts, lambda part: rows[[int(t.split()[4]) for t in part]])

    def never(part):
        raise AssertionError("asked again")

    began = time.process_time()
    got = VectorCache(tmp_path, "n", (384,)).fetch(texts, never)
    assert time.process_time() - began < 1
    assert torch.equal(got, rows)


def test_a_transductive_encoder_is_not_cached_text_by_text():
    with pytest.raises(ValueError, match="depend on the other texts"):
        CachedEncoder(TfidfEncoder())


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHFM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "texts"
    assert cache_folder("here").name == "here"


def test_a_model_is_known_by_its_content(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "weights").write_bytes(np.arange(10).tobytes())
    names = [model_identity(tmp_path / name / "model") for name in ("one", "two")]
    assert names[0] == names[1]
    (tmp_path / "two" / "model" / "weights").write_bytes(np.arange(1, 11).tobytes())
    assert model_identity(tmp_path / "two" / "model") != names[0]
    assert model_identity("someone/somemodel") == "someone/somemodel"
