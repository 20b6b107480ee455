"""Teaching: from accepted corrections to a candidate adapter, which a person uses or discards."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.lesson import UNFINISHED, Lesson, LessonFolder, lessons, lineage, new_folder, write_rows
from finetune.lesson_rows import CORRECTIONS, correction_rows
from rag.errors import DatasetError, TuningError, prompt_errors
from rag.tracing.figures import counted
from ui.app.lesson_parts import LessonParts, LessonProgress, Working
from ui.app.lesson_result import LessonResult, lesson_result
from ui.app.lesson_work import LessonWork
from ui.app.stores import SAMPLE_CORPUS, sample_questions

if TYPE_CHECKING:
    from rag.evaluation.dataset_store import DatasetVersion
    from rag.settings import Settings
    from ui.app.evaluations import Evaluations
    from ui.app.models import Models
    from ui.app.prompt_labels import PromptLabels
    from ui.app.releases import Releases
    from ui.app.stores import Stores

CLOSED = ("used", "discarded", "failed")
_log = logging.getLogger(__name__)


class Teaching:
    """The lessons of a workspace, one at a time."""

    def __init__(
        self, settings: Settings, stores: Stores, models: Models, releases: Releases, evaluations: Evaluations
    ) -> None:
        self._parts = LessonParts(settings, stores, models, releases, evaluations)
        self._settings = settings
        self._stores = stores
        self._releases = releases
        self._task: asyncio.Task[Lesson] | None = None
        self._progress: LessonProgress | None = None
        self._problem = ""

    def newest(self) -> LessonFolder | None:
        """Return the newest lesson; None if there is none."""
        return next(iter(lessons(self._stores.workspace.runs)), None)

    def begin(self, dataset: str = "", corpus: str = "") -> LessonFolder:
        """Return the lesson to work on: the newest one if it is unfinished, else a new one.

        Args:
            dataset: The dataset of the evaluation, ``NAME`` or ``NAME@VERSION``; by default the handbook's.
            corpus: The corpus that is asked; by default the one in the settings.

        Raises:
            TuningError: A candidate waits for a decision, no correction is new, or the model cannot be taught.
            RagsmithError: The dataset or the prompt is missing.
        """
        newest = self.newest()
        if newest is not None:
            if newest.lesson.state in UNFINISHED:
                return newest
            if newest.lesson.state == "judged":
                raise TuningError(
                    f"The candidate {newest.path.name} waits for a decision.",
                    fix="Decide with `ragsmith teach use` or `ragsmith teach discard`.",
                )
        from rag.models.chat_models import runs_here

        resolved = self._releases.resolve()
        settings = resolved.settings
        if not runs_here(settings.model):
            raise TuningError(
                f"The model {settings.model} cannot be taught: it is not a language model run by ragsmith.",
                fix="Set model to smollm2 or local:NAME, and correct answers of that model.",
            )
        version = self._dataset(dataset or SAMPLE_CORPUS)
        adapter = settings.active_adapter
        rows = correction_rows(map(self._stores.traces.get, self.waiting()), settings.model)
        if not rows.lines:
            left_out = "; ".join(f"{count} left out: {reason}" for reason, count in rows.left_out.items())
            raise TuningError(
                f"There is no accepted correction to learn{f' ({left_out})' if left_out else ''}.",
                fix="Correct answers in the chat, and accept corrections with `ragsmith feedback review`.",
            )
        folder = new_folder(self._stores.workspace.runs)
        write_rows(folder.data / f"{CORRECTIONS}.jsonl", rows.lines)
        folder.write(
            Lesson(
                name=folder.path.name,
                started=time.time(),
                state="collecting",
                model=settings.model,
                adapter=adapter,
                prompt=resolved.prompt.label,
                corpus=corpus or settings.corpus,
                dataset=version.label,
                traces=tuple(rows.traces),
                unsupported=tuple(rows.unsupported),
                left_out=rows.left_out,
            )
        )
        return folder

    def waiting(self) -> tuple[str, ...]:
        """Return the ids of the accepted corrections that the adapter in use has not learnt, oldest first."""
        from rag.tracing.ratings import rated_ids

        adapter = self._releases.resolve().settings.active_adapter
        learnt = {one for lesson in lineage(self._stores.workspace.runs, adapter) for one in lesson.traces}
        accepted = rated_ids(self._stores.engine, "down", corrected=True, review="accepted")
        return tuple(one for one in reversed(accepted) if one not in learnt)

    def _dataset(self, reference: str) -> DatasetVersion:
        """Return a dataset version; the handbook's questions become a dataset when they are first needed."""
        datasets = self._parts.evaluations.datasets
        questions = sample_questions()
        try:
            return datasets.resolve(reference)
        except DatasetError:
            if reference != SAMPLE_CORPUS or questions is None:
                raise
        from rag.evaluation.case_files import read_cases

        by, why = "ragsmith", "the questions of the handbook"
        datasets.add(reference, read_cases(questions).cases, by=by, message=why)
        return datasets.resolve(reference)

    # Work

    def work(
        self,
        folder: LessonFolder,
        on_progress: Callable[[LessonProgress], None] = lambda _: None,
        config: Path | None = None,
    ) -> LessonWork:
        """Return the work of a lesson, for this process to run."""
        return LessonWork(self._parts, Working(folder, on_progress), config)

    def start(self, folder: LessonFolder) -> None:
        """Work on a lesson in the background of the running event loop, until it is judged or stopped."""
        if self._task is not None:
            return
        self._problem = ""
        self._progress = LessonProgress(folder.lesson.state)

        def show(now: LessonProgress) -> None:
            self._progress = now

        self._task = asyncio.get_running_loop().create_task(self.work(folder, show).run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Lesson]) -> None:
        self._task = self._progress = None
        if not task.cancelled() and (error := task.exception()):
            self._problem = str(error)
            _log.error("The lesson failed: %s", error)

    @property
    def progress(self) -> LessonProgress | None:
        """Progress of the lesson that this process works on in the background; None if there is none."""
        return self._progress

    @property
    def problem(self) -> str:
        """Why the work in the background has ended early; empty if it has not."""
        return self._problem

    def stop(self) -> bool:
        """Ask whoever works on the newest lesson to stop; return whether anybody does."""
        newest = self.newest()
        if newest is None or not newest.is_active:
            return False
        newest.request_stop()
        return True

    # Result

    def result(self, lesson: Lesson) -> LessonResult:
        """Return what the evaluation of a judged lesson has found."""
        return lesson_result(self._parts.evaluations, lesson.run)

    def use(self, folder: LessonFolder, *, by: str, message: str = "", force: bool = False) -> Lesson:
        """Answer with the candidate from now on: save a prompt version that names it, and move the label.

        Args:
            by: The person who decides.
            message: The reason; needed with ``force``.
            force: Whether to use a candidate that the gate refuses.

        Raises:
            TuningError: The lesson has no candidate, the gate refuses it, or the prompt has changed since.
            PromptError: The prompt cannot be saved.
        """
        lesson = folder.lesson
        if lesson.state != "judged":
            raise TuningError(
                f"The lesson {lesson.name} is {lesson.state}, so it has no candidate to use.",
                fix="`ragsmith teach` makes one.",
            )
        if not lesson.passed and not (force and message.strip()):
            raise TuningError(
                f"The gate refuses the candidate {lesson.name}: {lesson.reasons[0]}",
                fix="Discard it, or use it all the same with --force and a reason in --message.",
            )
        reference = self._settings.model_copy(update={"model": lesson.model}).answer_prompt
        name, _, wanted = reference.partition("@")
        label = wanted or "production"
        if label.isdecimal():
            raise TuningError(
                f"The settings name the version {reference} of the prompt, which never changes.",
                fix=f"Set prompt to {name}, whose label production can then be moved.",
            )
        in_use = self._releases.resolve().prompt.label
        if in_use != lesson.prompt:
            raise TuningError(
                f"The prompt was {lesson.prompt} when the candidate was evaluated, and is {in_use} now.",
                fix="Discard the candidate, and teach again.",
            )
        why = message.strip() or f"learnt {counted(len(lesson.traces), 'correction')}"
        version = self._save(lesson, by, why)
        self._labels().move(name, label, int(version.partition("@")[2]), by=by, message=why)
        return folder.change(state="used", version=version, message=message.strip())

    def _save(self, lesson: Lesson, by: str, why: str) -> str:
        from prompts import PromptTemplate

        with prompt_errors():
            base = self._stores.prompts.load(lesson.prompt)
            settings = base.settings.model_copy(update={"adapter": lesson.name})
            draft = PromptTemplate.model_validate(base.model_copy(update={"settings": settings}).model_dump())
            return self._stores.prompts.save(draft, by=by, message=why).label

    def is_in_use(self, lesson: Lesson) -> bool:
        """Whether the prompt version that names the candidate answers now."""
        return bool(lesson.version) and self._releases.resolve().prompt.label == lesson.version

    def roll_back(self, lesson: Lesson, *, by: str) -> str:
        """Move the label back to the prompt version from before a lesson, and return that version.

        Raises:
            TuningError: The lesson's candidate is not in use.
            PromptError: The label cannot be moved.
        """
        reference = self._settings.model_copy(update={"model": lesson.model}).answer_prompt
        if not self.is_in_use(lesson):
            raise TuningError(
                f"The candidate {lesson.name} is not in use.",
                fix="`ragsmith prompts log NAME` shows the moves of its labels.",
            )
        name, _, wanted = reference.partition("@")
        number = int(lesson.prompt.partition("@")[2])
        self._labels().move(name, wanted or "production", number, by=by, message=f"without {lesson.name}")
        return lesson.prompt

    def _labels(self) -> PromptLabels:
        from ui.app.prompt_labels import PromptLabels

        return PromptLabels(self._stores.prompts, self._settings.answer_prompt)

    def discard(self, folder: LessonFolder, *, message: str = "") -> Lesson:
        """Delete the candidate of a lesson, or give up one that is unfinished; the corrections stay accepted.

        Raises:
            TuningError: A process is working on it, or its candidate is in use.
        """
        lesson = folder.lesson
        if folder.is_active:
            raise TuningError("The lesson is being worked on.", fix="Stop it first with `ragsmith teach stop`.")
        if lesson.state in CLOSED:
            raise TuningError(
                f"The lesson {lesson.name} is {lesson.state}, so there is nothing to discard.",
                fix="Move the label of the prompt back to stop using its adapter."
                if lesson.state == "used"
                else "`ragsmith teach` begins a new one.",
            )
        shutil.rmtree(self._stores.workspace.adapters / lesson.name, ignore_errors=True)
        return folder.change(state="discarded", message=message.strip())
