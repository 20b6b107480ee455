"""Thumbs on answers, and comments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from ui.pages.chat import conversation_view as view
from ui.pages.chat.chat_layout import ChatParts
from ui.pages.page_events import QUIET, show_errors, show_info, show_warning
from ui.pages.safe_markup import fragment

if TYPE_CHECKING:
    from rag.answering.conversation_store import ConversationStore
    from rag.tracing.trace_store import Rating, TraceStore

_ASKED = {"up": "Thank you. What was good?", "down": "Thank you. What was wrong?"}
_THUMBS: dict[bool | str, Rating] = {True: "up", False: "down"}


class FeedbackEvents:
    """The events that rate answers."""

    def __init__(self, conversations: ConversationStore, traces: TraceStore, parts: ChatParts) -> None:
        self._conversations = conversations
        self._traces = traces
        self._parts = parts

    def wire(self) -> None:
        """Connect the events."""
        parts = self._parts
        row = [
            parts.bridge.rated,
            parts.comment.row,
            parts.comment.rated,
            parts.comment.text,
            parts.comment.correction,
        ]
        parts.chatbot.like(self.rate, parts.bridge.current, row, **QUIET)
        save = [parts.bridge.rated, parts.comment.text, parts.comment.correction]
        asked = [parts.question.submit, parts.chatbot.example_select, parts.chatbot.retry]
        gr.on(asked, self.put_away, None, parts.comment.row, **QUIET)
        parts.comment.save.click(self.save_comment, save, parts.comment.row, **QUIET)
        parts.comment.text.submit(self.save_comment, save, parts.comment.row, **QUIET)

    @show_errors
    def rate(self, current: str, clicked: gr.LikeData) -> dict[Any, Any]:
        """Store a thumb with the trace and offer a comment; a second click removes the thumb."""
        parts = self._parts
        index = clicked.index[0] if isinstance(clicked.index, list | tuple) else clicked.index
        exchange = view.exchange_at(self._conversations.load(current), index)
        if exchange is None or exchange.answer is None or not exchange.answer.trace_id:
            show_warning("This answer has no trace, so it cannot be rated.")
            return {parts.comment.row: gr.Row(visible=False)}
        rating = _THUMBS.get(clicked.liked)
        self._traces.rate(exchange.answer.trace_id, rating)
        if rating is None:
            return {parts.comment.row: gr.Row(visible=False)}
        return {
            parts.bridge.rated: f"{exchange.answer.trace_id} {rating}",
            parts.comment.row: gr.Row(visible=True),
            parts.comment.rated: fragment("chat_rating.html.jinja", rating=rating, question=_ASKED[rating]),
            parts.comment.text: gr.Textbox(value="", placeholder="Comment (optional)"),
            parts.comment.correction: gr.Textbox(value="", visible=rating == "down"),
        }

    @staticmethod
    def put_away() -> Any:
        """Hide the question about an earlier answer."""
        return gr.Row(visible=False)

    @show_errors
    def save_comment(self, rated: str, comment: str, correction: str) -> Any:
        """Store the comment and the right answer with the thumb."""
        trace_id, _, thumb = rated.partition(" ")
        rating: Rating = "up" if thumb == "up" else "down"
        self._traces.rate(trace_id, rating, comment.strip(), correction.strip() if rating == "down" else "")
        show_info("The comment is stored with the trace.", seconds=3)
        return gr.Row(visible=False)
