"""The gate: whether a candidate is worse than a baseline by more than the allowed margins.

It tests the difference over the same cases with its bootstrap interval (``rag.evaluation.statistics``). By default
it fails if the candidate is significantly worse by more than the margin; with ``strict``, also if that cannot be
ruled out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, log2
from typing import Literal

from rag.errors import EvaluationError, SettingsError
from rag.evaluation.metric_definitions import BY_NAME, METRICS, Metric
from rag.evaluation.metric_formatting import format_difference, format_metric, join_ends
from rag.evaluation.statistics import CONFIDENCE, Estimate
from rag.evaluation.summary import Columns, change, common_cases, matched
from rag.tracing.figures import counted

State = Literal["worse", "not worse", "unsure", "no figure"]

# Metrics that most cases must have on both sides, since the others may be the bad ones; in words.
NEEDED = {"judge": "were judged", "cost": "have a known cost"}
LEAST_KNOWN = 0.9
# Tolerance for rounding errors: a drop of exactly the margin is allowed.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Margin:
    """The permitted deterioration of a metric.

    Attributes:
        metric: Name of a metric with a preferred direction.
        margin: 0 or more, in the unit of the metric (0 to 1 for a share) or as a share of the baseline's value.
        relative: Whether the margin is a share of the baseline's value.

    Raises:
        SettingsError: The metric is unknown or has no preferred direction, or the margin is out of range.
    """

    metric: str
    margin: float
    relative: bool = False

    def __post_init__(self) -> None:
        metric = BY_NAME.get(self.metric)
        if metric is None or metric.higher_is_better is None:
            problem = "is unknown" if metric is None else "has no preferred direction"
            known = ", ".join(other.name for other in METRICS if other.higher_is_better is not None)
            raise SettingsError(f"The metric {self.metric!r} {problem}.", fix=f"Use one of: {known}.")
        if not isfinite(self.margin) or self.margin < 0:
            raise SettingsError(
                f"The margin of {self.metric} must be 0 or more, not {self.margin}.", fix="Correct the margin."
            )
        if metric.unit == "share" and not self.relative and self.margin > 1:
            raise SettingsError(
                f"The margin of {self.metric} must be 0 to 1, not {self.margin:g}.",
                fix=f"Write {self.metric}={self.margin / 100:g} for {self.margin:g} percentage points.",
            )


@dataclass(frozen=True, slots=True)
class Check:
    """The result for one metric.

    Attributes:
        baseline, candidate: Values over the common cases; None if there is none.
        change: The candidate's value minus the baseline's.
        beyond: By how much the candidate is worse than the margin allows; negative within the margin.
        state: ``worse`` and ``not worse`` are significant.
        passed: Whether the gate passes for this metric.
        reason: The result as a sentence with the values.
    """

    metric: Metric
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
    """The result of the gate, which passes if every check does.

    Attributes:
        confidence: Confidence of a single interval, after the correction for the number of margins.
    """

    passed: bool
    checks: tuple[Check, ...]
    confidence: float


def parse_margin(text: str) -> Margin:
    """Parse ``f1=0.02``, or ``latency_p95=20%`` for a share of the baseline's value.

    Raises:
        SettingsError: The text is malformed, or ``Margin`` refuses the values.
    """
    name, equals, given = (part.strip() for part in text.partition("="))
    number = given.removesuffix("%")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not equals or not isfinite(value):
        raise SettingsError(
            f"The margin {text!r} must have the form METRIC=NUMBER.",
            fix="Write `METRIC=NUMBER` or `METRIC=NUMBER%`, such as `f1=0.02` or `latency_p95=20%`.",
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
    """Compare a candidate with a baseline over their common cases.

    With m margins, the confidence of an interval is 1 - (1 - ``confidence``) / m (Bonferroni), so that all of them
    hold together with ``confidence``. Half of the rest lies on either side of an interval: an equally good
    candidate fails at a margin of 0 in about (1 - ``confidence``) / 2 of the runs. For a relative margin, the
    baseline is scaled by 1 ± margin in every resample, since its value is uncertain too. A metric without a value
    on either side fails the gate, and so do points and costs that too few cases have on both sides.

    Args:
        baseline, candidate: Columns of runs over the same dataset version.
        margins: At least one, for distinct metrics.
        confidence: Between 0 and 1.
        strict: Whether a candidate that may be worse by more than the margin fails too.

    Raises:
        SettingsError: There is no margin, there are two for a metric, or the confidence is out of range.
        EvaluationError: All answers of a side failed.
    """
    names = [margin.metric for margin in margins]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"There are several margins for {', '.join(repeated)}.", fix="Keep one of them.")
    if not names:
        raise SettingsError("A gate must have at least one margin.", fix="Add one, such as `f1=0.02`.")
    if not 0 < confidence < 1:
        raise SettingsError(
            f"The confidence must be between 0 and 1, not {confidence:g}.", fix="Use one such as 0.95."
        )
    _check_answers(baseline, candidate)
    corrected = 1 - (1 - confidence) / len(margins)
    checks = tuple(_check(baseline, candidate, margin, corrected, strict=strict) for margin in margins)
    return Verdict(all(check.passed for check in checks), checks, corrected)


def least_cases(confidence: float) -> int:
    """Return the fewest cases that can be significant, even if all of them change in the same direction.

    By the sign test, all of n cases change in the same direction by chance with probability 2 · 2⁻ⁿ.
    """
    return ceil(log2(2 / (1 - confidence)) - ROUNDING)


def _movement(metric: Metric, before: float, after: float, moved: Estimate, confidence: float) -> str:
    """``F1 fell from 81.3 % to 73.0 %, by 8.3 points (95 % interval 5.2 to 11.4 points)``."""
    if moved.low == moved.high == 0:
        return f"{metric.title} stayed at {format_metric(metric, before)}"
    if not moved.value:
        least, most = (format_difference(metric, bound) for bound in (moved.low, moved.high))
        stayed = f"{metric.title} stayed at {format_metric(metric, before)}"
        return f"{stayed} ({100 * confidence:.3g} % interval {join_ends(least, most)})"
    fell = moved.value < 0
    low, high = (-moved.high, -moved.low) if fell else (moved.low, moved.high)
    start, end = format_metric(metric, before), format_metric(metric, after)
    size, least, most = (format_difference(metric, value) for value in (abs(moved.value), low, high))
    return (
        f"{metric.title} {'fell' if fell else 'rose'} from {start} to {end}, by {size} "
        f"({100 * confidence:.3g} % interval {join_ends(least, most)})"
    )


def _check(baseline: Columns, candidate: Columns, margin: Margin, confidence: float, *, strict: bool) -> Check:
    metric = BY_NAME[margin.metric]
    for side, columns in (("baseline", baseline), ("candidate", candidate)):
        if metric.name not in columns.numerators:
            return _unchecked(metric, margin, f"the {side} has no value")
    one, other = matched(baseline, candidate, metric)
    if problem := _unknown(metric, baseline, candidate, len(one.positions)):
        return _unchecked(metric, margin, problem)
    before, after = one.estimate(metric, confidence), other.estimate(metric, confidence)
    moved = change(one, other, metric, confidence)
    excess = change(_scaled(one, margin), other, metric, confidence) if margin.relative else moved
    if before is None or after is None or moved is None or excess is None:
        return _unchecked(metric, margin, "no case has a value in both")
    beyond = _beyond(excess, margin)
    state: State = "unsure"
    if beyond.low > ROUNDING:
        state = "worse"
    elif beyond.high <= ROUNDING:
        state = "not worse"
    cases = int((baseline.weights[metric.name] > 0).sum())
    return Check(
        metric,
        margin,
        before,
        after,
        moved,
        beyond,
        state,
        state == "not worse" or (state == "unsure" and not strict),
        f"{_movement(metric, before.value, after.value, moved, confidence)}: "
        f"{_assessment(state, metric, margin, before)}; {_case_count(moved.n, cases, confidence)}.",
    )


def _unchecked(metric: Metric, margin: Margin, reason: str) -> Check:
    reason = f"{metric.title} cannot be checked: {reason}."
    return Check(metric, margin, None, None, None, None, "no figure", passed=False, reason=reason)


def _check_answers(baseline: Columns, candidate: Columns) -> None:
    """Raise EvaluationError if a side has no answer to any common case: whatever it is compared with, it is equal.

    A failed answer is scored like an empty one, so that a gate would compare zeros.
    """
    sides = zip(("baseline", "candidate"), common_cases(baseline, candidate), strict=True)
    for side, columns in sides:
        failed = columns.numerators.get("failed")
        if failed is not None and failed.size and failed.all():
            raise EvaluationError(
                f"All answers of the {side} failed, so there is nothing to compare. The first failure: "
                f"{columns.error.rstrip('.') or 'unknown'}.",
                fix="Remedy the cause, and ask again with `ragsmith eval resume`.",
            )


def _unknown(metric: Metric, baseline: Columns, candidate: Columns, known: int) -> str:
    """Return why a metric cannot be compared; empty if it is known in enough of the cases that no side failed."""
    import numpy as np

    one, other = common_cases(baseline, candidate)
    failed = np.zeros(len(one.positions), np.bool_)
    for side in (one, other):
        failed |= side.numerators.get("failed", failed) > 0
    cases = int((~failed).sum())
    if metric.name not in NEEDED or known >= LEAST_KNOWN * cases:
        return ""
    return f"only {known:,} of {counted(cases, 'answered case')} {NEEDED[metric.name]} on both sides"


def _scaled(baseline: Columns, margin: Margin) -> Columns:
    """Return the baseline with all values as bad as a relative margin allows; no metric is negative."""
    factor = 1 + _worse(margin) * margin.margin
    return replace(baseline, numerators={margin.metric: factor * baseline.numerators[margin.metric]})


def _beyond(excess: Estimate, margin: Margin) -> Estimate:
    """Return the excess beyond the margin; a relative margin is already part of ``excess``."""
    allowed = 0.0 if margin.relative else margin.margin
    low, high = sorted((_worse(margin) * excess.low, _worse(margin) * excess.high))
    return Estimate(_worse(margin) * excess.value - allowed, low - allowed, high - allowed, excess.n)


def _worse(margin: Margin) -> int:
    """Return 1 if higher is worse, -1 if lower is."""
    return -1 if BY_NAME[margin.metric].higher_is_better else 1


def _assessment(state: State, metric: Metric, margin: Margin, before: Estimate) -> str:
    result = {"worse": "worse", "unsure": "perhaps worse"}.get(state, "not worse")
    if not margin.margin:
        return result
    if not margin.relative:
        return f"{result} by more than the allowed {format_difference(metric, margin.margin)}"
    allowed = format_difference(metric, margin.margin * before.value)
    return f"{result} by more than the allowed {100 * margin.margin:g} % of the baseline ({allowed})"


def _case_count(cases: int, of: int, confidence: float) -> str:
    count = counted(cases, "case") if cases >= of else f"{cases:,} of the baseline's {counted(of, 'case')}"
    return count if cases >= least_cases(confidence) else f"{count}, too few for a reliable interval"
