"""Parts of a file that are not read, counted and reported with their places."""

from __future__ import annotations

from collections import Counter

from rag.documents.loaders._text import OnProblem

_MOST_PLACES = 8
_LONGEST_PLACE = 60


class Losses:
    """Counts what a loader leaves out, so that a file has one problem per kind of loss.

    Args:
        on_problem: Called by ``report``.
    """

    def __init__(self, on_problem: OnProblem) -> None:
        self._on_problem = on_problem
        self._found: dict[tuple[str, str], Counter[str]] = {}

    def add(self, what: str, place: str = "", reason: str = "") -> None:
        """Count a part.

        Args:
            what: What it is, in the singular: ``picture``.
            place: Where it is: ``slide 3``; empty if there is nothing to say.
            reason: Why it is not read, or what is missing, as a clause.
        """
        self._found.setdefault((what, reason), Counter())[place[:_LONGEST_PLACE]] += 1

    def report(self) -> None:
        """Report a problem for every kind of loss."""
        for (what, reason), places in self._found.items():
            count = sum(places.values())
            was = f"1 {what} was" if count == 1 else f"{count:,} {what}s were"
            shown = [place for place in places if place]
            more = " and more" if len(shown) > _MOST_PLACES else ""
            where = f" ({', '.join(shown[:_MOST_PLACES])}{more})" if shown else ""
            self._on_problem(f"{was} not read{where}" + (f": {reason}" if reason else ""))
