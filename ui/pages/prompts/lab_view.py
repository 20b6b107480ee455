"""The lab as HTML: answers that grow, what holds for a column, and what the columns share. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from rag.answering.answer_stream import PartialAnswer
from rag.types import Answer
from ui.pages.chat.answer_html import answer_html, draft_html, step_line
from ui.pages.chat.sources_panel import draft_sources_html, sources_html
from ui.pages.prompts.lab_columns import Held, Origin
from ui.pages.safe_markup import fragment, note

_ORIGINS: dict[Origin, str] = {
    "process": "The settings of this process",
    "version": "What the prompt version asks for",
    "here": "This column",
}


def growing_html(draft: PartialAnswer, model: str) -> str:
    """An answer that is being written, with what is going on."""
    line = step_line(draft.step, len(draft.hits))
    return _answer(draft_html(draft.text, draft.hits, draft.citations, model, line))


def waiting_html() -> str:
    """An answer that has not begun."""
    return _answer(draft_html("", (), (), "", "Starting"))


def ended_html(answer: Answer | None) -> str:
    """A finished answer with its foot; nothing where none was given."""
    return note("The answer appears here.") if answer is None else _answer(answer_html(answer))


def passages_html(answer: Answer | PartialAnswer | None, min_support: float, *, direct: bool) -> str:
    """The passages that an answer was, or is being, written from.

    Args:
        min_support: Support under which a sentence counts as weakly carried by its source.
        direct: Whether the prompt reads none.
    """
    if direct:
        return note("This prompt is sent as it is: no passages are searched.")
    if answer is None or not answer.hits:
        return note("The passages of the answer appear here.")
    if isinstance(answer, PartialAnswer):
        return draft_sources_html(answer.hits)
    return sources_html(answer, min_support)


def settings_html(settings: Sequence[Held], version: str) -> str:
    """What holds for a column, and where it comes from.

    Args:
        version: The prompt version, ``NAME@VERSION``.
    """
    return fragment("lab_settings.html.jinja", settings=settings, version=version, origins=_ORIGINS)


def problem_html(problem: str) -> str:
    """Why a column cannot be used as it is."""
    return fragment("lab_problem.html.jinja", problem=problem)


def note_html(notes: Sequence[str]) -> str:
    """What holds for the columns together, a line each; empty where there is nothing to say."""
    return fragment("lab_notes.html.jinja", notes=notes)


def _answer(html: str) -> str:
    return fragment("lab_answer.html.jinja", answer=Markup(html))  # noqa: S704 - the chat has escaped it
