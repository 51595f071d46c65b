"""What the trunk reads: the right row of every table, of every task; names of items; ranges of losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted_log import planted_log, small_encoder, tasks

from graphfm.ltv.heads import MonotoneHead, ZILNHead
from graphfm.ltv.inputs import gather
from graphfm.ltv.loss_range import constant_losses, unreachable_losses, widest_range
from graphfm.ltv.named import part_of
from graphfm.ltv.trunk import Trunk
from graphfm.ltv.vocabulary import Vocabulary
from graphfm.ltv.ziln import ZILN
from graphfm.pareto import EPO

LOG = planted_log(users=40)
CPU = torch.device("cpu")


def of_bought(graph, items):
    """The mean over each user's items, by a loop, then scaled over the users."""
    buyer, item = graph["user", "buys", "item"].edge_index
    means = torch.stack([items[item[buyer == user]].double().mean(dim=0) for user in range(graph["user"].num_nodes)])
    spread = means.std(dim=0, correction=0)
    return torch.where(spread > 1e-9, (means - means.mean(dim=0)) / spread, 0.0).float()


@pytest.mark.parametrize("unit", ["user", "pair"])
@pytest.mark.parametrize("graph", [True, False])
def test_rows_are_those_of_the_members(unit, graph):
    some = tasks(LOG, (40, 80), unit=unit)
    encoder = small_encoder().fit([some[0].snapshot]) if graph else None
    vocabulary = Vocabulary(LOG.items[::2]) if unit == "pair" else None
    inputs = gather(some, encoder, vocabulary)
    rows, codes = [], []
    for task in some:
        known = task.snapshot
        embedded = {} if encoder is None else encoder.embed(known)
        means = of_bought(known, torch.cat([known["item"].x, embedded["item"]], dim=1)) if graph else None
        for member in range(len(task.population)):
            user = int(task.population.user[member])
            parts = [known["user"].x[user]] + ([embedded["user"][user]] if graph else [])
            if unit == "pair":
                item = int(task.population.item[member])
                parts += [known["item"].x[item]] + ([embedded["item"][item]] if graph else [])
                edges = known["user", "buys", "item"]
                place = int(((edges.edge_index[0] == user) & (edges.edge_index[1] == item)).nonzero())
                parts.append(edges.edge_attr[place])
                name = task.past.items[item]
                codes.append(1 + sorted(LOG.items[::2]).index(name) if name in LOG.items[::2] else 0)
            elif graph:
                parts.append(means[user])
            rows.append(torch.cat(parts))
    found, code = inputs.rows(slice(None), CPU)
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-4, atol=1e-5)
    assert inputs.width == found.size(1)
    assert (code is None) == (unit == "user")
    assert code is None or code.tolist() == codes
    chosen = torch.tensor([3, len(inputs) - 1, 0])
    assert torch.equal(inputs.rows(chosen, CPU)[0], found[chosen])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), max_size=8))
def test_names_are_kept_in_every_script(names):
    vocabulary = Vocabulary(np.array([*names, "x"]))
    again = Vocabulary.from_tensor(vocabulary.tensor())
    wanted = np.array([*names, "x", "not there, surely"])
    assert again.codes(wanted).tolist() == vocabulary.codes(wanted).tolist()
    assert again.codes(wanted)[-1] == 0
    assert len(set(again.codes(wanted)[:-1].tolist())) == len({*names, "x"}) == len(again) - 1


def test_names_that_are_numbers():
    vocabulary = Vocabulary(np.array([7, -3, 7], dtype=np.int32))
    assert vocabulary.codes(np.array([-3, 7, 8])).tolist() == [1, 2, 0]
    assert Vocabulary.from_tensor(vocabulary.tensor()).codes(np.array([7])).tolist() == [2]
    assert Vocabulary(np.array([], dtype=np.int64)).codes(np.array([1])).tolist() == [0]
    with pytest.raises(ValueError, match="whole numbers in this log and were text"):
        Vocabulary(np.array(["a"])).codes(np.array([1]))


def test_parts_by_name():
    assert part_of("ltv", "ZILNHead") is ZILNHead
    made = part_of("pareto", "EPO(preference=(2, 1, 1), tolerance=1e-3)")
    assert isinstance(made, EPO)
    assert made.preference == (0.5, 0.25, 0.25)
    for text in ("EPO(1)", "EPO(preference=open('x'))", "EPO(preference=", "EPO(nothing=1)", "EPO)("):
        with pytest.raises(ValueError):
            part_of("pareto", text)


@pytest.mark.parametrize("head", [MonotoneHead, ZILNHead])
def test_ranges_hold_every_model(head):
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(500, 3, generator=generator).exp().cumsum(1) * (torch.rand(500, 1, generator=generator) < 0.2)
    value[:, 0] = 0  # nobody pays at first
    low, high = unreachable_losses(value), constant_losses(head, value)
    paid = value[:, 2] > 0
    share, logs = paid.float().mean(), value[paid, 2].log()
    if head is ZILNHead:
        entropy = -(share * share.log() + (1 - share) * (1 - share).log())
        normal = torch.distributions.LogNormal(logs.mean(), logs.std(correction=0)).log_prob(value[paid, 2]).sum() / 500
        assert float(high[2]) == pytest.approx(float(entropy - normal), rel=1e-2)
    perfect = ZILN(torch.where(paid, 40.0, -40.0)[:, None], logs.new_zeros(500, 1), torch.full((500, 1), 0.05))
    perfect.mu[paid, 0] = logs
    assert float(perfect.loss(value[:, 2:]).mean()) == pytest.approx(float(low[2]), abs=1e-5)
    scale = widest_range(head, value)
    assert scale.ideal == pytest.approx(low.tolist())
    assert all(a < b for a, b in zip(scale.ideal, scale.reference, strict=True))
    other = constant_losses(head, value, value[:100])
    assert not torch.allclose(other, high)


def test_trunk():
    torch.manual_seed(0)
    trunk = Trunk(5, 8, 3, 0.5, items=4, item_width=2)
    x, code = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 1, 1])
    assert trunk(x, code).shape == (6, 8)
    trunk.eval()
    assert torch.equal(trunk(x, code), trunk(x, code))
    moved = code.clone()
    moved[0] = 3
    assert (trunk(x, code) != trunk(x, moved)).any(dim=1).tolist() == [True] + [False] * 5
    assert len([m for m in trunk.modules() if isinstance(m, torch.nn.Linear)]) == 3
    assert Trunk(5)(x).shape == (6, 64)
