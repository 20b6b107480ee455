"""The report of a run: one HTML file that needs nothing but a browser, and asks nobody for anything."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING

from rag.errors import EvaluationError
from rag.evaluation.case_answers import Answered, Kind, kind_of, side_by_side
from rag.evaluation.cases import Case
from rag.evaluation.html_escaping import plain
from rag.evaluation.report_cases import case_html
from rag.evaluation.report_figures import plots_html, tables_html, variants_html
from rag.evaluation.run_store import Cell, Run
from rag.evaluation.summary import Summary

if TYPE_CHECKING:
    from rag.evaluation.gate import Verdict

# Cases that a report shows: a browser stays quick with so many.
SHOWN = 500
# Characters of each kind of case that are kept in memory, the rest in a temporary file.
IN_MEMORY = 1_000_000
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = Path(__file__).with_name("report.css")
KINDS = tuple(Kind)


def write_report(
    path: Path,
    summary: Summary,
    cells: Callable[[int], Iterator[Cell]],
    cases: Iterable[Case],
    verdict: Verdict | None = None,
) -> None:
    """Write the report of a run, finished or not; whole or not at all. Secrets in its texts are redacted.

    Of a large run it shows 500 cases, those first that failed or that the variants answered differently, and
    says how many it does not show. The cells are read once, side by side, and never held all at once.

    Args:
        path: Where to; what is there is replaced.
        summary: The table.
        cells: The answers of a variant, by its number, in the order of the cases.
        cases: Of the run's dataset version, in their order.
        verdict: What the gate said of the run.

    Raises:
        EvaluationError: It cannot be written.
        DatabaseError: The cells or the cases cannot be read.
    """
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with ExitStack() as stack:
            files: dict[Kind, IO[str]] = {
                kind: stack.enter_context(SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8", newline=""))
                for kind in KINDS
            }
            gathered = _Gathered(summary, files)
            for answered in side_by_side(cases, cells, len(summary.variants)):
                gathered.take(answered)
            with work.open("w", encoding="utf-8", newline="") as file:
                file.write(_top(summary, verdict))
                file.write(variants_html(summary) + tables_html(summary))
                file.write(plots_html(summary, gathered.latencies))
                gathered.write(file)
                file.write("</main>\n</body>\n</html>\n")
                file.flush()
                os.fsync(file.fileno())
        work.replace(path)
    except OSError as error:
        raise EvaluationError(
            f"The report {path} cannot be written: {error.strerror or error}.",
            fix="Name a file in a folder that exists, can be written and has room.",
        ) from error
    finally:
        work.unlink(missing_ok=True)


class _Gathered:
    """The cases by their kind, as HTML, and the latencies of each variant in seconds."""

    def __init__(self, summary: Summary, files: Mapping[Kind, IO[str]]) -> None:
        self._run = summary.run
        self._names = [variant.name for variant in summary.variants]
        self._files = files
        # Characters of each case that is kept.
        self._kept: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
        self._met = dict.fromkeys(KINDS, 0)
        self._missing = 0
        self.latencies = [array("d") for _ in self._names]

    def take(self, answered: Answered) -> None:
        """Keep what the report may need of a case."""
        if not answered.there:
            self._missing += 1
            return
        for cell in answered.there:
            if cell.status != "failed" and cell.latency_s is not None and math.isfinite(cell.latency_s):
                self.latencies[cell.variant].append(cell.latency_s)
        kind = kind_of(answered)
        self._met[kind] += 1
        # What the kinds before it leave no room for is never shown.
        if sum(len(self._kept[each]) for each in KINDS[: KINDS.index(kind) + 1]) < SHOWN:
            told = case_html(answered, self._names)
            self._kept[kind].append(len(told))
            self._files[kind].write(told)

    def write(self, file: IO[str]) -> None:
        """The section of the cases."""
        shown: dict[Kind, int] = {}
        for kind in KINDS:
            shown[kind] = min(len(self._kept[kind]), SHOWN - sum(shown.values()))
        file.write(f'<section id="cases"><h2>Cases</h2><p class="lead">{self._told(sum(shown.values()))}</p>\n')
        for kind in KINDS:
            if not self._met[kind]:
                continue
            count = f"{self._met[kind]:,}"
            if shown[kind] < self._met[kind]:
                count = f"{shown[kind]:,} of {count} shown"
            file.write(f'<h3>{kind.value} <span class="count">{count}</span></h3>\n')
            self._files[kind].seek(0)
            for length in self._kept[kind][: shown[kind]]:
                file.write(self._files[kind].read(length))
        file.write("</section>\n")

    def _told(self, shown: int) -> str:
        answered = sum(self._met.values())
        waiting = f" {_cases(self._missing)} without an answer yet." if self._missing else ""
        if shown == answered:
            return f"All {_cases(answered)} with an answer, those that need a look first.{waiting}"
        return (
            f"Shown are {shown:,} of {_cases(answered)} with an answer, those that need a look first; all answers "
            f"are printed by <code>ragsmith eval show {plain(self._run.id)} --json --cells</code>.{waiting}"
        )


def _top(summary: Summary, verdict: Verdict | None) -> str:
    """The page down to the tables."""
    run = summary.run
    title = plain(run.name or f"Evaluation of {run.dataset}")
    facts = [
        ("Run", f"<code>{plain(run.id)}</code>"),
        ("Status", plain(run.status)),
        ("Begun", _time(run.started)),
        ("Ended", _time(run.ended) if run.ended is not None else "–"),
        ("Dataset", f"{plain(run.dataset)}@{run.dataset_version}, {_cases(summary.size)}"),
        ("SHA-256", f'<code class="hash">{plain(run.dataset_sha256)}</code>'),
        ("Corpus", plain(run.plan.corpus)),
        ("Judge", plain(run.plan.judge) or "none"),
    ]
    told = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n"
        f'<header><p class="brand">ragsmith <span>evaluation</span></p><h1 dir="auto">{title}</h1>'
        f'{_unfinished(run, summary)}<dl class="run">{told}</dl></header>\n{_gate(verdict) if verdict else ""}'
    )


def _unfinished(run: Run, summary: Summary) -> str:
    if run.status == "finished":
        return ""
    done = sum(variant.done for variant in summary.variants)
    total = summary.size * len(summary.variants)
    reason = f" {plain(run.error)}" if run.error else ""
    then = "" if run.status == "running" else f" Go on with <code>ragsmith eval resume {plain(run.id)}</code>."
    return (
        f'<p class="notice"><b>This run is {plain(run.status)}.</b> {done:,} of {total:,} answers are '
        f"there, and the figures are of these.{reason}{then}</p>"
    )


def _gate(verdict: Verdict) -> str:
    look, said = (
        ("is-passed", "✓ The gate is passed") if verdict.passed else ("is-barred", "✗ The gate is not passed")
    )
    reasons = "".join(f"<li>{'✓' if check.passed else '✗'} {plain(check.reason)}</li>" for check in verdict.checks)
    return f'<section class="gate {look}"><h2>{said}</h2><ul>{reasons}</ul></section>\n'


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _cases(count: int) -> str:
    return f"{count:,} case" + "s" * (count != 1)
