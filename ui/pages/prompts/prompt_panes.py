"""The panes of a prompt version: template, settings, comparison, metrics, traces and history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompts.diff import diff
from rag.errors import prompt_errors
from rag.evaluation.prompt_scores import newest_scores
from rag.tracing.prompt_usage import traces_of, use_of
from ui.pages.prompts import prompts_view as view
from ui.pages.prompts.prompt_listing import PromptListing
from ui.pages.prompts.prompt_selection import PromptSelection
from ui.pages.safe_markup import note

if TYPE_CHECKING:
    from ui.app.evaluations import Evaluations
    from ui.app.stores import Stores

USED = 50
"""Traces that are listed of a version."""


class PromptPanes:
    """Renders the panes from the prompts, the traces and the evaluation runs."""

    def __init__(self, stores: Stores, evaluations: Evaluations, listing: PromptListing) -> None:
        self._stores = stores
        self._evaluations = evaluations
        self._listing = listing

    def html(self, selection: PromptSelection) -> str:
        """Render the selected pane; the one that compares is rendered for ``selection.other``."""
        engine = self._stores.engine
        match selection.pane:
            case "compare":
                return self._compared(selection.at, selection.other)
            case "metrics":
                scores = newest_scores(self._evaluations.runs, selection.name)
                return view.use_html(use_of(engine, selection.name), scores, selection.name, selection.version)
            case "used":
                return view.used_html(traces_of(engine, selection.at, USED), selection.at)
            case "history":
                with prompt_errors():
                    return view.moves_html(self._stores.prompts.moves(selection.name), selection.name)
        prompt = self._listing.load(selection.at)
        if selection.pane == "settings":
            return view.settings_html(prompt)
        return view.template_html(prompt, self._listing.exports(selection.at))

    def others(self, selection: PromptSelection) -> list[tuple[str, str]]:
        """Return the versions to compare with, newest first: title and reference."""
        labels: dict[int, list[str]] = {}
        for label, version in self._listing.labels(selection.name).items():
            labels.setdefault(version, []).append(label)
        references = {
            version: f"{selection.name}@{version}"
            for version in self._listing.versions(selection.name)
            if version != selection.version
        }
        return [
            (" · ".join((reference, *labels.get(version, ()))), reference)
            for version, reference in references.items()
        ]

    def compared_with(self, selection: PromptSelection, others: list[tuple[str, str]]) -> str:
        """Return the chosen version, else the previous one, else the oldest; empty where there is no other."""
        if selection.other and selection.other != selection.at:
            return selection.other
        references = [reference for _, reference in others]
        earlier = (one for one in references if PromptSelection(one).version < selection.version)
        return next(earlier, references[-1] if references else "")

    def _compared(self, at: str, other: str) -> str:
        if not other:
            return note("There is only one version, and nothing to compare it with.")
        old, new = self._listing.load(other), self._listing.load(at)
        if old.name == new.name and old.version > new.version:
            old, new = new, old
        return view.changes_html(diff(old, new), old.label, new.label)
