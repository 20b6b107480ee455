"""Teach, a part of the Tune tab: the queue of corrections, a lesson, its verdict, and the decision about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from rag.tracing.figures import format_seconds
from ui.app.login_name import login_name
from ui.pages.html_component import html_component
from ui.pages.page_events import QUIET, in_thread, show_errors, show_info, show_warning, warn
from ui.pages.safe_markup import fragment

if TYPE_CHECKING:
    from finetune.lesson import LessonFolder
    from rag.tracing.trace_store import Trace
    from ui.app.stores import Stores
    from ui.app.teaching import Teaching

Updates = dict[Any, Any]
LOOK_S = 1.0


class TeachPart:
    """Components and events of the part.

    Args:
        stores: The stores with the traces and their feedback.
        teaching: The lessons.
    """

    def __init__(self, stores: Stores, teaching: Teaching) -> None:
        self._stores = stores
        self._teaching = teaching

    def build(self, *shown_by: Callable[..., Any]) -> None:
        """Make the components inside the blocks that are open, and connect their events.

        Args:
            shown_by: Events that show the part, such as ``page.load`` and ``tab.select``.
        """
        with gr.Column(elem_id="teach"):
            self._queue = html_component("teach-queue")
            with gr.Column(visible=False, min_width=0) as self._review:
                self._correction = gr.Textbox(
                    label="The right answer", lines=2, max_lines=8, elem_id="teach-correction"
                )
                with gr.Row(elem_classes="rs-actions"):
                    self._accept = gr.Button("Accept", size="sm", variant="primary", elem_id="teach-accept")
                    self._reject = gr.Button("Reject", size="sm", elem_id="teach-reject")
                    self._skip = gr.Button("Next", size="sm", elem_id="teach-skip")
            with gr.Row():
                self._dataset = gr.Textbox(
                    label="Judged on the dataset",
                    placeholder="handbook",
                    max_lines=1,
                    elem_id="teach-dataset",
                    min_width=160,
                )
                self._teach = gr.Button("Teach", variant="primary", elem_id="teach-start", min_width=120)
                self._stop = gr.Button("Stop", variant="stop", visible=False, elem_id="teach-stop", min_width=120)
            self._lesson = html_component("teach-lesson")
            with gr.Row(visible=False) as self._decision:
                self._reason = gr.Textbox(
                    label="Reason",
                    info="Needed for a candidate that the gate refuses.",
                    max_lines=1,
                    max_length=2000,
                    elem_id="teach-reason",
                )
                self._use = gr.Button("Use it", variant="primary", elem_id="teach-use", min_width=120)
                self._discard = gr.Button("Discard", elem_id="teach-discard", min_width=120)
            self._back = gr.Button("Roll back", visible=False, elem_id="teach-back", size="sm")
            self._at = gr.State("")
            self._timer = gr.Timer(LOOK_S, active=False)
        self._wire(shown_by)

    def _wire(self, shown_by: tuple[Callable[..., Any], ...]) -> None:
        queue = [self._queue, self._review, self._correction, self._at]
        lesson = [self._lesson, self._teach, self._stop, self._decision, self._back, self._timer]
        everything = [*queue, *lesson]
        for event in shown_by:
            event(self.show, None, everything, **QUIET)
        self._accept.click(self.accept, [self._at, self._correction], everything, **QUIET)
        self._reject.click(self.reject, self._at, everything, **QUIET)
        self._skip.click(self.skip, self._at, queue, **QUIET)
        self._teach.click(self.teach, self._dataset, lesson, **QUIET)
        self._stop.click(self.stop, None, lesson, **QUIET)
        self._timer.tick(self.look, None, lesson, **QUIET)
        self._use.click(self.use, self._reason, lesson, **QUIET)
        self._discard.click(self.discard, self._reason, lesson, **QUIET)
        self._back.click(self.roll_back, None, lesson, **QUIET)

    # The queue

    @show_errors
    def show(self) -> Updates:
        """Show the first answer of the queue, and the newest lesson."""
        return self._everything()

    def _everything(self) -> Updates:
        return {**self._queued(""), **self._lesson_now()}

    @show_errors
    def accept(self, at: str, correction: str) -> Updates:
        """Accept the right answer as it is in the field."""
        self._stores.traces.review(at, "accepted", by=login_name(), correction=correction)
        return self._everything()

    @show_errors
    def reject(self, at: str) -> Updates:
        """Reject a correction."""
        self._stores.traces.review(at, "rejected", by=login_name())
        return self._everything()

    @show_errors
    def skip(self, at: str) -> Updates:
        """Show the next answer of the queue, and the first one after the last."""
        return self._queued(at)

    def _queued(self, after: str) -> Updates:
        from rag.answering.corrections import sources_of
        from rag.tracing.ratings import rated_ids

        ids = rated_ids(self._stores.engine, "down", review="pending")
        place = (ids.index(after) + 1) % len(ids) if after in ids else 0
        trace: Trace | None = self._stores.traces.get(ids[place]) if ids else None
        if trace is None or trace.feedback is None:
            html = fragment("tune_teach_queue.html.jinja", trace=None)
            return {self._queue: html, self._review: gr.Column(visible=False), self._correction: "", self._at: ""}
        said, sources = trace.feedback, sources_of(trace)
        html = fragment(
            "tune_teach_queue.html.jinja",
            trace=trace,
            said=said,
            place=place + 1,
            total=len(ids),
            names=sources.names,
            faults=sources.faults_of(said.correction) if said.correction else (),
        )
        return {
            self._queue: html,
            self._review: gr.Column(visible=True),
            self._correction: said.correction,
            self._at: trace.id,
        }

    # The lesson

    async def teach(self, dataset: str) -> Any:
        """Begin a lesson, or continue the one that was stopped."""
        try:
            folder = await in_thread(self._teaching.begin, dataset.strip())
            self._teaching.start(folder)
            return await in_thread(self._lesson_now)
        except Exception as error:  # noqa: BLE001 - shown as one sentence
            warn(error)
            return gr.skip()

    @show_errors
    def stop(self) -> Updates:
        """Ask the lesson to stop."""
        if not self._teaching.stop():
            show_warning("No lesson is being worked on.")
        return self._lesson_now()

    @show_errors
    def look(self) -> Updates:
        """Update the lesson while it works."""
        return self._lesson_now()

    @show_errors
    def use(self, reason: str) -> Updates:
        """Answer with the candidate from now on; a reason forces one that the gate refuses."""
        lesson = self._teaching.use(self._newest(), by=login_name(), message=reason, force=bool(reason.strip()))
        show_info(f"{lesson.version} answers from now on.", seconds=4)
        return self._lesson_now()

    @show_errors
    def discard(self, reason: str) -> Updates:
        """Delete the candidate."""
        self._teaching.discard(self._newest(), message=reason)
        return self._lesson_now()

    @show_errors
    def roll_back(self) -> Updates:
        """Answer as before the lesson."""
        version = self._teaching.roll_back(self._newest().lesson, by=login_name())
        show_info(f"{version} answers again.", seconds=4)
        return self._lesson_now()

    def _newest(self) -> LessonFolder:
        from rag.errors import TuningError

        newest = self._teaching.newest()
        if newest is None:
            raise TuningError("There is no lesson yet.", fix="Press Teach.")
        return newest

    def _lesson_now(self) -> Updates:
        folder, progress = self._teaching.newest(), self._teaching.progress
        lesson = folder.lesson if folder else None
        working = progress is not None or (folder is not None and folder.is_active)
        judged = lesson is not None and lesson.state == "judged"
        problems = [lesson.message] if lesson and lesson.state == "failed" else []
        problems += [self._teaching.problem] if self._teaching.problem else []
        html = fragment(
            "tune_teach_lesson.html.jinja",
            lesson=lesson,
            waiting=len(self._teaching.waiting()),
            progress=progress,
            time_left=format_seconds(progress.left_s) if progress and progress.left_s is not None else "",
            problems=problems,
            result=self._teaching.result(lesson) if lesson and lesson.passed is not None else None,
        )
        return {
            self._lesson: html,
            self._teach: gr.Button(visible=not working and not judged),
            self._stop: gr.Button(visible=working),
            self._decision: gr.Row(visible=judged),
            self._back: gr.Button(visible=lesson is not None and self._teaching.is_in_use(lesson)),
            self._timer: gr.Timer(active=working),
        }
