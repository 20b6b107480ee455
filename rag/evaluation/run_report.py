"""The report of a run: a self-contained HTML file without external resources."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING

from rag.errors import EvaluationError
from rag.evaluation.case_answers import Answered, Kind, kind_of, side_by_side
from rag.evaluation.cases import Case
from rag.evaluation.report_cases import case_html
from rag.evaluation.report_figures import compared_variants, figure_tables, plots
from rag.evaluation.report_rendering import report_templates
from rag.evaluation.run_store import Cell
from rag.evaluation.statistics import CONFIDENCE
from rag.evaluation.summary import Summary

if TYPE_CHECKING:
    from rag.evaluation.gate import Verdict

# Cases in a report, so that browsers stay fast.
SHOWN = 500
# Characters per kind of case in memory; the rest goes to a temporary file.
IN_MEMORY = 1_000_000
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
KINDS = tuple(Kind)


def write_report(
    path: Path,
    summary: Summary,
    cells: Callable[[int], Iterator[Cell]],
    cases: Iterable[Case],
    verdict: Verdict | None = None,
) -> None:
    """Write the report of a run, finished or not, atomically. Secrets in its texts are redacted.

    A report shows up to 500 cases, starting with failed and differing ones, and the number of hidden ones. The
    cells are read once and never all in memory.

    Args:
        path: The file, which is replaced if it exists.
        summary: The table.
        cells: Returns the answers of a variant by its index, in the order of the cases.
        cases: Cases of the run's dataset version, in order.
        verdict: The result of the gate, if any.

    Raises:
        EvaluationError: The file cannot be written.
        DatabaseError: The cells or the cases cannot be read.
    """
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with ExitStack() as stack:
            files: dict[Kind, IO[str]] = {
                kind: stack.enter_context(SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8", newline=""))
                for kind in KINDS
            }
            gathered = _Gathered([variant.name for variant in summary.variants], files)
            for answered in side_by_side(cases, cells, len(summary.variants)):
                gathered.take(answered)
            with work.open("w", encoding="utf-8", newline="") as file:
                file.writelines(_report(summary, verdict, gathered))
                file.flush()
                os.fsync(file.fileno())
        work.replace(path)
    except OSError as error:
        raise EvaluationError(
            f"The report {path} cannot be written: {error.strerror or error}.",
            fix="Choose a file in a writable folder with free space.",
        ) from error
    finally:
        work.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Shown:
    """The cases of one kind.

    Attributes:
        found, shown: Number of all cases, and of those in the report.
        cases: The cases as HTML, read while the report is written.
    """

    title: str
    found: int
    shown: int
    cases: Iterator[str]


class _Gathered:
    """The cases by kind, as HTML, and the latencies by variant in seconds."""

    def __init__(self, names: Sequence[str], files: Mapping[Kind, IO[str]]) -> None:
        self._names = names
        self._files = files
        # Lengths of the stored cases in characters.
        self._kept: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
        self._found = dict.fromkeys(KINDS, 0)
        self.missing = 0
        self.latencies = [array("d") for _ in names]

    def take(self, answered: Answered) -> None:
        """Store what the report may need of a case."""
        if not answered.there:
            self.missing += 1
            return
        for cell in answered.there:
            if cell.status != "failed" and cell.latency_s is not None and math.isfinite(cell.latency_s):
                self.latencies[cell.variant].append(cell.latency_s)
        kind = kind_of(answered)
        self._found[kind] += 1
        # Cases without room after more important kinds are never shown.
        if sum(len(self._kept[earlier]) for earlier in KINDS[: KINDS.index(kind) + 1]) < SHOWN:
            html = case_html(answered, self._names)
            self._kept[kind].append(len(html))
            self._files[kind].write(html)

    def shown(self) -> list[_Shown]:
        """Return the cases of the report, most important kinds first."""
        kinds: list[_Shown] = []
        for kind in KINDS:
            if self._found[kind]:
                count = min(len(self._kept[kind]), SHOWN - sum(earlier.shown for earlier in kinds))
                kinds.append(_Shown(kind.value, self._found[kind], count, self._read(kind, count)))
        return kinds

    def _read(self, kind: Kind, count: int) -> Iterator[str]:
        from markupsafe import Markup

        self._files[kind].seek(0)
        for length in self._kept[kind][:count]:
            yield Markup(self._files[kind].read(length))  # noqa: S704 - a template has escaped it


def _report(summary: Summary, verdict: Verdict | None, gathered: _Gathered) -> Iterator[str]:
    """Render the report in pieces, so that a large one is never completely in memory."""
    run, kinds = summary.run, gathered.shown()
    return (
        report_templates()
        .get_template("report.html.jinja")
        .generate(
            policy=POLICY,
            title=run.name or f"Evaluation of {run.dataset}",
            run=run,
            begun=_time(run.started),
            ended="–" if run.ended is None else _time(run.ended),
            summary=summary,
            done=sum(variant.done for variant in summary.variants),
            total=summary.size * len(summary.variants),
            verdict=verdict,
            confidence=CONFIDENCE,
            variants=compared_variants(summary),
            tables=figure_tables(summary),
            plots=plots(summary, gathered.latencies),
            kinds=kinds,
            answered=sum(kind.found for kind in kinds),
            shown=sum(kind.shown for kind in kinds),
            missing=gathered.missing,
        )
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
