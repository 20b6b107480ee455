"""Questions in the chat: send, example, regenerate, stop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import gradio as gr

from rag.answering.answer_stream import PartialAnswer
from rag.answering.conversation_store import Conversation, Exchange
from rag.errors import Busy, RagsmithError
from rag.retrieval.question_limit import check_question
from rag.types import Answer, Ask
from ui.pages.chat import conversation_view as view
from ui.pages.chat.answer_html import answer_html, draft_html, step_line
from ui.pages.chat.answer_mode import variant_of
from ui.pages.chat.chat_layout import ChatParts
from ui.pages.chat.running_answers import RunningAnswers
from ui.pages.chat.sources_panel import draft_sources_html, empty_html, sources_html
from ui.pages.page_events import QUIET, Updates, error_message, in_thread, log, show_warning, warn

if TYPE_CHECKING:
    from rag.evaluation.variants import Variant
    from rag.settings import Settings
    from ui.app.releases import Releases
    from ui.app.stores import Stores

# Seconds between two updates of an answer: shorter is not noticed, and slows long conversations in the browser.
PAUSE_S = 0.06

_SEND = "(question, current, corpus, mode) => [question, current, corpus, mode, window.ragsmith.takeEditing()]"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that is stored and not answered yet."""

    conversation: Conversation
    exchange: Exchange
    corpus: str
    model: str
    variant: Variant | None


class Answering:
    """The events that lead to an answer."""

    def __init__(
        self, settings: Settings, stores: Stores, releases: Releases, running: RunningAnswers, parts: ChatParts
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._releases = releases
        self._running = running
        self._parts = parts

    def wire(self) -> None:
        """Connect the events."""
        parts = self._parts
        outputs = [parts.bridge.current, parts.chatbot, parts.question, parts.sources, parts.listing]
        common: dict[str, Any] = {"outputs": outputs, "concurrency_limit": None, **QUIET}
        asking = [parts.question, parts.bridge.current, parts.corpus, parts.mode]
        parts.question.submit(self.send, [*asking, parts.bridge.editing], js=_SEND, **common)
        parts.chatbot.example_select(self.example, asking[1:], **common)
        parts.chatbot.retry(self.regenerate, asking[1:], **common)
        parts.question.stop(self.stop, parts.bridge.current, None, concurrency_limit=None, **QUIET)

    async def send(self, question: str, current: str, corpus: str, mode: str, editing: str) -> Updates:
        """Ask the question in the input box; it replaces an earlier one that is being edited."""
        if not question.strip():
            yield gr.skip()
            return
        replaced = int(editing) if editing and editing.isdigit() else None
        async for updates in self._ask(question.strip(), current, corpus, mode, replaced):
            yield updates

    async def example(self, current: str, corpus: str, mode: str, chosen: gr.SelectData) -> Updates:
        """Ask an example question."""
        async for updates in self._ask(chosen.value["text"], current, corpus, mode, None):
            yield updates

    async def regenerate(self, current: str, corpus: str, mode: str) -> Updates:
        """Ask the last question again; the trace of its old answer stays."""
        conversation = await in_thread(self._stores.conversations.load, current)
        last = view.last_exchange(conversation)
        if last is None:
            yield gr.skip()
            return
        async for updates in self._ask(last.question, current, corpus, mode, last.position):
            yield updates

    async def stop(self, current: str) -> None:
        """Stop the answer that is being written; ``_ask`` then shows what has been written."""
        self._running.stop(current)

    async def _ask(self, question: str, current: str, corpus: str, mode: str, replaced: int | None) -> Updates:
        parts = self._parts
        if current in self._running:
            show_warning("This conversation is being answered: wait for it, or stop it.")
            yield gr.skip()
            return
        try:
            # Before it is stored: a question that is refused stays in the input box only.
            check_question(question, self._settings.limits.question_chars)
            self._releases.gate.check()
            asked = await in_thread(self._store, question, current, corpus, mode, replaced)
        except Exception as error:  # noqa: BLE001 - shown as one sentence; the question stays in the input box
            warn(error)
            yield gr.skip()
            return
        before = view.messages(asked.conversation, ())
        before.append(view.user_message(asked.exchange))
        yield {
            parts.bridge.current: asked.conversation.id,
            parts.chatbot: gr.Chatbot(
                value=before,
                feedback_value=await in_thread(view.thumbs, asked.conversation, self._stores.traces),
            ),
            parts.question: "",
            parts.sources: empty_html(),
            parts.listing: await in_thread(self._listing, asked.conversation.id),
        }
        async for updates in self._follow(asked, before):
            yield updates

    def _store(self, question: str, current: str, corpus: str, mode: str, replaced: int | None) -> Asked:
        """Store the question before it is answered, so that a crash does not lose it."""
        store = self._stores.conversations
        # A browser may send lone surrogates and null characters, which no database accepts.
        question = question.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
        conversation = store.load(current) if current else None
        if conversation is None:
            current = store.new(corpus)
        elif conversation.corpus != corpus:
            store.set_corpus(current, corpus)
        if replaced is not None:
            store.truncate_from(current, replaced)
        position = store.append(current, question)
        loaded = store.load(current)
        earlier = tuple(one for one in loaded.exchanges if one.position < position) if loaded else ()
        kept = Conversation(current, loaded.title if loaded else "", corpus, earlier)
        variant = variant_of(mode, self._settings)
        model = str(variant.changes["model"]) if variant else self._releases.model
        return Asked(kept, Exchange(position, question), corpus, model, variant)

    async def _follow(self, asked: Asked, before: list[view.Message]) -> Updates:
        """Show an answer while it is written, and store it however it ends."""
        parts, conversation = self._parts, asked.conversation
        history = conversation.turns_before(asked.exchange.position)
        request = Ask(asked.exchange.question, history, asked.corpus, conversation.id)
        started = time.time()
        draft = PartialAnswer()
        problem: Exception | None = None
        try:
            stream = self._releases.assistant(asked.variant, gate=self._releases.gate).start(request)
            self._running.add(conversation.id, stream)
        except Busy as error:
            # Other questions have come in while it was stored.
            answer = await in_thread(self._unfinished, asked, draft, error, started)
            await in_thread(self._finish, asked, answer)
            yield self._finished(before, answer)
            return
        busy = {parts.question: gr.Textbox(submit_btn=False, stop_btn=True)}
        try:
            yield busy | self._growing(asked, draft, before, new_hits=False)
            async for events in stream.batches(PAUSE_S):
                hits = draft.hits
                draft = reduce(PartialAnswer.after, events, draft)
                if draft.answer is None:
                    yield busy | self._growing(asked, draft, before, new_hits=draft.hits is not hits)
        except Exception as error:  # noqa: BLE001 - an answer that fails is shown as one
            problem = error
        finally:
            # Also when the page has been closed: then nothing is shown, but everything is stored.
            await self._running.end(conversation.id, stream)
            answer = draft.answer or await in_thread(self._unfinished, asked, draft, problem, started)
            await in_thread(self._finish, asked, answer)
        yield self._finished(before, answer)

    def _finished(self, before: list[view.Message], answer: Answer) -> dict[Any, Any]:
        parts = self._parts
        return {
            parts.chatbot: [*before, view.assistant_message(answer_html(answer))],
            parts.question: gr.Textbox(submit_btn=True, stop_btn=False),
            parts.sources: sources_html(answer, self._settings.grounding.min_support),
        }

    def _growing(
        self, asked: Asked, draft: PartialAnswer, before: list[view.Message], *, new_hits: bool
    ) -> dict[Any, Any]:
        step = step_line(draft.step, len(draft.hits))
        html = draft_html(draft.text, draft.hits, draft.citations, asked.model, step)
        updates: dict[Any, Any] = {self._parts.chatbot: [*before, view.assistant_message(html)]}
        if new_hits:
            updates[self._parts.sources] = draft_sources_html(draft.hits)
        return updates

    def _unfinished(self, asked: Asked, draft: PartialAnswer, problem: Exception | None, started: float) -> Answer:
        """Return what was written of an answer that failed or was stopped."""
        release = self._releases.pipeline(asked.corpus, asked.variant).release if problem is None else None
        return Answer(
            text=draft.text.rstrip(),
            status="cancelled" if problem is None else "failed",
            hits=draft.hits,
            citations=draft.citations,
            standalone=asked.exchange.question,
            trace_id=draft.trace_id,
            latency_s=time.time() - started,
            prompt=release.prompt if release else "",
            release=release.name if release else "",
            model=asked.model,
            error=error_message(problem) if problem else "",
        )

    def _finish(self, asked: Asked, answer: Answer) -> None:
        try:
            self._stores.conversations.finish(asked.conversation.id, asked.exchange.position, answer)
        except RagsmithError as error:
            # The answer is shown and its trace is stored: only the conversation lacks it.
            log.warning("The answer could not be stored in its conversation: %s", error)

    def _listing(self, current: str) -> str:
        return view.listing_html(self._stores.conversations.list(limit=view.LISTED), current)
