"""Whether a candidate does worse than a baseline, beyond what is allowed.

What is compared is the difference over the same cases with its bootstrap interval (``rag.evaluation.statistics``).
The gate errs on a stated side: by default it fails where the candidate is surely worse by more than the margin,
and with ``strict`` also where that cannot be excluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, log2
from typing import TYPE_CHECKING, Literal

from rag.errors import SettingsError
from rag.evaluation.measures import BY_NAME, MEASURES, Measure
from rag.evaluation.metric_formatting import format_metric
from rag.evaluation.statistics import CONFIDENCE, Estimate
from rag.evaluation.summary import Columns, change

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

State = Literal["worse", "not worse", "unsure", "no figure"]

# Sums of shares are rounded; a fall of just the margin is allowed.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Margin:
    """How much worse a measure may become.

    Attributes:
        measure: Its name; one of which more or less is better.
        margin: 0 or more, in the unit of the measure (a share: 0 to 1), or as a share of the baseline's figure.
        relative: Whether it is a share of the baseline's figure.

    Raises:
        SettingsError: There is no such measure, neither direction of it is better, or the margin is out of range.
    """

    measure: str
    margin: float
    relative: bool = False

    def __post_init__(self) -> None:
        measure = BY_NAME.get(self.measure)
        if measure is None or measure.higher_is_better is None:
            wrong = "There is no measure" if measure is None else "Neither more nor less is better of the measure"
            known = ", ".join(each.name for each in MEASURES if each.higher_is_better is not None)
            raise SettingsError(f"{wrong} {self.measure!r}.", fix=f"A margin takes one of: {known}.")
        if not isfinite(self.margin) or self.margin < 0:
            raise SettingsError(f"The margin of {self.measure} is {self.margin}.", fix="It is 0 or more.")
        if measure.unit == "share" and not self.relative and self.margin > 1:
            raise SettingsError(
                f"The margin of {self.measure} is {self.margin:g}, and a share is 0 to 1.",
                fix=f"Write {self.measure}={self.margin / 100:g} for {self.margin:g} in a hundred.",
            )


@dataclass(frozen=True, slots=True)
class Check:
    """One measure held against its margin.

    Attributes:
        baseline, candidate: Their figures over the cases that both have; None where there is none.
        change: How much larger the candidate's figure is.
        beyond: By how much the candidate is worse than the margin allows; below 0 is within it.
        state: ``worse`` and ``not worse`` are those that the interval leaves no doubt of.
        passed: Whether the gate passes as far as this measure goes.
        reason: The sentence that says so, with the figures.
    """

    measure: Measure
    margin: Margin
    baseline: Estimate | None
    candidate: Estimate | None
    change: Estimate | None
    beyond: Estimate | None
    state: State
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says: it passes where every check does.

    Attributes:
        confidence: Of each interval, after sharing it between the margins.
    """

    passed: bool
    checks: tuple[Check, ...]
    confidence: float


def parse_margin(text: str) -> Margin:
    """A margin as a person writes it: ``f1=0.02``, or ``latency_p95=20%`` of the baseline's figure.

    Raises:
        SettingsError: It is malformed, or what ``Margin`` refuses.
    """
    name, equals, given = (part.strip() for part in text.partition("="))
    number = given.removesuffix("%")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not equals or not isfinite(value):
        raise SettingsError(
            f"The margin {text!r} cannot be read.",
            fix="Write `MEASURE=NUMBER` or `MEASURE=NUMBER%`, such as `f1=0.02` or `latency_p95=20%`.",
        )
    relative = number != given
    return Margin(name, value / 100 if relative else value, relative)


def gate(
    baseline: Columns,
    candidate: Columns,
    margins: Sequence[Margin],
    *,
    confidence: float = CONFIDENCE,
    strict: bool = False,
) -> Verdict:
    """Hold a candidate against a baseline over the cases that both have; cases of one alone do not count.

    With m margins each interval has the confidence 1 - (1 - ``confidence``) / m (Bonferroni), so that all of them
    hold together with ``confidence``. An interval leaves half of the rest on each side: a candidate that is truly
    as good fails at a margin of 0 in about (1 - ``confidence``) / 2 of the runs. Against a relative margin the
    candidate is compared with the baseline times 1 ± margin on each draw, since the baseline's figure is uncertain
    too. A measure of which either has no figure fails the gate: a check that cannot be made has not been passed.

    Args:
        baseline, candidate: Their numbers, of runs over the same dataset version.
        margins: At least one, each of another measure.
        confidence: Between 0 and 1.
        strict: Whether a candidate also fails that may be worse by more than the margin.

    Raises:
        SettingsError: There is no margin, there are two of a measure, or the confidence is out of range.
    """
    names = [margin.measure for margin in margins]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"There are two margins of {', '.join(repeated)}.", fix="Keep one of each.")
    if not names:
        raise SettingsError("A gate without a margin checks nothing.", fix="Give one, such as `f1=0.02`.")
    if not 0 < confidence < 1:
        raise SettingsError(f"The confidence {confidence:g} is out of range.", fix="Give one such as 0.95.")
    each = 1 - (1 - confidence) / len(margins)
    checks = tuple(_check(baseline, candidate, margin, each, strict=strict) for margin in margins)
    return Verdict(all(check.passed for check in checks), checks, each)


def least_cases(confidence: float) -> int:
    """The fewest cases that can be surely worse: of fewer, all go the same way by chance too often.

    By the sign test n cases all go one way, or all the other, with probability 2 · 2⁻ⁿ.
    """
    return ceil(log2(2 / (1 - confidence)) - ROUNDING)


def _movement(measure: Measure, before: float, after: float, moved: Estimate, confidence: float) -> str:
    """``F1 fell from 81.3 % to 73.0 %, by 8.3 % (95 % interval 5.2 % to 11.4 %)``."""
    if moved.low == moved.high == 0:
        return f"{measure.title} stayed at {format_metric(measure, before)}"
    fell = moved.value < 0
    low, high = (-moved.high, -moved.low) if fell else (moved.low, moved.high)
    values = (before, after, abs(moved.value), low, high)
    start, end, size, least, most = (format_metric(measure, value) for value in values)
    return (
        f"{measure.title} {'fell' if fell else 'rose'} from {start} to {end}, by {size} "
        f"({100 * confidence:.3g} % interval {least} to {most})"
    )


def _check(baseline: Columns, candidate: Columns, margin: Margin, confidence: float, *, strict: bool) -> Check:
    measure = BY_NAME[margin.measure]
    for side, columns in (("baseline", baseline), ("candidate", candidate)):
        if measure.name not in columns.numerators:
            return _unmade(measure, margin, f"the {side} has no figure of it")
    one, other = _shared(baseline, candidate, measure)
    before, after = one.estimate(measure, confidence), other.estimate(measure, confidence)
    moved = change(one, other, measure, confidence)
    excess = change(_scaled(one, margin), other, measure, confidence) if margin.relative else moved
    if before is None or after is None or moved is None or excess is None:
        return _unmade(measure, margin, "no case has a figure of it in both")
    beyond = _beyond(excess, margin)
    state: State = "unsure"
    if beyond.low > ROUNDING:
        state = "worse"
    elif beyond.high <= ROUNDING:
        state = "not worse"
    cases = int((baseline.weights[measure.name] > 0).sum())
    return Check(
        measure,
        margin,
        before,
        after,
        moved,
        beyond,
        state,
        state == "not worse" or (state == "unsure" and not strict),
        f"{_movement(measure, before.value, after.value, moved, confidence)}: "
        f"{_judged(state, measure, margin, before)}; {_counted(moved.n, cases, confidence)}.",
    )


def _unmade(measure: Measure, margin: Margin, why: str) -> Check:
    reason = f"{measure.title} cannot be checked: {why}."
    return Check(measure, margin, None, None, None, None, "no figure", passed=False, reason=reason)


def _shared(baseline: Columns, candidate: Columns, measure: Measure) -> tuple[Columns, Columns]:
    """The rows of the cases that both have; of a quantile, those with a value in both."""
    import numpy as np

    both: NDArray[np.int64] = np.intersect1d(baseline.positions, candidate.positions, assume_unique=True)
    one, other = (each.of(np.isin(each.positions, both)) for each in (baseline, candidate))
    if measure.quantile is None:
        return one, other
    known = ~(np.isnan(one.numerators[measure.name]) | np.isnan(other.numerators[measure.name]))
    return one.of(known), other.of(known)


def _scaled(baseline: Columns, margin: Margin) -> Columns:
    """The baseline with every number as bad as a relative margin allows; no measure is below 0."""
    factor = 1 + _worse(margin) * margin.margin
    return replace(baseline, numerators={margin.measure: factor * baseline.numerators[margin.measure]})


def _beyond(excess: Estimate, margin: Margin) -> Estimate:
    """By how much worse than the margin allows; a relative one is in the excess already."""
    allowed = 0.0 if margin.relative else margin.margin
    low, high = sorted((_worse(margin) * excess.low, _worse(margin) * excess.high))
    return Estimate(_worse(margin) * excess.value - allowed, low - allowed, high - allowed, excess.n)


def _worse(margin: Margin) -> int:
    """1 where more is worse, -1 where less is."""
    return -1 if BY_NAME[margin.measure].higher_is_better else 1


def _judged(state: State, measure: Measure, margin: Margin, before: Estimate) -> str:
    how = {"worse": "worse", "unsure": "perhaps worse"}.get(state, "not worse")
    if not margin.margin:
        return how
    if not margin.relative:
        return f"{how} by more than the {format_metric(measure, margin.margin)} that are allowed"
    allowed = format_metric(measure, margin.margin * before.value)
    return f"{how} by more than the {100 * margin.margin:g} % of the baseline that are allowed, here {allowed}"


def _counted(cases: int, of: int, confidence: float) -> str:
    counted = f"{cases} {'case' if cases == 1 else 'cases'}"
    if cases < of:
        counted = f"{cases} of the baseline's {of} cases"
    return counted if cases >= least_cases(confidence) else f"{counted}, too few for an interval to be trusted"
