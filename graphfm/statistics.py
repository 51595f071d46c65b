"""Statistics over measured cells: means with intervals, and paired differences over the same splits.

The unit is the *split* (one dataset, shots, protocol and seed). Several cells of one method on one split, such as
several pretraining seeds, are averaged first: counting them as independent would make every interval too narrow.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphfm.results import Result

__all__ = ["Paired", "Summary", "best_baseline", "paired", "summarise"]

Split = tuple[str, int, str, int]  # dataset, shots, protocol, seed


@dataclasses.dataclass(frozen=True)
class Summary:
    """One method on one target: a row of a table.

    Attributes:
        dataset: the target.
        shots: labels a class.
        protocol: how it was measured; cells of two protocols are never averaged together.
        method: what was run.
        group: ``"floor"``, ``"control"`` or ``"pretrained"``.
        metric: the metric that ``mean``, ``std`` and ``half_width`` are of.
        n: splits in the mean.
        mean: NaN if the metric is defined on no split.
        std: standard deviation over splits (n - 1 in the denominator); NaN for fewer than two.
        half_width: half the width of the 95 % Student t interval of the mean; NaN for fewer than two splits.
        seconds: mean seconds a cell.
        undefined: cells whose metric is missing or NaN; they are left out of the mean.
    """

    dataset: str
    shots: int
    protocol: str
    method: str
    group: str
    metric: str
    n: int
    mean: float
    std: float
    half_width: float
    seconds: float
    undefined: int


@dataclasses.dataclass(frozen=True)
class Paired:
    """The difference ``method - baseline`` over the splits that both were measured on.

    Attributes:
        method: what is compared.
        baseline: what it is compared with.
        metric: the metric.
        n: common splits.
        mean: mean difference.
        half_width: half the width of its 95 % Student t interval; NaN for one split.
        p_value: two-sided paired t-test; NaN for one split.
    """

    method: str
    baseline: str
    metric: str
    n: int
    mean: float
    half_width: float
    p_value: float

    @property
    def low(self) -> float:
        """Lower end of the interval; NaN for one split."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval; NaN for one split."""
        return self.mean + self.half_width


def summarise(results: Iterable[Result], metric: str = "accuracy") -> list[Summary]:
    """Mean, standard deviation and 95 % interval for every (dataset, shots, protocol, method), in order of appearance.

    Raises:
        ValueError: no cell has the metric.
    """
    rows: dict[tuple[str, int, str, str], list[Result]] = defaultdict(list)
    for one in results:
        dataset, shots, protocol, _ = _split(one)
        rows[dataset, shots, protocol, one.method].append(one)
    _check_metric([one for cells in rows.values() for one in cells], metric)
    return [_summary(key, cells, metric) for key, cells in rows.items()]


def paired(results: Iterable[Result], method: str, baseline: str, metric: str = "accuracy") -> Paired:
    """Compare two methods over the splits both were measured on: same dataset, shots, protocol and seed.

    To compare on one target, give the results of that target. Splits where either metric is undefined are left out.

    Raises:
        ValueError: no cell has the metric, or the two methods share no split.
    """
    cells = list(results)
    _check_metric(cells, metric)
    ours, theirs = _by_split(cells, method, metric), _by_split(cells, baseline, metric)
    common = [split for split in ours if split in theirs]
    if not common:
        known = ", ".join(sorted({one.method for one in cells}))
        raise ValueError(
            f"{method!r} ({len(ours)} splits) and {baseline!r} ({len(theirs)} splits) share no split; run both on the "
            f"same targets, shots and seeds. Methods in the results: {known}."
        )
    mean, std, half = _mean_interval([ours[split] - theirs[split] for split in common])
    return Paired(method, baseline, metric, len(common), mean, half, _p_value(mean, std, len(common)))


def best_baseline(
    results: Iterable[Result],
    dataset: str,
    shots: int,
    *,
    groups: Sequence[str] = ("floor", "control"),
    protocol: str = "honest",
    metric: str = "accuracy",
) -> str | None:
    """The baseline with the highest mean on one target; None where no baseline was measured.

    Baselines are compared over the same splits. One that covers fewer splits than the others (an interrupted grid)
    does not take part, since its mean may be over the easier ones.

    Args:
        results: cells of any methods and targets.
        dataset: the target.
        shots: labels a class.
        groups: which groups count as baselines: ``("floor",)`` for the training-free rules alone.
        protocol: which protocol's cells.
        metric: what is to be highest.

    Raises:
        ValueError: the baselines share no split.
    """
    cells = [
        one for one in results if _split(one)[:3] == (dataset, shots, protocol) and one.settings.get("group") in groups
    ]
    values = {method: _by_split(cells, method, metric) for method in dict.fromkeys(one.method for one in cells)}
    most = max((len(splits) for splits in values.values()), default=0)
    if most == 0:
        return None
    values = {method: splits for method, splits in values.items() if len(splits) == most}
    common = set.intersection(*(set(splits) for splits in values.values()))
    if not common:
        raise ValueError(
            f"the baselines of {dataset!r} with {shots} shots share no split; run them with the same seeds."
        )
    means = {method: math.fsum(splits[split] for split in common) for method, splits in values.items()}
    return max(means, key=lambda method: means[method])


def _split(result: Result) -> Split:
    """What was split how; cells without the settings count as one honest split of zero shots a seed."""
    settings = result.settings
    return result.dataset, int(settings.get("shots") or 0), str(settings.get("protocol", "honest")), int(result.seed)


def _value(result: Result, metric: str) -> float:
    value = result.metrics.get(metric)
    return math.nan if value is None else float(value)


def _check_metric(cells: Sequence[Result], metric: str) -> None:
    if cells and not any(metric in one.metrics for one in cells):
        known = ", ".join(sorted({name for one in cells for name in one.metrics})) or "none"
        raise ValueError(f"metric={metric!r} is in no result; there are: {known}.")


def _by_split(cells: Iterable[Result], method: str, metric: str) -> dict[Split, float]:
    """The mean of a method's defined values on every split."""
    values: dict[Split, list[float]] = defaultdict(list)
    for one in cells:
        value = _value(one, metric)
        if one.method == method and not math.isnan(value):
            values[_split(one)].append(value)
    return {split: math.fsum(found) / len(found) for split, found in values.items()}


def _summary(key: tuple[str, int, str, str], cells: Sequence[Result], metric: str) -> Summary:
    dataset, shots, protocol, method = key
    values = list(_by_split(cells, method, metric).values())
    mean, std, half = _mean_interval(values)
    seconds = [one.seconds for one in cells if not math.isnan(one.seconds)]
    return Summary(
        dataset=dataset,
        shots=shots,
        protocol=protocol,
        method=method,
        group=str(cells[0].settings.get("group", "")),
        metric=metric,
        n=len(values),
        mean=mean,
        std=std,
        half_width=half,
        seconds=math.fsum(seconds) / len(seconds) if seconds else math.nan,
        undefined=sum(math.isnan(_value(one, metric)) for one in cells),
    )


def _mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, standard deviation and half width of the 95 % t interval; NaN where there are too few values."""
    n = len(values)
    if n == 0:
        return math.nan, math.nan, math.nan
    mean = math.fsum(values) / n
    if n == 1:
        return mean, math.nan, math.nan
    from scipy.special import stdtrit  # scipy.stats would take half a second to import

    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, std, float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)


def _p_value(mean: float, std: float, n: int) -> float:
    """Two-sided paired t-test; with no spread at all, 1 for no difference and 0 for a constant one."""
    if n < 2:
        return math.nan
    if std == 0:
        return 1.0 if mean == 0 else 0.0
    from scipy.special import stdtr

    return 2.0 * float(stdtr(n - 1, -abs(mean) / (std / math.sqrt(n))))
