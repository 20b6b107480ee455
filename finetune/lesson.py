"""A lesson: what one ``ragsmith teach`` has done so far, as a folder of files.

``lesson.json``      the state; replaced atomically
``data/``            the rows that are trained on
``stop``, ``lock``   see ``finetune.work_folder``
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.work_folder import WorkFolder, new_folder_in
from prompts.files import atomic_write
from rag.errors import TuningError
from rag.workspace import disk_errors

FILE = "lesson.json"
PREFIX = "taught"
LessonState = Literal["collecting", "training", "evaluating", "judged", "used", "discarded", "failed"]
UNFINISHED: tuple[LessonState, ...] = ("collecting", "training", "evaluating")


class Lesson(BaseModel):
    """The state of a lesson.

    Attributes:
        name: Name of the folder, of the candidate adapter and of the evaluation run.
        started: Seconds since the epoch.
        model: The model that answers, as its traces name it.
        adapter: Name of the adapter in use, from which the candidate is trained; empty for the base model.
        prompt: The answer prompt in use, ``NAME@VERSION``.
        corpus: The corpus that is asked.
        dataset: The dataset of the evaluation, ``NAME@VERSION``.
        traces: Ids of the traces with the corrections to learn.
        left_out: Corrections that cannot be learnt, by reason.
        unsupported: Questions of corrections that say what their sources do not contain.
        kept: Number of answers that are rehearsed.
        training: Name of the training run; empty before it.
        run: Id of the evaluation run; empty before it.
        passed: Whether the gate passes the candidate; None before.
        reasons: What the gate says, a sentence for every metric.
        message: Why the lesson failed, or why the person decided as they did.
        version: The prompt version that uses the candidate, ``NAME@VERSION``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    started: float
    state: LessonState
    model: str
    adapter: str
    prompt: str
    corpus: str
    dataset: str
    traces: tuple[str, ...]
    left_out: dict[str, int] = {}
    unsupported: tuple[str, ...] = ()
    kept: int = 0
    training: str = ""
    run: str = ""
    passed: bool | None = None
    reasons: tuple[str, ...] = ()
    message: str = ""
    version: str = ""


class LessonFolder(WorkFolder):
    """The files of a lesson."""

    @property
    def lesson(self) -> Lesson:
        """The state as last written.

        Raises:
            TuningError: The file is damaged.
        """
        try:
            return Lesson.model_validate_json((self.path / FILE).read_bytes())
        except (OSError, ValidationError) as error:
            raise TuningError(
                f"The lesson in {self.path} is damaged: {FILE} cannot be read.", fix="Delete that folder."
            ) from error

    def write(self, lesson: Lesson) -> Lesson:
        """Replace the state, and return it."""
        with disk_errors(f"write {self.path}"), atomic_write(self.path / FILE) as file:
            file.write(lesson.model_dump_json(indent=1).encode())
        return lesson

    def change(self, **changes: object) -> Lesson:
        """Replace some of the state, and return the whole."""
        return self.write(Lesson.model_validate(self.lesson.model_dump() | changes))

    @property
    def data(self) -> Path:
        """The folder of the training rows."""
        return self.path / "data"


def new_folder(runs: Path) -> LessonFolder:
    """Create the folder of a lesson among the runs of a workspace; its name is also that of the candidate."""
    stem = f"{PREFIX}-{time.strftime('%Y%m%d-%H%M%S')}"
    with disk_errors("start a lesson"):
        path = new_folder_in(runs, stem)
    return LessonFolder(path)


def lessons(runs: Path) -> list[LessonFolder]:
    """Return all lessons, newest first; a folder without a state, which a crash leaves, is none."""
    found = [path for path in runs.glob(f"{PREFIX}-*") if os.path.isfile(path / FILE)]
    return sorted(map(LessonFolder, found), key=lambda one: one.lesson.started, reverse=True)


def lineage(runs: Path, adapter: str) -> tuple[Lesson, ...]:
    """Return the lessons that an adapter comes from, the newest first."""
    by_name = {folder.path.name: folder.lesson for folder in lessons(runs)}
    found: list[Lesson] = []
    while adapter in by_name and by_name[adapter] not in found:
        found.append(by_name[adapter])
        adapter = found[-1].adapter
    return tuple(found)


def write_rows(path: Path, lines: list[str]) -> None:
    """Write a file of training rows, atomically."""
    with disk_errors(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
