"""Datasets as HTML: the list, the cases of a version, what a file would bring. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from rag.evaluation.case_files import Preview
from rag.evaluation.cases import Case
from rag.evaluation.dataset_store import DatasetSummary, DatasetVersion
from ui.pages.safe_markup import fragment

SHOWN_ROWS = 8
"""Cases and bad rows of a preview; the rest is counted."""


def list_html(datasets: Sequence[DatasetSummary], chosen: str) -> str:
    """The datasets, by name."""
    return fragment("evaluate_datasets.html.jinja", datasets=datasets, chosen=chosen)


def cases_html(version: DatasetVersion, cases: Sequence[Case], start: int, waiting: Sequence[Case]) -> str:
    """A page of a version's cases, and above it the candidates that wait.

    Args:
        start: Number of the first one, from 0.
    """
    return fragment("evaluate_cases.html.jinja", version=version, cases=cases, start=start, waiting=waiting)


def candidates_html(waiting: Sequence[Case]) -> str:
    """Proposed cases, to be accepted or rejected one by one; empty where there are none."""
    return fragment("evaluate_candidates.html.jinja", waiting=waiting)


def preview_html(preview: Preview) -> str:
    """What a file would bring, and its bad rows."""
    return fragment("evaluate_preview.html.jinja", preview=preview, most=SHOWN_ROWS)
