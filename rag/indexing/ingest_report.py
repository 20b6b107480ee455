"""What an ingestion reports: its progress, and its result with everything that could not be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A file, or a part of one, that could not be read, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """Progress of an ingestion.

    Attributes:
        passages: Passages embedded so far.
        passages_per_s: Average rate so far.
        seconds_left: Estimate by the remaining bytes; None while unknown.
    """

    files_done: int
    files_total: int
    passages: int
    passages_per_s: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Result of an ingestion; counts are of files.

    Attributes:
        skipped: Files of unsupported formats.
        skipped_names: Names of the first of them.
        passages: Passages embedded in this ingestion.
        stopped: Whether it was stopped before the end.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()
    passages: int = 0
    problems: tuple[Problem, ...] = ()
    seconds: float = 0.0
    stopped: bool = False

    @property
    def skipped_files(self) -> str:
        """The files of unsupported formats in words: the first by name, and how many more."""
        more = self.skipped - len(self.skipped_names)
        return ", ".join(self.skipped_names) + (f" and {more:,} more" if more else "")
