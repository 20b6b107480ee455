"""Datasets as HTML: the list, the cases of a version, what a file would bring. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from rag.evaluation.case_files import Preview
from rag.evaluation.cases import Case
from rag.evaluation.dataset_store import DatasetSummary, DatasetVersion
from ui.pages.safe_markup import plain

NONE = (
    '<div class="rs-none">No dataset yet. Import a file, add a case by hand, or press <i>+ case</i> under an '
    "answer of the chat.</div>"
)
PICK = '<div class="rs-pick">Choose a dataset.</div>'
SHOWN_ROWS = 8
"""Cases and bad rows of a preview; the rest is counted."""


def list_html(datasets: Sequence[DatasetSummary], chosen: str) -> str:
    """The datasets, by name."""
    if not datasets:
        return NONE
    rows = "".join(
        f'<button type="button" class="rs-run{" is-on" if each.name == chosen else ""}" data-do="open-dataset" '
        f'data-value="{plain(each.name)}"><span class="rs-run-name">{plain(each.name)}</span>'
        f'<span class="rs-run-of">version {each.version} · {each.size:,} cases</span></button>'
        for each in datasets
    )
    return f'<div class="rs-runs">{rows}</div>'


def cases_html(version: DatasetVersion, cases: Sequence[Case], start: int, waiting: Sequence[Case]) -> str:
    """A page of a version's cases, and above it the candidates that wait.

    Args:
        start: Number of the first one, from 0.
    """
    rows = "".join(_row(case) for case in cases)
    head = (
        f'<div class="rs-run-head"><b>{plain(version.label)}</b><span>{version.size:,} cases</span>'
        f"<span>{plain(version.message)}</span><span>{plain(version.by)}</span></div>"
    )
    table = (
        '<table class="rs-grid rs-cases"><thead><tr><th scope="col">Question</th>'
        '<th scope="col">Right answers</th><th scope="col">Sources</th>'
        f'<th scope="col" class="rs-tags-col">Tags</th></tr></thead><tbody>{rows}</tbody></table>'
        f'<div class="rs-count">{start + 1:,}–{start + len(cases):,} of {version.size:,}</div>'
        if cases
        else '<div class="rs-none">This version holds no case.</div>'
    )
    return head + candidates_html(waiting) + table


def _row(case: Case) -> str:
    wanted = "to be refused" if case.must_refuse else " | ".join(case.answers)
    turns = f" <small>after {len(case.history)} turns</small>" if case.history else ""
    return (
        f'<tr><td><button type="button" data-do="open-case" data-value="{plain(case.id)}" title="Edit this case">'
        f"{plain(case.question)}{turns}</button></td><td><div>{plain(wanted)}</div></td>"
        f"<td><div>{plain(', '.join(case.sources))}</div></td>"
        f"<td><div>{plain(', '.join(case.tags))}</div></td></tr>"
    )


def candidates_html(waiting: Sequence[Case]) -> str:
    """Proposed cases, each to be accepted or rejected."""
    if not waiting:
        return ""
    rows = "".join(
        f'<div class="rs-candidate"><div><b>{plain(case.question)}</b><div>{plain(" | ".join(case.answers))}</div>'
        f'<small>{plain(", ".join(case.sources))}</small></div><div class="rs-candidate-do">'
        f'<button type="button" data-do="accept-case" data-value="{plain(case.id)}">Accept</button>'
        f'<button type="button" data-do="reject-case" data-value="{plain(case.id)}">Reject</button></div></div>'
        for case in waiting
    )
    return f'<div class="rs-head">Proposed ({len(waiting):,})</div><div class="rs-candidates">{rows}</div>'


def preview_html(preview: Preview) -> str:
    """What a file would bring, and its bad rows."""
    bad = "".join(f"<li>row {each.number:,}: {plain(each.reason)}</li>" for each in preview.problems[:SHOWN_ROWS])
    rest = len(preview.problems) - SHOWN_ROWS
    more = f"<li>and {rest:,} more</li>" if rest > 0 else ""
    problems = (
        f'<div class="rs-warn"><b>{len(preview.problems):,} bad</b><ul>{bad}{more}</ul></div>' if bad else ""
    )
    good = "".join(f"<li>{plain(case.question)}</li>" for case in preview.cases[:SHOWN_ROWS])
    left = len(preview.cases) - SHOWN_ROWS
    others = f"<li>and {left:,} more</li>" if left > 0 else ""
    return f'<div class="rs-preview"><b>{len(preview.cases):,} good</b><ul>{good}{others}</ul>{problems}</div>'
