"""Language-model backends beside named references, in one run, on one thread: ``python benchmarks/graphllm.py``.

Encoding beside ``SentenceTransformer.encode`` with its defaults; a step that tunes all of an encoder beside one of
SentenceTransformer and AdamW with theirs; a warm cache beside its aim of a second; all labels of
a prompt in one pass beside a pass for each label; the subgraph prompts of OFA, ZeroG and LLaGA for all nodes of Cora
(GRAPHFM_DATA/tag; vectors of 384 stand for its texts) beside their aim of 5 seconds. ``--quick``: a few texts, another
graph, to see that everything runs; writes nothing. ``--part NAME`` measures one part and leaves the others as they are
written.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import graphfm
from graphfm.graphllm import CachedEncoder, Counts, LocalLM, SentenceEncoder, tiny_llama
from graphfm.graphllm.backends.prompts import pad_left, prompt_tokens
from graphfm.graphllm.backends.scoring import label_log_likelihoods, one_by_one
from graphfm.graphllm.enhancers.ego_prompts import egos, prompts
from graphfm.graphllm.enhancers.zerog import with_hub
from graphfm.graphllm.predictors.llaga import LLaGANeighbours, hops
from graphfm.graphllm.texts import adjacency
from graphfm.graphllm.tuned import tuned_copy
from graphfm.results import environment

AIMS = {"encode": 1.0, "tune": 1.0, "warm cache": 1.0, "labels": 3.0, "subgraph prompts": 1.0}


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Best CPU time."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def in_turns(one: Callable[[], Any], other: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Best CPU times of two works, taken in turns so that a busy machine is as hard on either."""
    pairs = [(seconds(one, 1), seconds(other, 1)) for _ in range(repeats)]
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def encode(texts: list[str], repeats: int) -> list[dict[str, Any]]:
    """MiniLM, ours beside theirs, and how far apart the vectors are."""
    theirs = SentenceEncoder().model
    wanted = theirs.encode(texts, convert_to_tensor=True)
    return [against(theirs, wanted, texts, repeats, precision) for precision in ("float32", "bfloat16")]


def against(theirs: Any, wanted: torch.Tensor, texts: list[str], repeats: int, precision: str) -> dict[str, Any]:
    """One precision beside theirs."""
    encoder = SentenceEncoder(precision=precision)
    cosine = torch.nn.functional.cosine_similarity(encoder.encode(texts), wanted)
    mine, reference = in_turns(lambda: encoder.encode(texts), lambda: theirs.encode(texts), repeats)
    return {"part": "encode", "what": f"MiniLM, {len(texts)} texts, {precision}", "seconds": mine,
            "reference": reference, "against": "SentenceTransformer.encode", "ratio": reference / mine,
            "lowest_cosine": float(cosine.min()), "texts_per_second": len(texts) / mine}  # fmt: skip


def tune(texts: list[str], repeats: int) -> list[dict[str, Any]]:
    """A step of AdamW on all weights of MiniLM, the texts being one batch cut after 128 tokens; dropout is on."""
    theirs: Any = SentenceEncoder().model.train()
    plain = torch.optim.AdamW(theirs.parameters(), lr=1e-5)

    def their_step() -> None:
        plain.zero_grad()
        tokens = theirs.tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        theirs(dict(tokens))["sentence_embedding"].square().sum().backward()
        plain.step()

    rows = []
    for precision in ("float32", "bfloat16"):
        encoder = tuned_copy(SentenceEncoder(max_tokens=128, precision=precision))
        encoder.model.train()
        fused = torch.optim.AdamW(encoder.model.parameters(), lr=1e-5, fused=True)

        def step(encoder: SentenceEncoder = encoder, fused: torch.optim.Optimizer = fused) -> None:
            fused.zero_grad()
            encoder.embed(texts).square().sum().backward()
            fused.step()

        mine, reference = in_turns(step, their_step, repeats + 1)
        rows.append({"part": "tune", "what": f"MiniLM, a batch of {len(texts)} texts, {precision}", "seconds": mine,
                     "reference": reference, "against": "SentenceTransformer, AdamW",
                     "ratio": reference / mine})  # fmt: skip
    return rows


class Stored:
    """Vectors made beforehand, by the number in the text."""

    name, dim = "stored", 384

    def __init__(self, count: int) -> None:
        self.rows = torch.randn(count, self.dim, generator=torch.Generator().manual_seed(0))

    def encode(self, texts: list[str]) -> torch.Tensor:
        """By number."""
        return self.rows[[int(text.split(" ", 1)[0]) for text in texts]]

    def count(self, texts: list[str]) -> Counts:
        """Nothing is cut."""
        return Counts(len(texts))


def warm_cache(count: int, repeats: int) -> list[dict[str, Any]]:
    """Texts of 1,000 characters, encoded before; each repeat opens the cache anew, as a new process does."""
    texts = [f"{number} {'word ' * 200}" for number in range(count)]
    encoder = Stored(count)
    with tempfile.TemporaryDirectory() as folder:
        CachedEncoder(encoder, folder).encode(texts)
        assert torch.equal(CachedEncoder(encoder, folder).encode(texts), encoder.rows)
        found = seconds(lambda: CachedEncoder(encoder, folder).encode(texts), repeats)
    return [{"part": "warm cache", "what": f"{count:,} vectors of 384", "seconds": found, "reference": 1.0,
             "against": "a second", "ratio": 1 / found}]  # fmt: skip


def labels(texts: list[str], names: list[str], repeats: int, *, packaged: bool) -> list[dict[str, Any]]:
    """Prompts of a graph scored against its classes, in one pass and label by label."""
    models = {"tiny Llama": (tiny_llama(texts, names, hidden=256, layers=4, steps=0), 16)}
    if packaged:
        models["SmolLM2-135M"] = (LocalLM.load(), 2)
    rows, longest = [], sorted(texts, key=len, reverse=True)
    for name, (lm, count) in models.items():
        ids = lm.label_ids(names)
        prompts = [f"{' '.join(text.split()[:150])} Question: which category? Answer:" for text in longest[:count]]
        tokens, mask = pad_left(prompt_tokens(lm.tokenizer, prompts), 0, torch.device("cpu"))
        with torch.no_grad():
            embeds = lm.embed(tokens)
            fast = label_log_likelihoods(lm.model, embeds, mask, ids)
            slow = one_by_one(lm.model, embeds, mask, ids)
            mine, reference = in_turns(
                lambda lm=lm, e=embeds, m=mask, i=ids: label_log_likelihoods(lm.model, e, m, i),
                lambda lm=lm, e=embeds, m=mask, i=ids: one_by_one(lm.model, e, m, i),
                repeats,
            )
        rows.append({"part": "labels", "what": f"{name}, {count} prompts of up to {tokens.size(1)} tokens, "
                     f"{len(names)} labels of up to {max(map(len, ids))}", "seconds": mine, "reference": reference,
                     "against": "each label by itself", "ratio": reference / mine,
                     "largest_difference": float((fast - slow).abs().max())})  # fmt: skip
    return rows


def subgraph_prompts(data: Any, repeats: int) -> list[dict[str, Any]]:
    """Everything that a prompt of each node is made of, batch by batch, before a network or language model reads it."""
    nodes = torch.arange(data.num_nodes)
    x = torch.randn(data.num_nodes, 384, generator=torch.Generator().manual_seed(0))
    classes = int(data.y.max()) + 1

    def ofa() -> None:
        found = egos(adjacency(data), nodes, hops=2, at_most=24, generator=torch.Generator().manual_seed(0))
        for part in nodes.split(512):
            prompts(found, part, data.num_nodes, classes)

    def zerog() -> None:
        found = egos(adjacency(data), nodes, hops=2, at_most=24, generator=torch.Generator().manual_seed(0))
        for part in nodes.split(512):
            batch = found.graphs.take(part)
            with_hub(batch.edge_index, batch.batch, part.numel())

    def llaga() -> None:
        fields = hops(x, adjacency(data), 4)
        for part in nodes.split(512):
            fields[part]

    def llaga_neighbours() -> None:
        method = LLaGANeighbours(encoder=None, lm=None)  # neither has a part in the template
        template = method.template(data, x)
        for part in nodes.split(64):
            template(part)

    rows = []
    for work in (ofa, zerog, llaga, llaga_neighbours):
        found = seconds(work, repeats)
        rows.append({"part": "subgraph prompts", "what": f"{work.__name__}, {data.num_nodes:,} nodes",
                     "seconds": found, "reference": 5.0, "against": "five seconds", "ratio": 5.0 / found})  # fmt: skip
    return rows


def measure(part: str, quick: bool) -> list[dict[str, Any]]:
    """The rows of one part."""
    data = graphfm.load("debian")
    # A package's description is short: one to twelve of them make texts as uneven as abstracts are.
    texts = [" ".join(data.text[at : at + 1 + at % 12]) for at in range(0, 512 * 12, 13)]
    names = [str(name) for name in data.label_text][:7]
    if part == "encode":
        return encode(texts[: 16 if quick else 256], 1 if quick else 2)
    if part == "tune":
        return tune(sorted(texts, key=len)[-16:], 1 if quick else 5)
    if part == "subgraph prompts":
        return subgraph_prompts(data if quick else graphfm.load("tag/cora"), 1 if quick else 3)
    if part == "warm cache":
        return warm_cache(500 if quick else 10_000, 2 if quick else 5)
    return labels(texts, names, 1 if quick else 3, packaged=not quick)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=list(AIMS), action="append")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "graphllm.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for part in options.part or AIMS for row in measure(part, options.quick)]
    table = Table(title="one thread, best CPU time")
    for name in ("part", "what", "seconds", "against", "reference", "ratio", "aim"):
        table.add_column(name, justify="right" if name in ("seconds", "reference", "ratio", "aim") else "left")
    for r in rows:
        numbers = (f"{r['seconds']:.3f}", r["against"], f"{r['reference']:.3f}", f"{r['ratio']:.2f} x")
        table.add_row(r["part"], r["what"], *numbers, f"{AIMS[r['part']]:g} x")
    console = Console()
    console.print(table)
    if options.quick:
        return
    kept = json.loads(options.out.read_text())["rows"] if options.out.is_file() and options.part else []
    rows = sorted([r for r in kept if r["part"] not in (options.part or AIMS)] + rows, key=lambda r: r["part"])
    machine = {"cpu": platform.processor() or platform.machine(), "threads": 1} | environment()
    options.out.write_text(json.dumps({"machine": machine, "aims": AIMS, "rows": rows}, indent=1) + "\n")
    console.print(f"written to {options.out.name}")


if __name__ == "__main__":
    main()
