"""What the page shows of an evaluation run, and the address that brings it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlencode

from rag.evaluation.grid import Shown

TAB = "evaluate"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is shown of a run; in the order of the components that hold it.

    Attributes:
        run: Its id; empty for none.
        baseline: Number of the variant that the others are compared with.
        other: Id of another run whose baseline they are compared with instead; empty for none.
        show, search: Which cases fit.
        start: Number of the first one on the grid's page, from 0.
        cell: ``VARIANT:POSITION`` of the answer beside it; empty for none.
    """

    run: str
    baseline: int = 0
    other: str = ""
    show: Shown = "all"
    search: str = ""
    start: int = 0
    cell: str = ""

    @property
    def address(self) -> str:
        """The query of the page's address; what is as usual is left out."""
        told = {
            "run": self.run,
            "baseline": str(self.baseline) if self.baseline else "",
            "other": self.other,
            "show": "" if self.show == "all" else self.show,
            "q": self.search,
            "start": str(self.start) if self.start else "",
            "cell": self.cell,
        }
        return urlencode({"tab": TAB, **{name: value for name, value in told.items() if value}})


def seen_in(query: Mapping[str, str]) -> Seen:
    """What an address names; what cannot be meant is as usual."""

    def number(name: str) -> int:
        told = query.get(name, "")
        return int(told) if told.isdecimal() and len(told) < 10 else 0

    return Seen(
        run=query.get("run", ""),
        baseline=number("baseline"),
        other=query.get("other", ""),
        show=next((each for each in get_args(Shown) if each == query.get("show")), "all"),
        search=query.get("q", ""),
        start=number("start"),
        cell=query.get("cell", ""),
    )
