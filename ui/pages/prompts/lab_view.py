"""The lab as HTML: answers while they are written, settings of a column, and notes. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from rag.answering.answer_stream import PartialAnswer
from rag.types import Answer
from ui.pages.chat.answer_html import answer_html, draft_html, step_line
from ui.pages.chat.sources_panel import draft_sources_html, sources_html
from ui.pages.prompts.lab_columns import Origin, ResolvedSetting
from ui.pages.safe_markup import fragment, note

_ORIGINS: dict[Origin, str] = {
    "process": "The settings of this process",
    "version": "The settings of the prompt version",
    "here": "This column",
}


def growing_html(draft: PartialAnswer, model: str) -> str:
    """Render an answer that is being written, with its current step."""
    step = step_line(draft.step, len(draft.hits))
    return _answer(draft_html(draft.text, draft.hits, draft.citations, model, step))


def waiting_html() -> str:
    """Render an answer that has not begun."""
    return _answer(draft_html("", (), (), "", "Starting"))


def ended_html(answer: Answer | None) -> str:
    """Render a finished answer with its footer, or a note where there is none."""
    return note("The answer appears here.") if answer is None else _answer(answer_html(answer))


def passages_html(answer: Answer | PartialAnswer | None, min_support: float, *, direct: bool) -> str:
    """Render the passages of an answer, finished or not.

    Args:
        min_support: Support below which a sentence counts as weakly supported.
        direct: Whether the prompt is sent without passages.
    """
    if direct:
        return note("This prompt is sent as it is: no passages are searched.")
    if answer is None or not answer.hits:
        return note("The passages of the answer appear here.")
    if isinstance(answer, PartialAnswer):
        return draft_sources_html(answer.hits)
    return sources_html(answer, min_support)


def settings_html(settings: Sequence[ResolvedSetting], version: str) -> str:
    """Render the settings of a column, and where they are set.

    Args:
        version: The prompt version, ``NAME@VERSION``.
    """
    return fragment("lab_settings.html.jinja", settings=settings, version=version, origins=_ORIGINS)


def problem_html(problem: str) -> str:
    """Render why a column cannot be used."""
    return fragment("lab_problem.html.jinja", problem=problem)


def note_html(notes: Sequence[str]) -> str:
    """Render notes on all columns together; empty where there are none."""
    return fragment("lab_notes.html.jinja", notes=notes)


def _answer(html: str) -> str:
    return fragment("lab_answer.html.jinja", answer=Markup(html))  # noqa: S704 - the chat has escaped it
