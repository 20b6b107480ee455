"""Which of prompt, retrieval and model changed a single case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from rag.evaluation.factors import Factor, FactorName, listed
from rag.evaluation.shapley import SAME, mean_measure, settings_without, shapley_values, values_of
from rag.evaluation.summary import Columns

CANNOT_TELL = "cannot tell"
# A value within this part of a case's change is still that of A, or already that of B.
CLEAR = 0.25


@dataclass(frozen=True, slots=True)
class CaseAttribution:
    """Who changed one case, as far as the answers in all combinations show it.

    A model that draws its words may answer otherwise the next time; what is said here is said of these answers.

    Attributes:
        position: Of the case in the dataset version.
        before, after: Its value in A and in B; they differ.
        effects: Shapley value of each factor; they add up to ``after`` - ``before``.
        agreement: Of each factor, in how many settings of the others turning it moved the value the way it moved,
            and how many settings there are.
        cause: ``prompt``, ``prompt and model together``, ``prompt or model`` (each alone is enough), or
            ``cannot tell``.
        sure: Whether all combinations agree with the cause.
    """

    position: int
    before: float
    after: float
    effects: Mapping[FactorName, float]
    agreement: Mapping[FactorName, tuple[int, int]]
    cause: str
    sure: bool


def attribute_cases(
    columns: Sequence[Columns], factors: Sequence[Factor], measure: str
) -> Iterator[CaseAttribution]:
    """Each case whose value differs between A and B, in the order of the cases.

    The cause is sought in this order. First a set of factors that tells the value in every combination: it is B's
    where all of them (or any of them) are turned, and A's elsewhere, within a quarter of the change. Else the
    factors that carry a quarter of the change or more and move the value its way in most settings of the others;
    they are sure where that is all settings.

    Args:
        columns, factors, measure: As in ``attribute``.

    Raises:
        SettingsError, EvaluationError, ValueError: As in ``attribute``, when the first case is asked for.
    """
    positions, values, _ = values_of(columns, mean_measure(measure), len(factors))
    effects = shapley_values(values)
    names = [factor.name for factor in factors]
    for place in (abs(values[-1] - values[0]) > SAME).nonzero()[0]:
        row = [float(value) for value in values[:, place]]
        change = row[-1] - row[0]
        parts = {name: float(column[place]) for name, column in zip(names, effects, strict=True)}
        agreement = {name: _agreement(row, len(names), factor) for factor, name in enumerate(names)}
        cause, sure = _cause([(value - row[0]) / change for value in row], names, parts, agreement)
        yield CaseAttribution(int(positions[place]), row[0], row[-1], parts, agreement, cause, sure)


def _agreement(row: Sequence[float], k: int, factor: int) -> tuple[int, int]:
    """In how many settings of the others turning a factor moves a value as A to B does, and how many there are."""
    settings = settings_without(k, factor)
    up = row[-1] > row[0]
    gains = [row[number | 1 << factor] - row[number] for number in settings]
    return sum(gain > SAME if up else gain < -SAME for gain in gains), len(settings)


def _cause(
    moved: Sequence[float],
    names: Sequence[FactorName],
    parts: Mapping[FactorName, float],
    agreement: Mapping[FactorName, tuple[int, int]],
) -> tuple[str, bool]:
    """The cause of a case's change, and whether all combinations agree with it.

    Args:
        moved: Of each combination how far its value lies on the way from A's, 0, to B's, 1.
        names: Of the factors.
        parts: Their Shapley values.
        agreement: As in ``CaseAttribution``.
    """
    for size in range(1, len(names) + 1):
        for chosen in combinations(range(len(names)), size):
            bits = sum(1 << factor for factor in chosen)
            some = [names[factor] for factor in chosen]
            if all(abs(value - (number & bits == bits)) <= CLEAR for number, value in enumerate(moved)):
                return _together(some), True
            if all(abs(value - (number & bits != 0)) <= CLEAR for number, value in enumerate(moved)):
                return listed(some, "or"), True
    whole = sum(parts.values())
    some = [name for name in names if 2 * agreement[name][0] > agreement[name][1] and parts[name] / whole >= CLEAR]
    if not some:
        return CANNOT_TELL, False
    return _together(some), all(agreement[name][0] == agreement[name][1] for name in some)


def _together(names: Sequence[str]) -> str:
    return f"{listed(names)} together" if len(names) > 1 else names[0]
