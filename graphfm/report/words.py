"""The verdict of a report in plain words, computed from the paired intervals."""

from __future__ import annotations

from collections.abc import Sequence

from graphfm.report.rows import Target, Verdict, changes

__all__ = ["headline", "leaks"]


def leaks(target: Target) -> bool:
    """Whether the target was measured under the protocol that leaks test labels."""
    return target.protocol == "paper"


def headline(targets: Sequence[Target]) -> tuple[str, str]:
    """One sentence on whether pretraining was worth it, and what stands behind it.

    A target counts as won only if the whole 95 % interval of the paired difference lies above zero. Targets of the
    paper protocol never count.
    """
    honest = [target for target in targets if not leaks(target)]
    if not honest:
        return (
            "No verdict: every cell here was measured with a protocol that leaks test labels.",
            "Measure again with the honest protocol to learn what transfer is worth.",
        )
    compared = [target for target in honest if target.against_floor is not None]
    if not compared:
        return _nothing_to_compare(honest)
    verdicts = [changes(target.against_floor) for target in compared]
    parts = [
        _rest(verdicts),
        _single_splits(compared),
        _against_control(compared),
        _missing(len(honest) - len(compared)),
        "A target is one graph with one number of labels a class.",
    ]
    return _sentence(verdicts), " ".join(part for part in parts if part)


def _sentence(verdicts: Sequence[Verdict]) -> str:
    won, of = verdicts.count("better"), len(verdicts)
    if of == 1:
        did = {"better": "beat", "worse": "did worse than", "unclear": "did not clearly beat"}[verdicts[0]]
        return f"The best pretrained method {did} the best training-free rule."
    many = f"all {of}" if won == of else f"{won or 'none'} of {of}"
    return f"The best pretrained method beat the best training-free rule on {many} targets."


def _rest(verdicts: Sequence[Verdict]) -> str:
    parts = [
        (verdicts.count("better"), "won: the 95 % interval of the paired difference lies above zero."),
        (verdicts.count("unclear"), "open: the 95 % interval does not exclude zero."),
        (verdicts.count("worse"), "lost: the 95 % interval lies below zero."),
    ]
    return " ".join(f"{count} {what}" for count, what in parts if count)


def _single_splits(compared: Sequence[Target]) -> str:
    single = sum(target.against_floor is not None and target.against_floor.n == 1 for target in compared)
    return f"{single} measured on one split only, which gives no interval." if single else ""


def _against_control(compared: Sequence[Target]) -> str:
    verdicts = [changes(target.against_control) for target in compared if target.against_control is not None]
    if not verdicts:
        return ""
    won = verdicts.count("better")
    many = "none" if won == 0 else str(won)
    return f"Against the best control, a network that was not pretrained, it won on {many} of {len(verdicts)}."


def _missing(count: int) -> str:
    if count == 0:
        return ""
    return f"{count} more {'target has' if count == 1 else 'targets have'} nothing to compare."


def _nothing_to_compare(honest: Sequence[Target]) -> tuple[str, str]:
    groups = {row.group for target in honest for row in target.rows}
    if "pretrained" not in groups:
        return (
            "What can be reached without pretraining.",
            "There is no pretrained method in these results; they are the bar that one has to clear.",
        )
    return (
        "No verdict: pretrained methods and training-free rules were not measured on the same splits.",
        "Run the baselines with the same targets, shots and seeds to see whether pretraining was worth it.",
    )
