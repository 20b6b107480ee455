"""The questions of the lab: ask all columns, stop, or run them on a dataset."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import chain
from typing import TYPE_CHECKING, Any

import gradio as gr

from rag.errors import RagsmithError
from rag.types import Answer
from ui.pages.page_events import error_message, in_thread, show_info, show_warning, warn
from ui.pages.prompts.lab_answers import Lane, SideBySide, ask_all
from ui.pages.prompts.lab_columns import LETTERS, Column, ResolvedColumn, begin_evaluation
from ui.pages.prompts.lab_layout import LabParts
from ui.pages.prompts.lab_playground import Playground, compared_html
from ui.pages.prompts.lab_showing import NO_ANSWERS, Form, Given, Showing, Updates
from ui.pages.prompts.lab_view import growing_html, note_html, passages_html, waiting_html

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.evaluations import Evaluations
    from ui.app.models import Models
    from ui.app.releases import Releases

# Seconds between two updates: up to four answers grow in the browser at the same time.
PAUSE_S = 0.1


class AskingAll:
    """The events that lead to answers."""

    def __init__(
        self,
        settings: Settings,
        releases: Releases,
        models: Models,
        evaluations: Evaluations,
        parts: LabParts,
        showing: Showing,
    ) -> None:
        self._settings = settings
        self._releases = releases
        self._models = models
        self._evaluations = evaluations
        self._parts = parts
        self._showing = showing
        self._working: dict[str, SideBySide] = {}

    @property
    def written(self) -> list[Any]:
        """The components that ``run`` updates: few, because every update names them all."""
        parts = self._parts
        columns = ((column.answer, column.sources, column.copy, column.remove) for column in parts.columns)
        return [parts.run, parts.stop, parts.add, parts.answers, *chain.from_iterable(columns)]

    async def run(self, given: Given, request: gr.Request) -> AsyncIterator[Updates]:
        """Ask all columns, and show their answers while they are written."""
        key = request.session_hash or ""
        parts = self._parts
        try:
            form = self._showing.form(given)
            _, resolved = await in_thread(self._showing.resolved, form)
            found = await in_thread(self._showing.replayed, form)
        except Exception as error:  # noqa: BLE001 - shown as one sentence
            warn(error)
            yield gr.skip()
            return
        # Nothing may be awaited between this check and the start of the work.
        if key in self._working:
            show_warning("The columns are being answered: wait for them, or stop them.")
            yield gr.skip()
            return
        started = time.time()
        answers = list(NO_ANSWERS)
        work = self._working[key] = ask_all(
            self._releases, self._models, form.columns, form.asked(found.ask if found else None)
        )
        # Repeated in every update; see ``page_events.Updates``.
        busy = self._busy(form, working=True)
        try:
            yield busy | self._begun(form)
            async with aclosing(work.changes(PAUSE_S)) as changes:  # type: ignore[type-var]
                async for changed in changes:
                    updates = busy.copy()
                    for number in changed:
                        lane = work.lanes[number]
                        if lane.over:
                            answers[number] = self._answer(lane, form.columns[number], resolved[number], started)
                            compared = await in_thread(self._compared, found, answers[number])
                            updates |= self._showing.ended(number, answers[number], resolved[number], compared)
                        else:
                            updates |= self._growing(number, lane, form.columns[number], resolved[number])
                    yield updates
        finally:
            # Also when the page has been closed.
            del self._working[key]
            await work.close()
        yield self._busy(form, working=False) | {parts.answers: tuple(answers)}

    async def stop(self, request: gr.Request) -> None:
        """Stop all columns; ``run`` then shows what they have written."""
        work = self._working.get(request.session_hash or "")
        if work is not None:
            work.stop()

    async def evaluate(self, given: Given) -> Any:
        """Start a run of the columns over a dataset, and open the Evaluate tab."""
        dataset = given[self._parts.dataset]
        if not dataset:
            show_warning("Choose a dataset first.")
            return gr.skip()
        try:
            form = self._showing.form(given)
            run = await in_thread(
                begin_evaluation, self._releases, self._evaluations, form.columns, dataset, form.corpus
            )
            self._evaluations.start(run)
        except Exception as error:  # noqa: BLE001 - shown as one sentence
            warn(error)
            return gr.skip()
        show_info(f"Run {run.id} has started.")
        return gr.Tabs(selected="evaluate")

    def _compared(self, found: Playground | None, answer: Answer | None) -> str:
        """Render how an answer differs from that in the playground; empty without one."""
        if found is None or answer is None or not answer.trace_id:
            return ""
        try:
            return compared_html(found.trace, self._showing.trace(answer.trace_id))
        except RagsmithError as error:
            return note_html([str(error)])

    def _busy(self, form: Form, *, working: bool) -> Updates:
        """Enable the buttons that can be used while answers are written, or after."""
        parts, count = self._parts, len(form.columns)
        updates: Updates = {
            parts.run: gr.Button(visible=not working),
            parts.stop: gr.Button(visible=working),
            parts.add: gr.Button(interactive=not working and count < len(LETTERS)),
        }
        for column in parts.columns[:count]:
            updates[column.remove] = gr.Button(interactive=not working and count > 1)
            updates[column.copy] = gr.Button(interactive=not working)
        return updates

    def _begun(self, form: Form) -> Updates:
        shown = self._parts.columns[: len(form.columns)]
        return {column.answer: waiting_html() for column in shown}

    def _growing(self, number: int, lane: Lane, column: Column, resolved: ResolvedColumn | None) -> Updates:
        parts = self._parts.columns[number]
        model = resolved.model if resolved else column.model or self._settings.model
        updates: Updates = {parts.answer: growing_html(lane.draft, model)}
        if resolved and lane.draft.hits and not lane.draft.text:
            updates[parts.sources] = passages_html(lane.draft, resolved.min_support, direct=bool(resolved.free))
        return updates

    def _answer(self, lane: Lane, column: Column, resolved: ResolvedColumn | None, started: float) -> Answer:
        """Return the answer of a column, also where it failed before it began or was stopped."""
        draft = lane.draft
        if draft.answer is not None:
            return draft.answer
        return Answer(
            text=draft.text.rstrip(),
            status="cancelled" if lane.problem is None else "failed",
            hits=draft.hits,
            citations=draft.citations,
            trace_id=draft.trace_id,
            latency_s=time.time() - started,
            prompt=resolved.prompt.label if resolved else "",
            model=resolved.model if resolved else column.model or self._settings.model,
            error=error_message(lane.problem) if lane.problem else "",
        )
