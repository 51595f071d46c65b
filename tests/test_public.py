"""What a user meets: imports that cost nothing, names that resolve, documentation, and files of a readable size."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import graphfm

ROOT = Path(graphfm.__file__).parent
FILES = sorted(p for p in ROOT.rglob("*.py") if "_datasets" not in p.parts)
MODULES = ["graphfm", *(m.name for m in pkgutil.walk_packages([str(ROOT)], "graphfm.") if "_datasets" not in m.name)]
VERBS = ["pretrain", "adapt", "evaluate"]
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))


def fresh(code):
    """Run code in a new interpreter and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_is_cheap():
    heavy = "{'torch', 'torch_geometric', 'numpy', 'scipy', 'sklearn', 'networkx', 'matplotlib'}"
    code = f"import sys, graphfm; dir(graphfm); print(sorted({heavy} & set(sys.modules)))"
    assert fresh(code) == "[]"


def test_every_public_name_resolves_and_is_listed():
    for name in graphfm.__all__:
        assert getattr(graphfm, name) is not None, name
    assert dir(graphfm) == sorted(graphfm.__all__)
    with pytest.raises(AttributeError, match="'graphfm' has no attribute 'nothing'"):
        graphfm.nothing  # noqa: B018


ORDERS = """
import graphfm.evaluate
import graphfm.adapt
import graphfm.pretrain
import graphfm.data.load
from graphfm.pretrain import pretrain
from graphfm.adapt import adapt; import graphfm.pretrain
from graphfm import evaluate
import importlib; importlib.import_module("graphfm.evaluate")
import graphfm; graphfm.pretrain; import graphfm.pretrain
"""
IN_EACH_ORDER = f"""
import sys
verbs = ("pretrain", "adapt", "evaluate", "load", "few_shot")
for order in {ORDERS.strip().splitlines()!r}:
    for name in [n for n in sys.modules if n.split(".")[0] == "graphfm"]:
        del sys.modules[name]  # as in a new interpreter, but without loading torch again
    exec(order, {{}})
    import graphfm
    wrong = [v for v in verbs if not callable(getattr(graphfm, v)) or getattr(graphfm, v).__name__ != v]
    print(order, wrong) if wrong else None
"""


def test_verbs_stay_verbs_whatever_is_imported_first():
    """Importing the module of a verb would put the module in the function's place."""
    assert fresh(IN_EACH_ORDER) == ""


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_the_function_of_its_module(verb):
    module = importlib.import_module(f"graphfm.{verb}")
    assert inspect.ismodule(module)
    assert inspect.isfunction(getattr(graphfm, verb))
    assert getattr(graphfm, verb) is getattr(module, verb)


def public_objects():
    """``(where, object)`` for every name in an ``__all__``, and the public methods of its classes."""
    for name in MODULES:
        module = importlib.import_module(name)
        for key in getattr(module, "__all__", []):
            thing = getattr(module, key)
            if not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            yield f"{name}.{key}", thing
            if inspect.isclass(thing):
                for method, function in vars(thing).items():
                    function = getattr(function, "__func__", function)
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{name}.{key}.{method}", function


def test_every_public_name_is_documented_and_typed():
    lacking = []
    for where, thing in public_objects():
        if not (thing.__doc__ or "").strip():
            lacking.append(f"{where}: no docstring")
        function = thing.__init__ if inspect.isclass(thing) else thing
        if not inspect.isfunction(function) or getattr(thing, "_is_protocol", False):  # a protocol is not made
            continue
        for parameter in list(inspect.signature(function).parameters.values()):
            if parameter.name not in {"self", "cls"} and parameter.annotation is inspect.Parameter.empty:
                lacking.append(f"{where}: {parameter.name} has no type")
        if not inspect.isclass(thing) and "return" not in function.__annotations__:
            lacking.append(f"{where}: no return type")
    assert lacking == []


def test_every_module_says_what_it_exports():
    private = {"graphfm._version", "graphfm.__main__"}
    lacking = []
    for name in MODULES:
        module = importlib.import_module(name)
        if name not in private and not hasattr(module, "__all__"):
            lacking.append(name)
        for key in getattr(module, "__all__", []):
            assert hasattr(module, key), f"{name}.{key}"
    assert lacking == []


@each_file
def test_no_file_prints(path):
    if path.name == "cli.py":
        pytest.skip("the command line prints")
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    assert [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"] == []


def body_lines(function):
    """Lines of a function, its docstring left out."""
    total = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        total -= first.end_lineno - first.lineno + 1
    return total


@each_file
def test_files_and_functions_are_of_a_readable_size(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert body_lines(node) <= 60, node.name
