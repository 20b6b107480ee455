"""The newest evaluation score of every version of a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rag.evaluation.metric_definitions import BY_NAME
from rag.evaluation.run_store import Run, RunStore
from rag.evaluation.statistics import Estimate
from rag.evaluation.summary import read_columns

SCORE = BY_NAME["contains"]
"""The metric of a score: of all answer metrics, length and form affect it least."""


@dataclass(frozen=True, slots=True)
class VersionScore:
    """The score of one version.

    Attributes:
        run: The newest finished run in which the version answered.
        variant: Name of its variant in that run, which may have changed more than the prompt.
        estimate: Value of ``SCORE``.
    """

    run: Run
    variant: str
    estimate: Estimate


def newest_scores(store: RunStore, prompt: str) -> dict[int, VersionScore]:
    """Return the scores of a prompt by version; versions without one are missing.

    Raises:
        DatabaseError: The database refuses.
    """
    found: dict[int, VersionScore] = {}
    for run in store.list():
        if run.status != "finished":
            continue
        for version, number in _asked(run, prompt):
            if version in found:
                continue
            estimate = read_columns(store, run, number).estimate(SCORE)
            if estimate:
                found[version] = VersionScore(run, run.plan.variants[number].name, estimate)
    return found


def _asked(run: Run, prompt: str) -> Iterator[tuple[int, int]]:
    """Yield versions with the numbers of their variants, those with the fewest other changes first."""
    variants = run.plan.variants
    for number in sorted(range(len(variants)), key=lambda number: len(variants[number].changes)):
        name, _, version = str(variants[number].changes.get("prompt", "")).partition("@")
        if name == prompt and version.isdecimal():
            yield int(version), number
