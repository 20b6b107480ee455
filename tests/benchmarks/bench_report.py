"""The report: one Markdown table for people, and the raw figures beside it as JSON.

It is written anew after every group of figures, so that what is there survives whatever stops the rest.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.machine import Machine, load_line


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was measured, with its unit.
        ours: ragsmith's figure, as it is shown.
        theirs: That of the plain LangChain pipeline; empty where there is none.
        compared: One against the other, in words.
    """

    what: str
    ours: str
    theirs: str = ""
    compared: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one subject. One with the same title takes the place of an earlier one.

    Attributes:
        how: How it was measured, in a sentence or two.
        raw: Everything that was measured, for the JSON file.
        printed: What is shown in full below the table, an entry each.
    """

    title: str
    rows: tuple[Row, ...]
    how: str = ""
    raw: dict[str, Any] = field(default_factory=dict)
    printed: tuple[str, ...] = ()


class Report:
    """Collects groups and keeps the files up to date.

    Args:
        path: The Markdown file; the JSON file stands beside it.
    """

    def __init__(self, path: Path, machine: Machine, *, quick: bool) -> None:
        self._path = path
        self._machine = machine
        self._quick = quick
        self._started = datetime.now(UTC)
        self._load = load_line()
        self._groups: dict[str, Group] = {}
        self._failures: list[str] = []

    def add(self, group: Group) -> None:
        """Take a group in and write the files."""
        self._groups[group.title] = group
        self.write()

    def fail(self, name: str, reason: str) -> None:
        """Note that a benchmark gave nothing, or not all."""
        self._failures.append(f"{name}: {reason}")
        self.write()

    @property
    def failures(self) -> Sequence[str]:
        """What went wrong so far."""
        return tuple(self._failures)

    def markdown(self) -> str:
        """The report."""
        lines = ["# Benchmarks", "", self._machine.line()]
        lines[-1] += f"  \n{self._started:%Y-%m-%d %H:%M} UTC, load average {self._load} at the start, "
        lines[-1] += f"{load_line()} at the end"
        if self._quick:
            lines += ["", "**A quick run: few files, queries and rounds. Not to be quoted.**"]
        lines += ["", "| | ragsmith | plain LangChain | compared |", "|---|---|---|---|"]
        for group in self._groups.values():
            lines.append(f"| **{group.title}** | | | |")
            lines += [f"| {row.what} | {row.ours} | {row.theirs} | {row.compared} |" for row in group.rows]
        told = [f"- **{group.title}**: {group.how}" for group in self._groups.values() if group.how]
        if told:
            lines += ["", "How it was measured:", "", *told]
        for group in self._groups.values():
            if group.printed:
                lines += ["", f"## {group.title}", "", *(f"- {entry}" for entry in group.printed)]
        if self._failures:
            lines += ["", "Not measured:", "", *(f"- {failure}" for failure in self._failures)]
        return "\n".join(lines) + "\n"

    def write(self) -> None:
        """Write both files."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(self.markdown(), encoding="utf-8")
        raw = {
            "machine": asdict(self._machine),
            "started": self._started.isoformat(),
            "load": {"start": self._load, "end": load_line()},
            "quick": self._quick,
            "groups": [asdict(group) for group in self._groups.values()],
            "failures": self._failures,
        }
        self._path.with_suffix(".json").write_text(
            json.dumps(raw, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of all lies; between two of them, in proportion."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def p50_p95(values: Sequence[float]) -> str:
    """Median and 95th percentile, as ``1.7 / 2.5``."""
    return f"{percentile(values, 0.5):.1f} / {percentile(values, 0.95):.1f}"


def times(values: Sequence[float]) -> str:
    """The median of factors, and their range where there are several: ``4.6 × (4.4–4.7)``."""
    middle = f"{statistics.median(values):.1f} ×"
    return f"{middle} ({min(values):.1f}–{max(values):.1f})" if len(values) > 1 else middle
