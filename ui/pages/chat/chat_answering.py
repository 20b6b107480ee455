"""Questions in the chat: send, example, regenerate, stop."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import gradio as gr

from rag.answering.answer_stream import PartialAnswer
from rag.errors import Busy, RagsmithError
from rag.retrieval.question_limit import check_question
from rag.types import Answer, Ask
from ui.pages.chat import conversation_view as view
from ui.pages.chat.answer_html import answer_html, draft_html, step_line
from ui.pages.chat.asked_question import Asked, Asking, Page, store_question
from ui.pages.chat.chat_events import ChatEvents
from ui.pages.chat.sources_panel import draft_sources_html, empty_html, sources_html
from ui.pages.page_events import QUIET, Updates, error_message, in_thread, log, show_warning, warn

# Seconds between two updates of an answer: shorter is not noticed, and slows long conversations in the browser.
PAUSE_S = 0.06

_SEND = "(...asking) => [...asking.slice(0, -1), window.ragsmith.takeEditing()]"


@dataclass(eq=False)
class Answering(ChatEvents):
    """The events that lead to an answer."""

    _beginning: set[Page] = field(default_factory=set, init=False)

    def wire(self) -> None:
        """Connect the events."""
        parts = self._parts
        outputs = [parts.bridge.current, parts.chatbot, parts.question, parts.sources, parts.listing]
        # Another conversation can be asked while an answer is being written.
        common: dict[str, Any] = {
            "outputs": outputs,
            "concurrency_limit": None,
            "trigger_mode": "multiple",
            **QUIET,
        }
        asking = [parts.question, parts.bridge.current, parts.corpus, parts.mode, parts.filters.kept]
        parts.question.submit(self.send, [*asking, parts.bridge.editing], js=_SEND, **common)
        parts.chatbot.example_select(self.example, asking[1:], **common)
        parts.chatbot.retry(self.regenerate, asking[1:], **common)
        parts.question.stop(self.stop, parts.bridge.current, None, concurrency_limit=None, **QUIET)

    async def send(
        self,
        question: str,
        current: str,
        corpus: str,
        mode: str,
        filters: tuple[str, ...],
        editing: str,
        request: gr.Request,
    ) -> Updates:
        """Ask the question in the input box; it replaces an earlier one that is being edited."""
        if not question.strip():
            yield gr.skip()
            return
        replaced = int(editing) if editing and editing.isdigit() else None
        asking = Asking(question.strip(), current, corpus, mode, filters, replaced)
        async for updates in self._ask(asking, request.session_hash):
            yield updates

    async def example(
        self,
        current: str,
        corpus: str,
        mode: str,
        filters: tuple[str, ...],
        chosen: gr.SelectData,
        request: gr.Request,
    ) -> Updates:
        """Ask an example question."""
        asking = Asking(chosen.value["text"], current, corpus, mode, filters)
        async for updates in self._ask(asking, request.session_hash):
            yield updates

    async def regenerate(
        self, current: str, corpus: str, mode: str, filters: tuple[str, ...], request: gr.Request
    ) -> Updates:
        """Ask the last question again; the trace of its old answer stays."""
        conversation = await in_thread(self._stores.conversations.load, current)
        last = view.last_exchange(conversation)
        if last is None:
            yield gr.skip()
            return
        asking = Asking(last.question, current, corpus, mode, filters, last.position)
        async for updates in self._ask(asking, request.session_hash):
            yield updates

    async def stop(self, current: str) -> None:
        """Stop the answer that is being written; ``_ask`` then shows what has been written."""
        self._running.stop(current)

    async def _ask(self, asking: Asking, page: Page) -> Updates:
        parts = self._parts
        asked = await self._begin(asking, page)
        if asked is None:
            yield gr.skip()
            return
        try:
            current = asked.conversation.id
            if self._shown.shows(page, asking.current):
                self._shown.show(page, current)
            before = view.messages(asked.conversation)
            before.append(view.user_message(asked.exchange))
            thumbs = await in_thread(view.thumbs, asked.conversation, self._stores.traces)
            listing = await in_thread(self._listing, current)
            if self._shown.shows(page, current):
                yield {
                    parts.bridge.current: current,
                    parts.chatbot: gr.Chatbot(value=before, feedback_value=thumbs),
                    parts.question: "",
                    parts.sources: empty_html(),
                    parts.listing: listing,
                }
            else:
                # The pane shows another conversation already.
                yield {parts.question: ""}
            shown = True
            async for updates in self._follow(asked, before):
                # By now it counts as running.
                self._beginning.discard(page)
                before_it, shown = shown, self._shown.shows(page, current)
                if shown:
                    yield updates
                elif before_it:
                    yield gr.skip()
            if shown and not self._shown.shows(page, current):
                yield gr.skip()
        finally:
            self._beginning.discard(page)

    async def _begin(self, asking: Asking, page: Page) -> Asked | None:
        """Store a question; None, after a warning, if it cannot be answered now."""
        if asking.current in self._running:
            show_warning("This conversation is being answered: wait for it, or stop it.")
            return None
        if page in self._beginning or not self._shown.shows(page, asking.current):
            # Sent twice, or while the page was turning to another conversation.
            return None
        self._beginning.add(page)
        try:
            # Before it is stored: a question that is refused stays in the input box only.
            check_question(asking.question, self._settings.limits.question_chars)
            self._releases.gate.check()
            await in_thread(self._releases.budget.check, asking.current)
            asked: Asked = await in_thread(store_question, asking, self._settings, self._stores, self._releases)
        except Exception as error:  # noqa: BLE001 - shown as one sentence; the question stays in the input box
            self._beginning.discard(page)
            warn(error)
            return None
        return asked

    async def _follow(self, asked: Asked, before: list[view.Message]) -> Updates:
        """Show an answer while it is written, and store it however it ends."""
        parts, conversation = self._parts, asked.conversation
        history = conversation.turns_before(asked.exchange.position)
        request = Ask(asked.exchange.question, history, asked.corpus, conversation.id, filters=asked.filters)
        started = time.time()
        draft = PartialAnswer()
        problem: Exception | None = None
        try:
            stream = self._releases.assistant(asked.variant, gate=self._releases.gate).start(request)
            self._running.add(conversation.id, stream, self._draft_html(asked, draft))
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
        html = self._draft_html(asked, draft)
        self._running.write(asked.conversation.id, html)
        updates: dict[Any, Any] = {self._parts.chatbot: [*before, view.assistant_message(html)]}
        if new_hits:
            updates[self._parts.sources] = draft_sources_html(draft.hits)
        return updates

    def _draft_html(self, asked: Asked, draft: PartialAnswer) -> str:
        step = step_line(draft.step, len(draft.hits))
        return draft_html(draft.text, draft.hits, draft.citations, asked.model, step)

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
