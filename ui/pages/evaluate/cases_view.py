"""Datasets as HTML: the list, the cases of a version, the preview of a file. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from rag.evaluation.case_files import Preview
from rag.evaluation.cases import Case
from rag.evaluation.dataset_store import DatasetSummary, DatasetVersion
from ui.pages.safe_markup import fragment

SHOWN_ROWS = 8
"""Cases and invalid rows that a preview shows; the rest is counted."""


def list_html(datasets: Sequence[DatasetSummary], chosen: str) -> str:
    """Render the list of datasets."""
    return fragment("evaluate_datasets.html.jinja", datasets=datasets, chosen=chosen)


def cases_html(version: DatasetVersion, cases: Sequence[Case], start: int, waiting: Sequence[Case]) -> str:
    """Render a page of a version's cases, below the candidates that wait for a decision.

    Args:
        start: Number of the first case, from 0.
    """
    return fragment("evaluate_cases.html.jinja", version=version, cases=cases, start=start, waiting=waiting)


def candidates_html(waiting: Sequence[Case]) -> str:
    """Render candidates, to be accepted or rejected one by one; empty where there are none."""
    return fragment("evaluate_candidates.html.jinja", waiting=waiting)


def preview_html(preview: Preview) -> str:
    """Render the valid and the invalid rows of a file."""
    return fragment("evaluate_preview.html.jinja", preview=preview, most=SHOWN_ROWS)
