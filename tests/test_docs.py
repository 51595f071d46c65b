"""What the README says runs: its Python, in order, in one process; its commands, as far as their flags go."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from graphfm.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), scope)
    scores, data = scope["scores"], scope["data"]
    assert scores.shape == (data.num_nodes, int(data.y.max()) + 1)
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_commands_of_the_readme_exist() -> None:
    root = get_command(app)
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("graphfm ")]
    assert len(lines) >= 6
    for line in lines:
        words = line.split()[1:]
        command = root
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_linked_files_exist() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path


def test_targets_of_make_have_recipes() -> None:
    """A target that is named without a rule is done at once, and does nothing."""
    text = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z][\w-]*)", README)) | set(re.findall(r"^# make ([\w-]+)", text, flags=re.M))
    named |= set(re.findall(r"^\.PHONY: (.*)$", text, flags=re.M)[0].split())
    assert {"demo", "demo-ltv", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:.*\n\t\S", text, flags=re.M), target
