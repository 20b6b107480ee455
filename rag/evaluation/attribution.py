"""Which of prompt, retrieval and model is to blame, or to thank, for what changed between two configurations.

All combinations of the factors that differ (``rag.evaluation.factors``) answer the same cases, and the change from
A to B is divided among the factors by their Shapley values (``rag.evaluation.shapley``), case by case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rag.evaluation.factors import Factor, FactorName, listed
from rag.evaluation.figures import told_change, told_interval
from rag.evaluation.gate import least_cases, told_movement
from rag.evaluation.measures import Measure
from rag.evaluation.shapley import SAME, interactions_of, mean_measure, shapley_values, values_of
from rag.evaluation.statistics import CONFIDENCE, Estimate, mean
from rag.evaluation.summary import Columns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["together", "either", "depends", "none"]


@dataclass(frozen=True, slots=True)
class Effect:
    """One factor's part of the change.

    Attributes:
        effect: Mean over the cases of its Shapley value, in the unit of the measure.
        share: Of the whole change, 1 is all of it, below 0 against it; None where the whole may be chance.
        cases: In how many of them it is not 0.
        sure: Whether the interval excludes 0, and enough cases show it for that to mean something.
    """

    factor: FactorName
    effect: Estimate
    share: float | None
    cases: int
    sure: bool


@dataclass(frozen=True, slots=True)
class Interaction:
    """How much more two factors do together than one by one.

    Attributes:
        value: Mean over the cases of the interaction index; 0 where they add up.
        kind: ``together``: half or more of what each does comes only where both are turned. ``either``: each does
            alone half or more of what both do. ``depends``: it surely is not 0. ``none``: it may be chance.
    """

    factors: tuple[FactorName, FactorName]
    value: Estimate
    kind: Kind


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who changed a measure.

    Attributes:
        n: Cases with a value in every combination; everything below rests on them.
        left_out: Cases with a value in some combinations only.
        before, after: Means of A and B.
        total: B minus A, at the confidence that was asked for.
        effects: In the order of the factors; their values add up to the total's.
        interactions: Of each pair of factors.
        confidence: Of the intervals of effects and interactions.
        responsible: Factors that surely moved the measure the way it moved.
        opposing: Factors that surely moved it the other way.
        verdict: All this in a few sentences.
    """

    measure: Measure
    n: int
    left_out: int
    before: float
    after: float
    total: Estimate
    effects: tuple[Effect, ...]
    interactions: tuple[Interaction, ...]
    confidence: float
    responsible: tuple[FactorName, ...]
    opposing: tuple[FactorName, ...]
    verdict: str


def attribute(
    columns: Sequence[Columns], factors: Sequence[Factor], measure: str, *, confidence: float = CONFIDENCE
) -> Attribution:
    """Divide the change of a measure among the factors.

    Cases are drawn by the paired bootstrap, the same ones for every combination. The confidence is shared between
    the effects and the interactions (Bonferroni), so that all that is called sure holds together with it. An
    effect is sure only if at least as many cases show it as ``least_cases`` asks for: the bootstrap takes a few
    cases that happen to agree for certainty.

    Args:
        columns: Numbers of each combination, in the order of ``combinations``.
        factors: Those that differ, in their order.
        measure: Name of a measure whose figure is a mean over the cases.
        confidence: Between 0 and 1.

    Raises:
        SettingsError: There is no such measure, or its figure is a quantile.
        EvaluationError: No case has a value in every combination.
        ValueError: There are not 2^k combinations of k factors.
    """
    known = mean_measure(measure)
    _, values, left_out = values_of(columns, known, len(factors))
    effects, interactions = shapley_values(values), interactions_of(values)
    level = 1 - (1 - confidence) / (len(effects) + len(interactions))
    total, certain = _estimate(values[-1] - values[0], confidence)
    parts = [
        _effect(factor.name, column, total if certain else None, level)
        for factor, column in zip(factors, effects, strict=True)
    ]
    joint = [
        _interaction(parts[one], parts[other], column, level) for (one, other), column in interactions.items()
    ]
    before, after = float(values[0].mean()), float(values[-1].mean())
    responsible, opposing = (
        [each for each in parts if each.sure and way * each.effect.value * total.value > 0] for way in (1, -1)
    )
    same = not any((row != values[0]).any() for row in values)
    sentences = [
        f"{told_movement(known, before, after, total, confidence)}, over {values.shape[1]} cases.",
        "All combinations give the same values."
        if same
        else _blame(known, parts, opposing, level, certain=certain),
        *(_joined(known, each, level) for each in joint if each.kind != "none"),
    ]
    if left_out:
        sentences.append(f"Cases with a value in some combinations only do not count: {left_out}.")
    return Attribution(
        known,
        values.shape[1],
        left_out,
        before,
        after,
        total,
        tuple(parts),
        tuple(joint),
        level,
        tuple(each.factor for each in responsible),
        tuple(each.factor for each in opposing),
        " ".join(sentences),
    )


def _estimate(column: NDArray[np.float64], confidence: float) -> tuple[Estimate, bool]:
    """The mean over the cases, and whether it surely is not 0."""
    import numpy as np

    found = mean(column, np.ones(len(column)), confidence=confidence)
    if found is None:
        raise ValueError("at least one case is wanted")
    return found, (found.low > SAME or found.high < -SAME) and _shown_by(column) >= least_cases(confidence)


def _shown_by(column: NDArray[np.float64]) -> int:
    """Cases in which something is not 0."""
    return int((abs(column) > SAME).sum())


def _effect(name: FactorName, column: NDArray[np.float64], total: Estimate | None, confidence: float) -> Effect:
    estimate, sure = _estimate(column, confidence)
    share = estimate.value / total.value if total else None
    return Effect(name, estimate, share, _shown_by(column), sure)


def _interaction(one: Effect, other: Effect, column: NDArray[np.float64], confidence: float) -> Interaction:
    estimate, sure = _estimate(column, confidence)
    kind: Kind = "depends" if sure else "none"
    first, second = one.effect.value, other.effect.value
    if sure and first * second > 0 and abs(estimate.value) >= max(abs(first), abs(second)):
        # Of two factors each does its effect less half of the interaction alone.
        kind = "together" if estimate.value * first > 0 else "either"
    return Interaction((one.factor, other.factor), estimate, kind)


def _blame(
    measure: Measure, parts: Sequence[Effect], opposing: Sequence[Effect], confidence: float, *, certain: bool
) -> str:
    """Who did it, with the figures."""
    sure = [each for each in parts if each.sure]
    unsure = [each for each in parts if not each.sure]
    if not sure:
        names = listed([each.factor for each in parts])
        which = f"which of {names}" if len(parts) > 1 else f"whether the {names}"
        said = [(f"Cannot tell {which} changed it, each may be chance", unsure)]
    elif not certain:
        said = [("The whole change may be chance, but not these parts", sure), ("May be chance", unsure)]
    else:
        responsible = [each for each in sure if each not in opposing]
        said = [("Responsible", responsible), ("Against it", list(opposing)), ("May be chance", unsure)]
    return " ".join(f"{how}: {_figures(measure, some, confidence)}." for how, some in said if some)


def _joined(measure: Measure, found: Interaction, confidence: float) -> str:
    """What two factors do together, with the figure."""
    one, other = found.factors
    figure = f"interaction {_shown(measure, found.value, confidence)}"
    if found.kind == "together":
        return f"Most of what {one} and {other} do comes only where they change together: {figure}."
    if found.kind == "either":
        return f"Either of {one} and {other} does most of it alone: {figure}."
    return f"What {one} does depends on {other}: {figure}."


def _figures(measure: Measure, some: Sequence[Effect], confidence: float) -> str:
    return "; ".join(f"{each.factor} {_shown(measure, each.effect, confidence)}" for each in some)


def _shown(measure: Measure, estimate: Estimate, confidence: float) -> str:
    interval = told_interval(measure, estimate)
    return f"{told_change(measure, estimate)} ({100 * confidence:.3g} % interval {interval})"
