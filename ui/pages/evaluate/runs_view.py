"""Evaluation runs as HTML: the list, the table of figures, the grid, one case. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from rag.evaluation.case_answers import Answered, Outcome, outcome
from rag.evaluation.grid import GridPage
from rag.evaluation.metric_definitions import Metric
from rag.evaluation.metric_formatting import format_change, format_interval, format_metric, is_better
from rag.evaluation.run_store import Cell, CellPassage, Run
from rag.evaluation.runner import EvaluationProgress
from rag.evaluation.summary import Figure, Summary, VariantSummary
from ui.pages.chat.answer_html import cost, duration
from ui.pages.safe_markup import plain, shortened

NO_RUN = (
    '<div class="rs-none">No run yet. Open New run, choose a dataset, write one variant per line, and press '
    "Start: every variant answers every case, and the table says which is better and how sure that is.</div>"
)
PICK_RUN = '<div class="rs-pick">Choose a run.</div>'
PICK_CELL = '<div class="rs-pick">Choose an answer in the grid to see its passages and scores.</div>'

_SIGNS: dict[Outcome, tuple[str, str]] = {
    "right": ("✓", "right"),
    "wrong": ("✗", "wrong"),
    "refused": ("∅", "refused, although an answer was expected"),
    "failed": ("!", "failed"),
    "unknown": ("·", "nothing is known of the right answer"),
}
# The first ones that there are stand above the grid's columns.
_HEAD = ("contains", "groundedness", "refusal_recall", "judge")
HEAD_SCORES = 2
_CELL = 220
"""Characters of an answer in the grid; a click shows all of it."""


def runs_html(runs: Sequence[Run], counts: Sequence[int], totals: Sequence[int], chosen: str, hidden: int) -> str:
    """The list of runs, newest first.

    Args:
        counts, totals: Answers that are there and that are wanted, of each.
        hidden: How many older runs are not listed.
    """
    if not runs:
        return NO_RUN
    rows = "".join(
        f'<button type="button" class="rs-run{" is-on" if run.id == chosen else ""}" data-do="open-run" '
        f'data-value="{plain(run.id)}"><span class="rs-run-name">{_state(run)}{plain(run.name)}</span>'
        f'<span class="rs-run-of">{plain(f"{run.dataset}@{run.dataset_version}")} · {_when(run.started)} · '
        f"{count:,}{'' if count >= total else f' of {total:,}'} answers</span></button>"
        for run, count, total in zip(runs, counts, totals, strict=True)
    )
    older = (
        f'<div class="rs-note">{hidden:,} older runs are not listed: <code>ragsmith eval list</code> shows them.'
        "</div>"
        if hidden
        else ""
    )
    return f'<div class="rs-runs">{rows}{older}</div>'


def head_html(run: Run, size: int, progress: EvaluationProgress | None, notes: Sequence[str]) -> str:
    """What a run is, and how far.

    Args:
        notes: What to know before its figures are believed; shown above them.
    """
    facts = (
        f"<b>{plain(run.name)}</b>",
        f"{_state(run)}{plain(run.status)}",
        f"{plain(f'{run.dataset}@{run.dataset_version}')}, {size:,} cases",
        f"corpus {plain(run.plan.corpus)}",
        _when(run.started),
        f"<code>{plain(run.id)}</code>",
        f'<a href="/evaluations/{plain(run.id)}.html" target="_blank" rel="noopener">report ↗</a>',
    )
    parts = [f'<div class="rs-run-head">{"".join(f"<span>{fact}</span>" for fact in facts)}</div>']
    if progress is not None:
        parts.append(_progress(progress))
    parts += [f'<div class="rs-warn">{plain(note)}</div>' for note in notes]
    if run.error:
        parts.append(f'<p class="rs-error">{plain(run.error)}</p>')
    return "".join(parts)


def _progress(now: EvaluationProgress) -> str:
    left = f", about {duration(now.seconds_left)} left" if now.seconds_left is not None else ""
    more = "".join(
        f", {count:,} {what}" for count, what in ((now.cached, "from the cache"), (now.failed, "failed")) if count
    )
    return (
        f'<div class="rs-progress"><progress value="{now.done}" max="{now.total}"></progress>'
        f"{now.done:,} of {now.total:,} answers{more}{left}</div>"
    )


def table_html(summary: Summary) -> str:
    """The figures: a row for each variant, the baseline first, a column for each measure."""
    heads = "".join(
        f'<th scope="col" title="{plain(measure.description)}">{plain(measure.title)}</th>'
        for measure in summary.metrics
    )
    order = [summary.baseline, *(n for n in range(len(summary.variants)) if n != summary.baseline)]
    rows = "".join(_variant(summary, summary.variants[number], number) for number in order)
    return (
        '<div class="rs-figures"><table><thead><tr><th scope="col" class="rs-pinned">Variant</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<div class="rs-note">Small: the 95 % interval. Below: the difference to the baseline on the same cases; '
        "▲ better, ▼ worse: only where its interval excludes no difference.</div>"
    )


def _variant(summary: Summary, variant: VariantSummary, number: int) -> str:
    base = number == summary.baseline
    changes = " ".join(f"{name}={_value(value)}" for name, value in variant.changes.items())
    counted = f"{variant.done:,} answers" + (f", {variant.cached:,} cached" if variant.cached else "")
    name = (
        f'<th scope="row" class="rs-pinned" title="{plain(changes)}"><span class="rs-variant">'
        f"{plain(variant.name)}</span>"
        f"<small>{'baseline · ' if base else ''}{counted}</small></th>"
    )
    cells = "".join(_figure(measure, variant.figures.get(measure.name)) for measure in summary.metrics)
    return f"<tr>{name}{cells}</tr>"


def _figure(measure: Metric, figure: Figure | None) -> str:
    if figure is None or figure.estimate is None:
        return '<td class="rs-nothing">–</td>'
    estimate, change = figure.estimate, figure.change
    told_of = ""
    if change is not None:
        sure = is_better(measure, change)
        kind = {True: "is-better", False: "is-worse", None: ""}[sure]
        sign = {True: "▲ ", False: "▼ ", None: ""}[sure]
        title = f"{format_interval(measure, change)}, {change.n:,} cases"
        told_of = (
            f'<span class="rs-delta {kind}" title="{plain(title)}">{sign}{format_change(measure, change)}</span>'
        )
    return (
        f'<td title="{plain(measure.title)}: {estimate.n:,} cases"><b>{format_metric(measure, estimate.value)}</b>'
        f"<small>{format_interval(measure, estimate)}</small>{told_of}</td>"
    )


def grid_html(page: GridPage, summary: Summary, chosen: str) -> str:
    """A part of the grid.

    Args:
        summary: Whose figures stand above the columns.
        chosen: ``VARIANT:POSITION`` of the answer that is shown beside it.
    """
    if not page.rows:
        return '<div class="rs-none">No case fits.</div>'
    heads = "".join(
        f'<th scope="col">{plain(each.name)}{_head_scores(summary, each)}</th>' for each in summary.variants
    )
    rows = "".join(_row(row, chosen) for row in page.rows)
    last = page.start + len(page.rows)
    return (
        f'<table class="rs-grid"><thead><tr><th scope="col" class="rs-case-col">Case</th>{heads}</tr></thead>'
        f'<tbody>{rows}</tbody></table><div class="rs-count">{page.start + 1:,}–{last:,} of {page.total:,}</div>'
    )


def _head_scores(summary: Summary, variant: VariantSummary) -> str:
    """The figures that say most of a variant, with their intervals."""
    shown = [measure for measure in summary.metrics if measure.name in _HEAD][:HEAD_SCORES]
    return "".join(
        f'<span class="rs-head-score">{plain(measure.title)} {format_metric(measure, figure.estimate.value)} '
        f"({format_interval(measure, figure.estimate)})</span>"
        for measure in shown
        if (figure := variant.figures.get(measure.name)) and figure.estimate
    )


def _row(row: Answered, chosen: str) -> str:
    case = row.case
    wanted = "to be refused" if case.must_refuse else " | ".join(case.answers)
    first = (
        f'<th scope="row"><div class="rs-asked-of">{plain(case.question)}</div>'
        f"<small>{plain(shortened(wanted, 120))}</small></th>"
    )
    return f"<tr>{first}{''.join(_cell(row.position, cell, n, chosen) for n, cell in enumerate(row.cells))}</tr>"


def _cell(position: int, cell: Cell | None, variant: int, chosen: str) -> str:
    if cell is None:
        return '<td class="rs-nothing">not answered yet</td>'
    value = f"{variant}:{position}"
    kind = outcome(cell)
    sign, word = _SIGNS[kind]
    on = " is-on" if value == chosen else ""
    return (
        f'<td class="is-{kind}{on}"><button type="button" data-do="open-cell" data-value="{value}" '
        f'title="{plain(word)}"><span class="rs-sign" aria-label="{plain(word)}">{sign}</span>'
        f"{plain(shortened(cell.error or cell.answer, _CELL))}</button></td>"
    )


def cell_html(row: Answered, variant: int, name: str) -> str:
    """One answer with all that is known of it."""
    case, cell = row.case, row.cells[variant]
    parts = [f'<div class="rs-trace-q">{plain(case.question)}</div>']
    if case.history:
        turns = "".join(
            f"<div><b>{plain(turn.question)}</b><br>{plain(turn.answer)}</div>" for turn in case.history
        )
        parts.append(
            f'<details><summary class="rs-head">After {len(case.history)} turns</summary>{turns}</details>'
        )
    known = [("case", case.id), ("right", " | ".join(case.answers)), ("in", ", ".join(case.sources))]
    known += [("", "to be refused")] if case.must_refuse else []
    known += [("tags", ", ".join(case.tags)), ("notes", case.notes)]
    facts = "".join(f"<span><i>{title}</i> {plain(value)}</span>" for title, value in known if value)
    parts.append(f'<div class="rs-facts">{facts}</div>')
    if cell is None:
        return "".join((*parts, '<div class="rs-none">Not answered yet.</div>'))
    sign, word = _SIGNS[outcome(cell)]
    parts.append(f'<div class="rs-head">{plain(name)} · {sign} {plain(word)}</div>')
    parts.append(
        f'<p class="rs-error">{plain(cell.error)}</p>'
        if cell.error
        else f'<div class="rs-said">{plain(cell.answer)}</div>'
    )
    parts.append(f'<div class="rs-facts">{_measured(cell)}</div>')
    if cell.rationale:
        parts.append(f'<div class="rs-note">The judge: {plain(cell.rationale)}</div>')
    scores = "".join(
        f"<tr><th scope=row>{plain(title)}</th><td>{plain(value)}</td></tr>" for title, value in _scores(cell)
    )
    parts.append(f'<div class="rs-head">Scores</div><table class="rs-score-table">{scores}</table>')
    parts.append(f'<div class="rs-head">Passages</div>{"".join(map(_passage, cell.passages)) or "–"}')
    return f'<div class="rs-cell-view">{"".join(parts)}</div>'


def _measured(cell: Cell) -> str:
    told_of = [
        duration(cell.latency_s) if cell.latency_s is not None else "",
        "" if cell.input_tokens is None else f"{cell.input_tokens + (cell.output_tokens or 0):,} tok",
        cost(cell.cost_usd),
        "from the cache" if cell.cached else "",
    ]
    shown = "".join(f"<span>{plain(each)}</span>" for each in told_of if each)
    if cell.trace_id:
        shown += (
            f'<button type="button" class="rs-link" data-do="open-trace" data-value="{plain(cell.trace_id)}">'
            "trace ↗</button>"
        )
    return shown


def _scores(cell: Cell) -> list[tuple[str, str]]:
    from rag.evaluation.metric_definitions import METRICS

    scores = cell.scores or {}
    return [
        (measure.title, format_metric(measure, scores[measure.name].value))
        for measure in METRICS
        if measure.name in scores and scores[measure.name].weight
    ]


def _passage(passage: CellPassage) -> str:
    page = f" p. {passage.page}" if passage.page is not None else ""
    return (
        f'<details class="rs-source"{" open" if passage.cited else ""}><summary>'
        f'<span class="rs-name">{plain(passage.name)}{page}</span>'
        f'<span class="rs-score">{"cited" if passage.cited else ""}</span></summary>'
        f'<div class="rs-passage">{plain(passage.text)}</div></details>'
    )


def _state(run: Run) -> str:
    kind = {"finished": "ok", "failed": "error", "running": "running"}.get(run.status, "abstained")
    return f'<span class="rs-status is-{kind}" title="{plain(run.status)}"></span>'


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%d %b %H:%M")


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
