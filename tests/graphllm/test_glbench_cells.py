"""What tells cells apart, what is ranked, what is spent, and what a torn file costs: nothing."""

import pytest
from planted import planted
from recorders import STOCK, Broken, Recorder, Shy

from graphfm.graphllm import Setup, failures, run
from graphfm.graphllm.backends.base import Usage
from graphfm.graphllm.choose import choose, points
from graphfm.graphllm.classical import GCN, LabelPropagation, LMHead
from graphfm.graphllm.fingerprint import graph_fingerprint, method_fingerprint
from graphfm.graphllm.protocol import glbench_split
from graphfm.graphllm.runner import FAILURES, RESULTS
from graphfm.graphllm.standings import standings
from graphfm.graphllm.texts import as_tag
from graphfm.results import read


@pytest.fixture
def graph():
    return planted(0, nodes=200)


def test_a_torn_line_of_failures_is_passed_over(graph, tmp_path):
    run([graph], [Broken], stock=STOCK, out=tmp_path, setup=Setup(grid="one"), seeds=[1])
    with (tmp_path / FAILURES).open("a") as file:
        file.write('{"key": "[')
    assert len(failures(tmp_path)) == 1
    run([graph], [Broken], stock=STOCK, out=tmp_path, setup=Setup(grid="one"), seeds=[1])
    assert len((tmp_path / FAILURES).read_text().splitlines()) == 3, "the torn line was closed first"
    assert len(failures(tmp_path)) == 1


def test_cells_of_another_graph_or_another_method_are_not_taken_for_these(graph, tmp_path):
    class Recorder(Shy):  # as a user's own class of a name that there is already
        pass

    options = {"stock": STOCK, "out": tmp_path, "setup": Setup(grid="one"), "seeds": [0]}
    (first,) = run([graph], [globals()["Recorder"]], **options)
    assert run([graph], [globals()["Recorder"]], **options) == [first]
    (other,) = run([graph], [Recorder], **options)
    assert other.metrics["unknown_rate"] > first.metrics["unknown_rate"] == 0
    changed = graph.clone()
    changed.text = ["another", *graph.text[1:]]
    run([changed], [globals()["Recorder"]], **options)
    assert len(read(tmp_path / RESULTS)) == 3
    assert graph_fingerprint(graph) != graph_fingerprint(changed)
    changed = graph.clone()
    changed.edge_index = graph.edge_index.flip(0)
    assert graph_fingerprint(graph) != graph_fingerprint(changed)
    assert method_fingerprint(GCN) == method_fingerprint(GCN) != method_fingerprint(GCN, "published")


def test_ranked_over_what_half_of_the_methods_have(tmp_path):
    graphs = [planted(seed, nodes=100) for seed in range(3)]
    options = {"stock": STOCK, "out": tmp_path, "setup": Setup(grid="one"), "seeds": [0]}
    run(graphs[:2], [LMHead, Recorder], **options)
    run(graphs, [LabelPropagation], **options)
    run(graphs[:1], [Shy], **options)
    (found,) = standings(read(tmp_path / RESULTS))
    assert found.common == ("planted-0", "planted-1"), "one method that is ahead does not end the ranking"
    told = {line.method: line for line in found.lines}
    assert {name for name, line in told.items() if line.rank == line.rank} == {"LMHead", "Recorder", "LabelPropagation"}
    assert told["Shy"].seconds != told["Shy"].seconds, "seconds of one graph are not set beside those of two"
    assert set(told["Shy"].spent) == {"planted-0"}


def test_what_all_settings_spent_is_told(graph):
    class Paying(Recorder):
        def predict(self, data):
            self.usage = Usage(10, 1, 0.5, 1) if self.bias == 0 else Usage()
            return super().predict(data)

    data = as_tag(graph)
    split = glbench_split(data, 0)
    method, _, _ = choose(lambda s: Paying(**s), points(Paying, "small"), data, split)
    assert method.usage == Usage(10, 1, 0.5, 1), "whichever setting was chosen"
