"""The command line: each command parses, calls one verb and prints.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from graphfm.data.commands import data_app
from graphfm.graphllm.commands import glbench_app
from graphfm.ltv.commands import ltv_app

if TYPE_CHECKING:
    from graphfm.results import Result

__all__ = ["app", "main"]

UNIFIED = 100  # the width that the unifier brings every graph to, and so the backbone's input


class _CleanErrors(TyperGroup):
    """Errors of the library become one line and exit code 2; with ``--verbose`` they keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `graphfm data list | head` is no error
            raise
        except (ValueError, OSError, ImportError) as error:
            if ctx.params.get("verbose"):
                raise
            _complain(error)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_CleanErrors,
    help="Pretrain one graph network on many graphs, transfer it with few labels, and see whether it was worth it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(glbench_app, name="glbench")
app.add_typer(ltv_app, name="ltv")

Shots = Annotated[list[str], typer.Option(help="Labels a class: 1,3,5, or the option several times.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many splits: seeds 0 .. N - 1.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; the fastest there is if left out.")]
Task = Annotated[str, typer.Option(help="node, link, graph (a TU collection) or cluster.")]
Negatives = Annotated[
    list[str], typer.Option(help="What links are ranked among: uniform,corrupt,degree,two_hop,heart.")
]
_METHODS = "finetune,probe,prototype,adapter:LoRA(rank=8),prompt:GPF; link: cosine for prototype; cluster: readout"
Targets = Annotated[list[str], typer.Option("--target", help="A dataset's name or a file; several times for several.")]


def _version(wanted: bool) -> None:
    if wanted:
        from graphfm._version import __version__

        typer.echo(f"graphfm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log progress, show tracebacks.")] = False,
) -> None:
    from rich.logging import RichHandler

    level = logging.DEBUG if verbose else logging.INFO
    handler = RichHandler(console=_console(stderr=True), show_path=verbose)
    logging.basicConfig(format="%(message)s", datefmt="%X", handlers=[handler])
    logging.getLogger("graphfm").setLevel(level)


@app.command()
def pretrain(
    sources: Annotated[list[str], typer.Option(help="Datasets or files to learn from: a,b,c.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
    backbone: Annotated[str, typer.Option(help="GCN, FAGCN(norm='BatchNorm'), ... or module:Name.")] = "FAGCN",
    hidden: Annotated[int, typer.Option(min=1, help="Width of the backbone.")] = 128,
    objective: Annotated[str, typer.Option(help="GraphCL, DGI, GraphMAE(mask=0.75), ... or module:Name.")] = "GraphCL",
    coordinators: Annotated[int, typer.Option(min=0, help="Joining nodes a dataset; 0 leaves graphs apart.")] = 1,
    sampler: Annotated[str, typer.Option(help="RandomWalks, WholeGraph, Neighbours; or module:Name.")] = "RandomWalks",
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the samples.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Subgraphs (Neighbours: seed nodes) a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Step size.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
) -> None:
    """Pretrain one network on several graphs and save it."""
    from graphfm import Coordinators
    from graphfm.data import load
    from graphfm.names import make
    from graphfm.pretrain import pretrain as run

    if batch_size is not None and sampler.lower() == "wholegraph":
        raise ValueError("--batch-size: WholeGraph sees everything in every step; leave it out.")
    chosen: dict[str, Any] = {"epochs": epochs, "lr": learning_rate}
    model = run(
        [load(name) for name in _listed(sources, "--sources")],
        backbone=make("backbones", backbone, UNIFIED, hidden),
        objective=make("objectives", objective),
        coordinators=Coordinators(coordinators) if coordinators else None,
        sampler=make("samplers", sampler, **({} if batch_size is None else {"batch_size": batch_size})),
        seed=seed,
        device=device,
        checkpoint=out,
        resume=resume,
        progress=True,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    model.save(out)
    _say(f"Saved to {out}. Next: graphfm transfer --checkpoint {out} --target NAME --shots 1,5")


@app.command()
def transfer(
    checkpoint: Annotated[Path, typer.Option(help="Folder that `graphfm pretrain` wrote.")],
    target: Targets,
    task: Task = "node",
    shots: Shots = ["1"],  # noqa: B006 - typer copies it
    seeds: Seeds = 5,
    method: Annotated[list[str], typer.Option(help=f"{_METHODS}; the first of its task if left out.")] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Results file; cells in it are not measured again.")] = Path(
        "results.jsonl"
    ),
    baselines: Annotated[bool, typer.Option(help="Measure training-free rules and controls beside it.")] = True,
    protocol: Annotated[str, typer.Option(help="honest; or paper, which leaks test labels.")] = "honest",
    negatives: Negatives = ["corrupt"],  # noqa: B006
    ego_hops: Annotated[int | None, typer.Option(min=0, help="Nodes through ego graphs of this radius.")] = None,
    edges: Annotated[int | None, typer.Option(min=1, help="Links: learn from so many edges, else all.")] = None,
    device: Device = None,
) -> None:
    """Carry a checkpoint to a graph with few labels, and compare it with what needs no pretraining."""
    from graphfm import Pretrained
    from graphfm.data import load
    from graphfm.tasks.verbs import first_method, measure

    methods, counts = _listed(method or [first_method(task)], "--method"), _integers(shots, "--shots")
    options: dict[str, Any] = {"shots": counts, "seeds": range(seeds), "baselines": baselines, "protocol": protocol}
    options |= {"negatives": _listed(negatives, "--negatives"), "ego_hops": ego_hops, "edges": edges}
    options |= {"device": device, "out": out}
    model = Pretrained.load(checkpoint)
    graphs = [load(name) for name in target]
    _show([one for graph in graphs for one in measure(task, model, graph, methods=methods, **options)], out)


@app.command()
def baselines(
    target: Targets,
    task: Task = "node",
    shots: Shots = ["1"],  # noqa: B006
    seeds: Seeds = 5,
    out: Annotated[Path | None, typer.Option(help="Results file; cells in it are not measured again.")] = None,
    negatives: Negatives = ["corrupt"],  # noqa: B006
    device: Device = None,
) -> None:
    """Measure what can be reached without pretraining."""
    from graphfm.data import load
    from graphfm.tasks.verbs import first_method, measure

    first_method(task)
    options: dict[str, Any] = {"shots": _integers(shots, "--shots"), "seeds": range(seeds), "device": device}
    options |= {"negatives": _listed(negatives, "--negatives"), "out": out}
    graphs = [load(name) for name in target]
    _show([one for graph in graphs for one in measure(task, None, graph, methods=[], **options)], out)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="Results file that `graphfm transfer` wrote.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Its heading.")] = "Few-shot transfer",
) -> None:
    """Write results as one HTML page with tables and plots."""
    from graphfm.report import write_report
    from graphfm.results import read

    cells = read(results)
    if not cells:
        raise ValueError(f"{results} holds no results yet; `graphfm transfer --out {results}` writes some.")
    _say(f"Report: {write_report(cells, out, title=title)}")


def main() -> None:
    """Entry point of the ``graphfm`` command."""
    app()


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr)


def _say(text: str) -> None:
    """Print plain text: brackets in names are no markup, long paths are not broken."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def _complain(error: Exception) -> None:
    text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else str(error)
    line = " ".join(text.split()) or type(error).__name__
    _console(stderr=True).print(f"Error: {line}", style="red", markup=False, highlight=False, soft_wrap=True)


def _show(found: list[Result], out: Path | None) -> None:
    from graphfm.report import render_table

    _console().print(render_table(found))
    if out is not None:
        _say(f"Results: {out}. Next: graphfm report {out} --out report.html")


def _listed(values: Iterable[str], option: str) -> list[str]:
    """Comma lists and repeated options alike; in ``LoRA(rank=8,alpha=2)`` the comma belongs to the name."""
    parts = [part.strip() for value in values for part in re.split(r",(?![^()\[\]]*[)\]])", value)]
    parts = list(dict.fromkeys(part for part in parts if part))
    if not parts:
        raise typer.BadParameter("is empty; name at least one.", param_hint=option)
    return parts


def _integers(values: Iterable[str], option: str) -> list[int]:
    parts = _listed(values, option)
    wrong = [part for part in parts if not part.isdecimal() or int(part) < 1]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is no positive whole number; write 1,3,5.", param_hint=option)
    return [int(part) for part in parts]


if __name__ == "__main__":
    main()
