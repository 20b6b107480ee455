"""A conversation, and the answers that used a passage, as HTML. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from rag.tracing.figures import counted
from rag.tracing.trace_query import PassageAnswers
from rag.tracing.trace_store import Trace
from ui.pages.safe_markup import fragment, note
from ui.pages.traces.list_view import rows_of


def session_html(traces: Sequence[Trace], session: str) -> str:
    """Render a conversation: its questions and answers in order."""
    if not traces:
        return note(f"No trace belongs to the conversation {session}.")
    return fragment(
        "traces_answers.html.jinja",
        title=f"Conversation, {counted(len(traces), 'question')}",
        about=session,
        rows=rows_of(traces),
        cited=None,
        whole=True,
    )


def passage_html_of(use: PassageAnswers, passage: str) -> str:
    """Render the answers whose prompt had a passage, with their ratings."""
    if not use.traces:
        return note(f"No stored answer used the passage {passage}.")
    up, down = (
        sum(trace.feedback is not None and trace.feedback.rating == rating for trace in use.traces)
        for rating in ("up", "down")
    )
    shown = "" if use.total == len(use.traces) else f", the newest {len(use.traces)} shown"
    return fragment(
        "traces_answers.html.jinja",
        title=f"{counted(use.total, 'answer')} used this passage{shown}",
        about=f"{len(use.cited)} cite it · {up} rated up, {down} rated down",
        rows=rows_of(use.traces),
        cited=use.cited,
        whole=False,
    )
