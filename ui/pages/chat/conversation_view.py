"""Conversations as the page shows them: messages, thumbs, the list, and the release that answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rag.answering.conversation_store import Conversation, ConversationPage, Exchange
from rag.errors import TraceNotFound
from ui.pages.chat.answer_html import answer_html, interrupted_html, question_html
from ui.pages.chat.sources_panel import empty_html, sources_html
from ui.pages.safe_markup import fragment, note

if TYPE_CHECKING:
    from rag.answering.release import Release
    from rag.tracing.trace_store import TraceStore

LISTED = 100
_THUMBS = {"up": "Like", "down": "Dislike"}

Message = dict[str, Any]


def messages(conversation: Conversation | None, draft: str = "") -> list[Message]:
    """Return Gradio's messages: two for each exchange, so that message ``2 n + 1`` answers question ``n``.

    Args:
        draft: What has been written of the answer that is not finished; empty if nothing is being written.
    """
    if conversation is None:
        return []
    shown: list[Message] = []
    for exchange in conversation.exchanges:
        answer = answer_html(exchange.answer) if exchange.answer else draft or interrupted_html()
        shown += [user_message(exchange), assistant_message(answer)]
    return shown


def user_message(exchange: Exchange) -> Message:
    """Return the message of a question."""
    return {"role": "user", "content": question_html(exchange.question, exchange.position)}


def assistant_message(html: str) -> Message:
    """Return the message of an answer, finished or not."""
    return {"role": "assistant", "content": html}


def exchange_at(conversation: Conversation | None, message: int) -> Exchange | None:
    """Return the exchange that a message belongs to; None where there is none."""
    if conversation is None or not 0 <= message // 2 < len(conversation.exchanges):
        return None
    return conversation.exchanges[message // 2]


def thumbs(conversation: Conversation | None, traces: TraceStore) -> list[str | None]:
    """Return the ratings of the answers, as Gradio names them."""
    return [_thumb(exchange, traces) for exchange in conversation.exchanges] if conversation else []


def _thumb(exchange: Exchange, traces: TraceStore) -> str | None:
    if exchange.answer is None or not exchange.answer.trace_id:
        return None
    try:
        feedback = traces.get(exchange.answer.trace_id).feedback
    except TraceNotFound:
        return None
    return _THUMBS[feedback.rating] if feedback else None


def sources(exchange: Exchange | None, min_support: float) -> str:
    """Render the sources panel of an exchange."""
    if exchange is None or exchange.answer is None:
        return empty_html()
    return sources_html(exchange.answer, min_support)


def last_exchange(conversation: Conversation | None) -> Exchange | None:
    """Return the newest exchange, if there is one."""
    return conversation.exchanges[-1] if conversation and conversation.exchanges else None


def listing_html(page: ConversationPage, current: str) -> str:
    """Render the list of conversations."""
    if not page.total:
        return note("No conversations yet.")
    now = time.time()
    rows = [(conversation, ago(now - conversation.updated)) for conversation in page.conversations]
    older = page.total - len(page.conversations)
    return fragment("chat_conversations.html.jinja", rows=rows, current=current, older=older)


def ago(seconds: float) -> str:
    """Format an age: ``now``, ``5 min``, ``3 h``, ``2 d``, ``4 mo``."""
    for unit, size in (("mo", 30 * 86_400), ("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "now"


def release_html(release: Release) -> str:
    """Render the release that answers, with its prompt, model and retrieval."""
    rows = (
        ("release", release.name),
        ("prompt", release.prompt),
        ("model", "extractive reader" if release.model == "extractive" else release.model),
        *((("adapter", release.adapter.partition("@")[0]),) if release.adapter else ()),
        ("retrieval", f"{release.mode}, k = {release.k}"),
    )
    return fragment("chat_release.html.jinja", rows=rows)
