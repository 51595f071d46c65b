"""The HTML page: self-contained, escaped, honest, with and without matplotlib."""

from __future__ import annotations

import html.parser
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from graphfm.report import plots, write_report
from graphfm.report.rows import targets
from graphfm.results import Result

NASTY = "<script>alert('x')</script> & \"$a_b$\" ü"


def cells(method, group, values, *, dataset="wine", shots=1, protocol="honest", **more):
    settings = {"shots": shots, "protocol": protocol, "group": group, "device": "cpu"} | more
    return [
        Result(
            "t", dataset, method, seed, {"accuracy": value}, settings, 2.0, 2**28, {"torch": "2.11", "python": "3.12"}
        )
        for seed, value in enumerate(values)
    ]


def typical(**where):
    return [
        *cells("sgc4", "floor", [0.6, 0.7, 0.66], **where),
        *cells("scratch", "control", [0.55, 0.65, 0.59], **where),
        *cells("finetune", "pretrained", [0.71, 0.82, 0.76], sources=["cora", "photo"], **where),
    ]


class Structure(html.parser.HTMLParser):
    """Collects tags, and checks that those that need an end have one."""

    VOID = frozenset({"meta", "br", "img", "link", "hr", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page(tmp_path, results, **options):
    return write_report(results, tmp_path / "deep" / "report.html", **options).read_text(encoding="utf-8")


def test_the_page_needs_nothing_beside_it(tmp_path):
    found = page(tmp_path, typical() + typical(dataset="digits", shots=5))
    structure = Structure(found)
    assert "script" not in structure.tags
    assert "link" not in structure.tags
    assert all(link.startswith("#") for link in structure.links)
    assert "@import" not in found
    assert "@font-face" not in found
    assert structure.tags.count("svg") == 4  # two targets, differences, seconds
    words = " ".join(structure.words)
    for expected in (
        "on all 2 targets",
        "digits, 5 labels a class",
        "0 to 2",
        "cora + photo",
        "torch 2.11",
        "256 MiB",
    ):
        assert expected in words


def test_what_users_name_is_escaped_everywhere(tmp_path):
    results = [
        *cells(NASTY, "pretrained", [0.5, 0.6], dataset=NASTY, **{NASTY: NASTY}),
        *cells("sgc4", "floor", [0.4, 0.5], dataset=NASTY),
        *cells("odd", NASTY, [0.4, 0.5], dataset=NASTY, protocol=NASTY),
    ]
    found = page(tmp_path, results, title=NASTY)
    structure = Structure(found)
    assert "<script" not in found
    assert "script" not in structure.tags
    assert NASTY in "".join(structure.words)


def test_leaking_cells_raise_the_red_banner(tmp_path):
    assert 'role="alert"' not in page(tmp_path, typical())
    found = page(tmp_path, typical() + typical(shots=3, protocol="paper"))
    assert 'role="alert"' in found
    assert "leaks test labels" in " ".join(Structure(found).words)


def test_without_matplotlib_there_are_tables_and_a_note(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    assert not plots.available()
    found = page(tmp_path, typical())
    structure = Structure(found)
    assert "svg" not in structure.tags
    assert structure.tags.count("table") == 2
    assert 'pip install "graphfm[viz]"' in "".join(structure.words)


def test_one_method_with_one_split_makes_a_page(tmp_path):
    structure = Structure(page(tmp_path, cells("finetune", "pretrained", [0.5])))
    assert structure.tags.count("svg") == 1


def test_undefined_accuracies_make_a_page_and_are_counted(tmp_path):
    found = page(tmp_path, typical() + cells("broken", "pretrained", [float("nan")] * 3))
    assert "3 without an accuracy" in found
    assert not re.search(r"\bnan\b", found)


def test_settings_that_were_averaged_over_are_named(tmp_path):
    results = [
        *cells("finetune", "pretrained", [0.5], pretrain_seed=0, checkpoint="a"),
        *cells("finetune", "pretrained", [0.6], pretrain_seed=1, checkpoint="b"),
    ]
    assert "averaged over 2 values" in page(tmp_path, results)


def test_the_same_results_give_the_same_file(tmp_path):
    assert page(tmp_path, typical()) == page(tmp_path, typical())


def test_nothing_to_report_and_nowhere_to_write(tmp_path):
    with pytest.raises(ValueError, match="results is empty"):
        write_report([], tmp_path / "report.html")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="choose a file in a folder you may write to"):
        write_report(typical(), tmp_path / "file" / "report.html")


# ------------------------------------------------------------------------------------------------------------- plots


def test_drawings_are_well_formed_and_take_their_colours_from_the_page():
    found = targets(typical() + typical(shots=3))
    for drawing in (plots.accuracy_plot(found[0]), plots.difference_plot(found), plots.seconds_plot(found)):
        ElementTree.fromstring(drawing)
        assert "var(--pretrained)" in drawing
        assert "#0102" not in drawing
        assert "finetune" in drawing


def test_positions_follow_the_numbers():
    """Dots of one panel lie on one line through (accuracy, x): the axis is linear and nothing is mixed up."""
    (target,) = targets(typical())
    drawing = ElementTree.fromstring(plots.accuracy_plot(target))
    uses = drawing.iter("{http://www.w3.org/2000/svg}use")
    dots = [use for use in uses if "fill: var" in use.get("style") and "opacity" not in use.get("style")]
    x, y = [float(dot.get("x")) for dot in dots], [float(dot.get("y")) for dot in dots]
    means = [row.score.mean for row in target.rows]
    scale = (x[2] - x[0]) / (means[2] - means[0])
    assert scale > 0
    assert x[1] - x[0] == pytest.approx(scale * (means[1] - means[0]), abs=0.01)
    assert y == sorted(y)  # from the first row down


def test_nothing_to_compare_draws_nothing():
    found = targets(cells("sgc4", "floor", [0.5]))
    assert plots.difference_plot(found) == ""
    assert plots.seconds_plot(found) == ""


def test_pyplot_is_left_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.accuracy_plot(targets(typical())[0])
    assert dict(matplotlib.rcParams) == before


def test_trained_numbers_have_a_column_where_they_are_known(tmp_path):
    found = [
        *typical(),
        *cells("prompt:GPF()", "pretrained", [0.7, 0.8, 0.75], trained_parameters=1432),
        *cells("sgc4", "floor", [0.6, 0.7], dataset="digits"),
    ]
    first, second = targets(found)
    assert [first.row(m).trained for m in ("prompt:GPF()", "finetune")] == [1432, None]
    text = write_report(found, tmp_path / "r.html").read_text()
    assert text.count('scope="col">trained</th>') == 1  # digits has nothing to count
    assert "1,432" in text
    assert second.rows[0].trained is None
