"""The work of a lesson: collect answers to rehearse, train a candidate adapter, and evaluate it.

Every phase goes on where an earlier process has left it, whether that was stopped or killed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.lesson import Lesson
from finetune.lesson_rows import recipe_text
from rag.errors import EvaluationError, TuningError
from rag.tracing.figures import counted
from ui.app.lesson_parts import AT_ONCE, LessonParts, LessonProgress, LessonStopped, Working
from ui.app.rehearsal import Rehearsal

if TYPE_CHECKING:
    from finetune.run_folder import RunFolder
    from rag.evaluation.gate import Margin
    from rag.evaluation.run_store import Run
    from rag.models.local.local_adapters import AdapterFiles

IN_USE, TAUGHT = "in use", "taught"
"""The names of the variants of an evaluation."""
MARGINS = ("contains=0.02", "refusal_recall=0.1", "replaced=0.05", "failed=0.01")
"""How much worse the candidate may be; a metric that no case of the dataset has is left out."""
MOST_UNSUPPORTED = 0.3
"""The largest share of corrections that may say what their sources do not contain."""
POLL_S = 0.3
# Who asks whether a lesson is active takes its lock for a moment.
LOCK_S = 1.0


@dataclass(frozen=True)
class LessonWork:
    """Works on one lesson, in one process at a time.

    Attributes:
        parts: The parts of the process.
        working: The lesson, its stop, and the receiver of its progress.
        config: The settings file that was named, for the training process.
    """

    parts: LessonParts
    working: Working
    config: Path | None = None

    async def run(self) -> Lesson:
        """Work until the candidate is judged, the training has failed, or a stop is requested.

        Raises:
            RagsmithError: A part is missing or refuses; the same lesson can go on when that is remedied.
        """
        from filelock import Timeout

        try:
            with self.working.folder.lock.acquire(timeout=LOCK_S):
                self.working.folder.clear_stop()
                async with self._watched():
                    return await self._phases()
        except Timeout as error:
            raise TuningError(
                f"Another process is working on the lesson {self.working.folder.path.name}.",
                fix="`ragsmith teach status` shows how far it is, and `ragsmith teach stop` stops it.",
            ) from error

    async def _phases(self) -> Lesson:
        collect = Rehearsal(self.parts, self.working).collect
        phases = {"collecting": collect, "training": self._train, "evaluating": self._evaluate}
        with suppress(LessonStopped):
            while phase := phases.get(self.working.folder.lesson.state):
                await phase()
        return self.working.folder.lesson

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Watch for a stop that another process requests."""

        async def watch() -> None:
            while not self.working.folder.stop_requested:
                await asyncio.sleep(POLL_S)
            self.working.stop.set()

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()

    # Training

    async def _train(self) -> None:
        from finetune.adapter_card import copy_result
        from finetune.recipe import parse_recipe
        from finetune.run_folder import RESULT, RunFolder, new_run, run_like

        lesson = self.working.folder.lesson
        if not lesson.training:
            text = recipe_text(lesson.name, lesson.model, self._start(lesson))
            recipe = parse_recipe(text, "the recipe of the lesson")
            runs, data = self.parts.stores.workspace.runs, self.working.folder.data
            # After a crash, the run may be there although the lesson does not name it yet.
            made = run_like(runs, recipe, text, data) or new_run(
                runs, recipe, text, data, self.parts.settings.tracking
            )
            lesson = self.working.folder.change(training=made.name)
        run = RunFolder(self.parts.stores.workspace.runs / lesson.training)
        if not await self._trained(run):
            return
        await asyncio.to_thread(copy_result, run.path / RESULT, self.parts.stores.workspace.adapters / lesson.name)
        self.working.folder.change(state="evaluating")

    def _start(self, lesson: Lesson) -> AdapterFiles | None:
        from rag.models.local.local_adapters import find_lora

        return find_lora(lesson.adapter, self.parts.stores.workspace.adapters) if lesson.adapter else None

    async def _trained(self, run: RunFolder) -> bool:
        """Train until the end; return whether there is a result.

        Raises:
            LessonStopped: The training was stopped after a checkpoint.
        """
        from finetune.launching import launch

        self.working.on_progress(LessonProgress("training"))
        if run.status.state != "done" and not run.is_active:
            await asyncio.to_thread(launch, run, self.config, dict(os.environ))
        while run.is_active:
            now = run.status
            self.working.on_progress(LessonProgress("training", now.step, now.steps, now.left_s))
            if self.working.stop.is_set():
                run.request_stop()
            await asyncio.sleep(POLL_S)
        ended = run.status
        if ended.state == "failed":
            self.working.folder.change(state="failed", message=ended.message)
            return False
        if ended.state != "done":
            raise LessonStopped
        return True

    # Evaluation

    async def _evaluate(self) -> None:
        run = await asyncio.to_thread(self._evaluation)
        if run.status == "running":
            status = await self.parts.evaluations.work(
                run,
                self.working.stop,
                lambda now: self.working.on_progress(
                    LessonProgress("evaluating", now.done, now.total, now.seconds_left)
                ),
            )
            if status == "failed":
                raise EvaluationError(
                    f"The evaluation of the candidate failed: {self.parts.evaluations.runs.get(run.id).error}",
                    fix="Remedy the cause, and run `ragsmith teach` again.",
                )
            if status != "finished":
                raise LessonStopped
        self._judge(self.parts.evaluations.runs.get(run.id))

    def _evaluation(self) -> Run:
        """Return the evaluation run, begun or resumed; one that has finished stays so."""
        from rag.evaluation.variants import Variant

        lesson = self.working.folder.lesson
        if not lesson.run:
            prompt = {"prompt": lesson.prompt}
            variants = [
                Variant(name=IN_USE, changes=prompt | {"local.adapter": lesson.adapter}),
                Variant(name=TAUGHT, changes=prompt | {"local.adapter": lesson.name}),
            ]
            run = self.parts.evaluations.begin(
                lesson.dataset, variants, name=lesson.name, corpus=lesson.corpus, concurrency=AT_ONCE
            )
            self.working.folder.change(run=run.id)
            return run
        run = self.parts.evaluations.runs.get(lesson.run)
        if run.status == "finished":
            return run
        try:
            return self.parts.evaluations.resume(run.id)
        except EvaluationError:
            # The corpus, for example, has changed since; unchanged answers come from the cache.
            self.working.folder.change(run="")
            return self._evaluation()

    def _judge(self, run: Run) -> None:
        from rag.evaluation.gate import gate
        from rag.evaluation.summary import read_columns

        baseline, candidate = (read_columns(self.parts.evaluations.runs, run, number) for number in range(2))
        # Without a question to refuse, for example, refusals have no figure on either side.
        known = baseline.numerators.keys() | candidate.numerators.keys()
        verdict = gate(baseline, candidate, [margin for margin in margins() if margin.metric in known])
        reasons = tuple(check.reason for check in sorted(verdict.checks, key=lambda check: check.passed))
        doubt = doubt_of(self.working.folder.lesson)
        self.working.folder.change(
            state="judged", passed=verdict.passed and not doubt, reasons=(doubt, *reasons) if doubt else reasons
        )


def margins() -> list[Margin]:
    """Return the margins of the gate."""
    from rag.evaluation.gate import parse_margin

    return [parse_margin(text) for text in MARGINS]


def doubt_of(lesson: Lesson) -> str:
    """Return why the corrections of a lesson teach to invent, as a sentence; empty if few of them do.

    The chain replaces what it finds invented, so that an evaluation may not show it.
    """
    found, total = len(lesson.unsupported), len(lesson.traces)
    if found <= MOST_UNSUPPORTED * total:
        return ""
    return (
        f"{found} of {counted(total, 'correction')} {'says' if found == 1 else 'say'} what the sources do not "
        "contain, such as that of "
        f"{lesson.unsupported[0]!r}; `ragsmith feedback review ID` shows which sentences."
    )
