"""The part of an evaluation run that the page shows, and the address that brings it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import urlencode

from rag.evaluation.grid import Shown

TAB = "evaluate"


@dataclass(frozen=True, slots=True)
class RunSelection:
    """What is shown of a run; the fields are in the order of the components that store them.

    Attributes:
        run: Id of the run; empty for none.
        baseline: Number of the variant that the others are compared with.
        other: Id of another run whose baseline they are compared with instead; empty for none.
        show, search: Filters of the cases.
        start: Number of the first matching case on the page of the grid, from 0.
        cell: ``VARIANT:POSITION`` of the answer beside the grid; empty for none.
    """

    run: str
    baseline: int = 0
    other: str = ""
    show: Shown = "all"
    search: str = ""
    start: int = 0
    cell: str = ""

    @classmethod
    def from_state(cls, state: tuple[Any, ...]) -> RunSelection:
        """Read the values of the components; one that was never filled has None."""
        run, baseline, other, show, search, start, cell = state
        return cls(run, baseline or 0, other or "", show or "all", search or "", start or 0, cell or "")

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> RunSelection:
        """Read the query of an address; a value that makes no sense is replaced by the default."""

        def number(name: str) -> int:
            text = query.get(name, "")
            return int(text) if text.isdecimal() and len(text) < 10 else 0

        return cls(
            run=query.get("run", ""),
            baseline=number("baseline"),
            other=query.get("other", ""),
            show=next((option for option in get_args(Shown) if option == query.get("show")), "all"),
            search=query.get("q", ""),
            start=number("start"),
            cell=query.get("cell", ""),
        )

    @property
    def address(self) -> str:
        """The query of the page's address, without the defaults."""
        values = {
            "run": self.run,
            "baseline": str(self.baseline) if self.baseline else "",
            "other": self.other,
            "show": "" if self.show == "all" else self.show,
            "q": self.search,
            "start": str(self.start) if self.start else "",
            "cell": self.cell,
        }
        return urlencode({"tab": TAB, **{name: value for name, value in values.items() if value}})
