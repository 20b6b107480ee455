"""The lab as HTML: answers that grow, what holds for a column, and what the columns share. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from rag.answering.answer_stream import PartialAnswer
from rag.types import Answer
from ui.pages.chat.answer_html import answer_html, draft_html, step_line
from ui.pages.chat.sources_panel import draft_sources_html, sources_html
from ui.pages.prompts.lab_columns import Held, Origin
from ui.pages.safe_markup import plain

NOT_ASKED = '<div class="rs-none">The answer appears here.</div>'
NOT_SEARCHED = '<div class="rs-none">The passages of the answer appear here.</div>'
READS_NONE = '<div class="rs-none">This prompt is sent as it is: no passages are searched.</div>'

_TOLD: dict[Origin, str] = {
    "process": "The settings of this process",
    "version": "What the prompt version asks for",
    "here": "This column",
}


def growing_html(draft: PartialAnswer, model: str) -> str:
    """An answer that is being written, with what is going on."""
    line = step_line(draft.step, len(draft.hits))
    return f'<div class="rs-lab-answer">{draft_html(draft.text, draft.hits, draft.citations, model, line)}</div>'


def waiting_html() -> str:
    """An answer that has not begun."""
    return f'<div class="rs-lab-answer">{draft_html("", (), (), "", "Starting")}</div>'


def ended_html(answer: Answer | None) -> str:
    """A finished answer with its foot; nothing where none was given."""
    return NOT_ASKED if answer is None else f'<div class="rs-lab-answer">{answer_html(answer)}</div>'


def passages_html(answer: Answer | PartialAnswer | None, min_support: float, *, direct: bool) -> str:
    """The passages that an answer was, or is being, written from.

    Args:
        min_support: Support under which a sentence counts as weakly carried by its source.
        direct: Whether the prompt reads none.
    """
    if direct:
        return READS_NONE
    if answer is None or not answer.hits:
        return NOT_SEARCHED
    if isinstance(answer, PartialAnswer):
        return draft_sources_html(answer.hits)
    return sources_html(answer, min_support)


def settings_html(held: Sequence[Held], version: str) -> str:
    """What holds for a column, and where it comes from.

    Args:
        version: The prompt version, ``NAME@VERSION``.
    """
    rows = "".join(_row(each, version) for each in held)
    return (
        '<table class="rs-lab-settings"><thead><tr><th>Setting</th><th>Value</th><th>From</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _row(held: Held, version: str) -> str:
    origin = version if held.origin == "version" else held.origin
    idle = "" if held.honoured else ' <em title="The model does not honour it">not honoured</em>'
    return (
        f'<tr class="is-{held.origin}"><td>{plain(held.name)}</td><td>{plain(held.value)}{idle}</td>'
        f'<td title="{plain(_TOLD[held.origin])}">{plain(origin)}</td></tr>'
    )


def problem_html(told: str) -> str:
    """Why a column cannot be used as it is."""
    return f'<p class="rs-error">{plain(told)}</p>'


def note_html(lines: Sequence[str]) -> str:
    """What holds for the columns together, a line each; empty where there is nothing to say."""
    return "".join(f'<div class="rs-lab-note">{plain(line)}</div>' for line in lines)
