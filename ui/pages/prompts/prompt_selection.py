"""The version that the library shows, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

STEP = 60
"""Versions that the list grows by."""
PANES = {
    "template": "Template",
    "settings": "Settings",
    "compare": "Compare",
    "metrics": "Metrics",
    "used": "Used by",
    "history": "History",
}


@dataclass(frozen=True, slots=True)
class PromptSelection:
    """What is shown of the library; the fields are in the order of the components that store them.

    Attributes:
        at: ``NAME@VERSION``; empty before anything was chosen.
        pane: One of ``PANES``.
        other: The version that ``at`` is compared with.
        text: Filter of the versions.
        limit: Length of the list of versions.
    """

    at: str
    pane: str = "template"
    other: str = ""
    text: str = ""
    limit: int = STEP

    @classmethod
    def of(cls, at: str | None, pane: str | None, other: str | None, text: str | None, limit: int | None) -> Self:
        """Return what the components store, which are None until their tab has been shown."""
        return cls(at or "", pane or "template", other or "", text or "", limit or STEP)

    @property
    def name(self) -> str:
        """The name of the prompt."""
        return self.at.partition("@")[0]

    @property
    def version(self) -> int:
        """The number of the version; 0 where there is none."""
        return int(self.at.partition("@")[2] or 0)
