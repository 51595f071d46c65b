"""Splits, answers that are none, near-duplicate texts, ranks, cost."""

import ctypes
import sys

import numpy as np
import pytest
import torch
from planted import planted
from scipy.stats import chi2
from torch_geometric.data import Data

from graphfm.graphllm.cost import measured
from graphfm.graphllm.overlap import check_disjoint, near_duplicates
from graphfm.graphllm.protocol import answer_scores, glbench_split, rule_of
from graphfm.graphllm.ranks import critical_difference, rank_methods
from graphfm.graphllm.texts import as_tag, class_texts, num_classes, only_labels_of, without_labels


def labelled(nodes, classes=4, name="graph"):
    y = torch.arange(nodes) % classes
    data = Data(y=y, edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=nodes)
    data.name, data.text = name, [f"text {i}" for i in range(nodes)]
    return data


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (labelled(2708, 7, "tag/cora"), (140, 500, 2068)),
        (labelled(19717, 3, "pubmed"), (60, 500, 19157)),
        (labelled(11339, 2, "instagram"), (1134, 1134, 9071)),
        (labelled(200, 5, "tag/webkb_texas"), (95, 65, 40)),
        (labelled(1200, 4, "citeseer_sub"), (80, 500, 620)),
        (labelled(1200, 4, "/data/coral-reef"), (576, 384, 240)),
        (labelled(1200, 4, "subreddits"), (576, 384, 240)),
        (labelled(7000, 12, "debian"), (240, 500, 6260)),
    ],
)
def test_split_sizes_are_glbenchs(data, parts):
    split = glbench_split(data, 0)
    assert (split.train.numel(), split.val.numel(), split.test.numel()) == parts
    again, other = glbench_split(data, 0), glbench_split(data, 1)
    assert torch.equal(split.test, again.test)
    assert not torch.equal(split.test, other.test)


def test_own_masks_are_kept_where_they_are_the_protocol():
    data = labelled(40, 2, "WikiCS")
    for place, key in enumerate(("train_mask", "val_mask", "test_mask")):
        data[key] = torch.stack([torch.arange(40) % 3 == place, torch.arange(40) % 4 == place], dim=1)
    assert rule_of(data).official
    assert torch.equal(glbench_split(data, 1).train, torch.arange(0, 40, 4))
    assert torch.equal(glbench_split(data, 2).val, torch.arange(1, 40, 3))


def test_unlabelled_nodes_are_in_no_part():
    data = labelled(300, 3)
    data.y[::5] = -1
    split = glbench_split(data, 0)
    assert (data.y[torch.cat([split.train, split.val, split.test])] >= 0).all()


def test_no_answer_counts_as_wrong():
    y = torch.tensor([0, 0, 1, 1, 2])
    scores = torch.eye(3)[y]
    assert answer_scores(scores, y) == {"accuracy": 1.0, "macro_f1": 1.0, "unknown_rate": 0.0}
    scores[1] = torch.nan
    found = answer_scores(scores, y)
    # class 0: precision 1, recall 1/2, F1 2/3; the others are right
    assert found == pytest.approx({"accuracy": 0.8, "macro_f1": (2 / 3 + 1 + 1) / 3, "unknown_rate": 0.2})
    scores[:] = torch.nan
    assert answer_scores(scores, y) == {"accuracy": 0.0, "macro_f1": 0.0, "unknown_rate": 1.0}


def test_half_an_answer_is_refused():
    scores = torch.tensor([[0.5, torch.nan], [1.0, 0.0]])
    with pytest.raises(ValueError, match="NaN"):
        answer_scores(scores, torch.tensor([0, 1]))


def test_methods_are_shown_no_more_than_they_may_see():
    data = as_tag(planted(0))
    data.train_mask = data.test_mask = torch.ones(data.num_nodes, dtype=torch.bool)
    split = glbench_split(data, 0)
    shown = only_labels_of(data, split)
    assert (shown.y[split.test] == -1).all()
    assert torch.equal(shown.y[split.train], data.y[split.train])
    assert {"train_mask", "test_mask"}.isdisjoint(shown.keys())
    assert "y" not in without_labels(data)
    assert num_classes(without_labels(data)) == 4
    assert (data.y >= 0).all(), "the caller's graph is as it was"


def test_class_texts_with_and_without_descriptions():
    data = labelled(8, 2)
    data.label_text, data.label_description = ["Rule_Learning", "Theory"], ["rules from data", ""]
    assert class_texts(as_tag(data)) == ["Rule Learning. rules from data", "Theory"]
    assert class_texts(as_tag(data, descriptions=False)) == ["Rule Learning", "Theory"]
    del data.label_text, data.label_description
    assert class_texts(as_tag(data)) == ["class 0", "class 1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update({"text": None}), "text is missing"),
        (lambda d: d.update({"text": ["a"]}), "one string for each of 8 nodes"),
        (lambda d: d.update({"label_text": ["a"]}), "names 1 classes"),
        (lambda d: d.update({"label_text": ["a", "b"], "label_description": ["c"]}), "label_description has 1"),
        (lambda d: d.update({"y": None}), "y"),
    ],
)
def test_bad_graphs_are_named(change, words):
    data = labelled(8, 2)
    change(data)
    with pytest.raises((ValueError, TypeError), match=words):
        as_tag(data)


def test_near_duplicates_against_jaccard():
    """Every pair is compared the slow way; MinHash may be wrong near the threshold only."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(300)])
    base = [list(rng.choice(words, 60)) for _ in range(30)]
    others = [" ".join(text) for text in base]
    changes = [0, 1, 2, 4, 20]  # words changed: Jaccard 1, .9, .82, .68 down to .1
    ours, expected = [], []
    for i in range(60):
        text = list(base[i % 30])
        for place in rng.choice(60, changes[i % 5], replace=False):
            text[place] = f"new{place}"
        ours.append(" ".join(text).upper() + "!")
        best = max(_jaccard(text, other) for other in base)
        expected.append(None if 0.55 < best < 0.85 else best >= 0.7)
    found = near_duplicates(ours, others)
    for seen, right in zip(found.tolist(), expected, strict=True):
        assert right is None or seen == right
    assert sum(right is True for right in expected) > 15
    assert sum(right is False for right in expected) > 5


def _jaccard(a, b):
    runs = [{tuple(text[i : i + 3]) for i in range(len(text) - 2)} for text in (a, b)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_texts_without_a_run_of_words():
    found = near_duplicates(["", "one", "one two", "  ", "x"], ["", "one", "two one", "y"])
    assert found.tolist() == [False, True, False, False, False]
    assert near_duplicates([], ["a"]).tolist() == []


def test_a_source_that_holds_the_target_is_refused():
    one, two, other = planted(0), planted(0), planted(1, filler="z", classes=("fig", "gold", "hat", "ink"))
    two.name, other.name = "copy", "other"
    one.text = [f"a{i} task{i * 7} of finding{i} networks{i * 13} whose{i * 29} structure{i}" for i in range(900)]
    two.text = [text.upper() for text in one.text]
    other.text = [f"nothing{i} of{i * 3} the{i * 5} kind{i * 11}" for i in range(900)]
    with pytest.raises(ValueError, match=r"'copy' holds 100\.0% of the texts"):
        check_disjoint([other, two], one)
    with pytest.raises(ValueError, match="among its own sources"):
        check_disjoint([one], one)
    other.text[5] = one.text[17]
    left_out = check_disjoint([other], one)
    assert torch.nonzero(left_out).flatten().tolist() == [17]


def test_a_source_with_the_same_classes_is_refused():
    one, other = planted(0), planted(1)
    one.name, other.name = "one", "other"
    other.text = [f"nothing{i} of{i * 3} the{i * 5} kind{i * 11}" for i in range(900)]
    one.label_text, other.label_text = ["Red_fox", "owl", "hare", "elk"], ["red FOX", "Owl", "hare", "bee"]
    with pytest.raises(ValueError, match=r"3 of the 4 classes of target 'one' \(hare, owl, red fox\)"):
        check_disjoint([other], one)
    assert not check_disjoint([other], one, most_classes=0.75).any()
    other.label_text = ["red fox", "owl", "bee", "ant"]
    assert not check_disjoint([other], one).any(), "half of them is not more than half"
    one.label_text, other.label_text = ["ant", "bee", "cow", "doe"], ["ant", "bee", "x", "y"]
    more = planted(2)
    more.name, more.label_text = "more", ["cow", "doe", "z", "w"]
    more.text = [f"yet{i} more{i * 3} of{i * 5} them{i * 11}" for i in range(900)]
    assert not check_disjoint([other], one).any()
    assert not check_disjoint([more], one).any()
    with pytest.raises(ValueError, match="'more' with the sources before it has 4 of the 4 classes"):
        check_disjoint([other, more], one)
    with pytest.raises(ValueError, match="'more' with the sources before it has 4 of the 4 classes"):
        check_disjoint([more], one, before=[other])
    one.label_text = other.label_text = [f"class {number}" for number in range(4)]  # names that name nothing
    assert not check_disjoint([other], one).any()


def test_overlap_on_real_graphs(data_root):
    import graphfm

    cora, cora_ml, texas = (graphfm.load(f"tag/{name}", root=data_root) for name in ("cora", "cora_ml", "webkb_texas"))
    with pytest.raises(ValueError, match=r"holds 8[0-9]"):
        check_disjoint([cora_ml], cora)
    assert int(check_disjoint([texas], cora).sum()) == 0
    with pytest.raises(ValueError, match="5 of the 5 classes"):
        check_disjoint([graphfm.load("tag/webkb_wisconsin", root=data_root)], texas)


def test_critical_differences_are_demsars():
    """Table 5 of Demsar (2006): q at .05 for k = 2, 5, 10 is 1.960, 2.728, 3.164."""
    for k, q in ((2, 1.960), (5, 2.728), (10, 3.164)):
        assert critical_difference(k, 14) == pytest.approx(q * (k * (k + 1) / (6 * 14)) ** 0.5, abs=2e-3)


def test_ranks_of_demsars_example():
    """Four classifiers on 14 data sets (Demsar, 2006, table 6): mean ranks 3.143, 2.000, 2.893, 1.964."""
    auc = {
        "C4.5": (0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.94, 0.619, 0.972, 0.957),
        "C4.5+m": (0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978),
        "C4.5+cf": (0.771, 0.59, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.0, 0.965, 0.614, 0.9751, 0.946),
        "C4.5+m+cf": (0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.0, 0.962, 0.669, 0.975, 0.97),
    }
    found = rank_methods({name: {str(i): v for i, v in enumerate(values)} for name, values in auc.items()})
    ranks = dict(zip(found.methods, found.mean_ranks, strict=True))
    assert ranks == pytest.approx({"C4.5": 3.143, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}, abs=1e-3)
    assert found.difference == pytest.approx(1.25, abs=5e-3)
    # His chi square of 9.28 leaves ties aside; the usual correction divides by 1 - sum(t^3 - t) / (N k (k^2 - 1)).
    square = 12 * 14 / 20 * (sum(rank**2 for rank in ranks.values()) - 4 * 25 / 4)
    assert square == pytest.approx(9.28, abs=5e-3)
    ties = [np.unique(column, return_counts=True)[1] for column in zip(*auc.values(), strict=True)]
    correction = 1 - sum((t**3 - t).sum() for t in ties) / (14 * 4 * 15)
    assert found.p_value == pytest.approx(chi2.sf(square / correction, 3), rel=1e-3)
    assert found.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)


def test_ranks_of_few_or_equal_methods():
    one = rank_methods({"a": {"x": 1.0}, "b": {"x": 1.0}})
    assert one.mean_ranks == (1.5, 1.5)
    assert np.isnan(one.p_value)
    same = rank_methods({name: {"x": 0.5, "y": 0.5} for name in "abc"})
    assert same.p_value == 1.0
    with pytest.raises(ValueError, match="no dataset"):
        rank_methods({"a": {"x": 1.0}, "b": {"y": 1.0}})
    with pytest.raises(ValueError, match="empty"):
        rank_methods({})


def test_memory_of_a_block_is_its_own():
    with measured(torch.device("cpu")) as large:
        kept = torch.ones(40_000_000)
    del kept
    with measured(torch.device("cpu")) as small:
        torch.ones(10)
    assert large.seconds > small.seconds > 0
    if small.memory:
        assert large.memory >= small.memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel tells a process its peak")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_what_was_freed_before_is_no_part_of_a_peak():
    """Blocks of 64 KB come from the heap, which keeps what is freed below the last of them."""
    with measured(torch.device("cpu")) as before:
        pass
    blocks = [bytearray(65536) for _ in range(6000)]
    last = blocks[-1]
    blocks.clear()
    with measured(torch.device("cpu")) as after:
        pass
    assert len(last) == 65536
    assert after.memory < before.memory + 200e6  # of 390 MB
