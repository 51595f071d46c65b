"""What the pretraining verb samples."""

import numpy as np
import pytest
import torch
from small_runs import ring, train

import graphfm
from graphfm.data.features import Unifier
from graphfm.data.subgraphs import Subgraphs
from graphfm.joined import join
from graphfm.samplers import RandomWalks
from graphfm.sampling import draw_samples, epoch_batches, sampling_facts


@pytest.fixture(scope="module")
def sources():
    return [ring(150, 20, 1, name="wide"), ring(90, 7, 2, name="narrow")]


def unequal():
    return [ring(5000, 8, 1, name="large"), ring(60, 8, 2, name="small")]


@pytest.mark.parametrize("coordinators", [None, graphfm.Coordinators(1), graphfm.Coordinators(1, between="none")])
def test_batches_hold_several_domains_also_on_very_unequal_sources(coordinators):
    model = train(unequal(), coordinators=coordinators, epochs=1, sampler=RandomWalks(walk_length=12))
    facts = model.card["sampling"]
    assert facts["batches_of_several_domains"] >= 0.9
    assert facts["samples"] <= 506 * 1.2  # for at most one sample more a batch


@pytest.mark.parametrize("sizes", [(3000, 8), (700, 60, 25), (64, 64), (1000, 333, 10, 10)])
@pytest.mark.parametrize("batch_size", [2, 10, 64])
def test_unequal_sources_of_many_shapes(sizes, batch_size):
    graphs = [ring(n, 5, i) for i, n in enumerate(sizes)]
    joined = join(graphs, Unifier(5).fit(graphs), None)
    samples, home = draw_samples(joined, share=0.2, length=15, hop=0.5, batch_size=batch_size, seed=0)
    for epoch in range(3):
        batches = epoch_batches(home, batch_size, 0, epoch)
        several = [len(torch.unique(home[b])) > 1 for b in batches]
        assert np.mean(several) >= 0.9
        assert torch.equal(torch.cat(batches).sort().values, torch.arange(len(samples)))


def test_epoch_batches_depend_on_seed_and_epoch_alone():
    domain = torch.tensor([0] * 95 + [1] * 20 + [2] * 5)
    first = epoch_batches(domain, 10, 1, 2)
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, epoch_batches(domain, 10, 1, 2), strict=True))
    assert not torch.equal(torch.cat(first), torch.cat(epoch_batches(domain, 10, 1, 3)))
    assert not torch.equal(torch.cat(first), torch.cat(epoch_batches(domain, 10, 2, 2)))
    assert [len(b) for b in first] == [10] * 12


@pytest.mark.parametrize("count", [2, 3, 9, 11, 21])
def test_no_batch_is_smaller_than_two(count):
    sizes = [b.numel() for b in epoch_batches(torch.zeros(count, dtype=torch.long), 10, 0, 0)]
    assert min(sizes) >= 2
    assert max(sizes) <= 11
    assert sum(sizes) == count


def facts_by_hand(samples: Subgraphs, joined, batches, hops):
    """Node by node, edge by edge."""
    spans, reached, ordinary, sets = 0, 0, 0, []
    for s in range(len(samples)):
        nodes = samples.node[samples.ptr[s] : samples.ptr[s + 1]].tolist()
        edges = samples.edge_index[:, samples.edge_ptr[s] : samples.edge_ptr[s + 1]].t().tolist()
        domains = {int(joined.domain[n]) for n in nodes}
        sets.append(domains)
        spans += len(domains) > 1
        for i, node in enumerate(nodes):
            if node >= joined.num_ordinary:
                continue
            ordinary += 1
            near = {i}
            for _ in range(hops):
                near |= {a for a, b in edges if b in near}
            reached += any(int(joined.domain[nodes[j]]) != int(joined.domain[node]) for j in near)
    several = [len(set().union(*(sets[i] for i in b.tolist()))) > 1 for b in batches]
    return {
        "samples_that_span_domains": spans / len(samples),
        "nodes_reached_across_domains": reached / ordinary,
        "batches_of_several_domains": sum(several) / len(several),
    }


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("between", ["all", "none"])
def test_sampling_facts_against_a_slow_loop(sources, hops, between):
    graphs = [*sources, ring(40, 9, 5)]
    joined = join(graphs, Unifier(5).fit(graphs), graphfm.Coordinators(1, between=between))
    samples, home = draw_samples(joined, share=0.2, length=8, hop=0.3, batch_size=4, seed=1)
    batches = epoch_batches(home, 4, 1, 0)
    facts = sampling_facts(samples, joined, batches, hops)
    for key, value in facts_by_hand(samples, joined, batches, hops).items():
        assert facts[key] == pytest.approx(value, abs=1e-6), key


def test_samples_belong_to_the_domain_in_which_their_walk_began(sources):
    joined = join(sources, Unifier(5).fit(sources), graphfm.Coordinators(1))
    samples, home = draw_samples(joined, share=1.0, length=20, hop=0.5, batch_size=10, seed=0)
    assert len(samples) == home.numel()
    expected = torch.tensor([150 / 240, 90 / 240])  # every node is a start
    assert torch.allclose(torch.bincount(home) / home.numel(), expected, atol=0.02)
