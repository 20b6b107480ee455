"""How each version of a prompt did in the newest evaluation that asked it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rag.evaluation.measures import BY_NAME
from rag.evaluation.run_store import Run, RunStore
from rag.evaluation.statistics import Estimate
from rag.evaluation.summary import read_columns

SCORE = BY_NAME["contains"]
"""Of the measures of an answer the one that its length and form move least."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The score of one version.

    Attributes:
        run: The newest finished one in which the version answered.
        variant: The name that it had there; it may have changed more than the prompt.
        estimate: Of ``SCORE``.
    """

    run: Run
    variant: str
    estimate: Estimate


def standings_of(store: RunStore, prompt: str) -> dict[int, Standing]:
    """By version, where a finished run has a score of it.

    Raises:
        DatabaseError: The database refuses.
    """
    found: dict[int, Standing] = {}
    for run in store.list():
        if run.status != "finished":
            continue
        for version, number in _asked(run, prompt):
            if version in found:
                continue
            estimate = read_columns(store, run, number).estimate(SCORE)
            if estimate:
                found[version] = Standing(run, run.plan.variants[number].name, estimate)
    return found


def _asked(run: Run, prompt: str) -> Iterator[tuple[int, int]]:
    """Versions with the numbers of their variants, those first that change the least beside the prompt."""
    variants = run.plan.variants
    for number in sorted(range(len(variants)), key=lambda number: len(variants[number].changes)):
        name, _, version = str(variants[number].changes.get("prompt", "")).partition("@")
        if name == prompt and version.isdecimal():
            yield int(version), number
