"""What the phases of a lesson share: the parts of the process, the lesson, and its progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetune.lesson import LessonFolder

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.evaluations import Evaluations
    from ui.app.models import Models
    from ui.app.releases import Releases
    from ui.app.stores import Stores

AT_ONCE = 4
"""The number of concurrent questions."""


class LessonStopped(Exception):
    """The work was stopped, and can go on later."""


@dataclass(frozen=True, slots=True)
class LessonProgress:
    """How far the present phase is.

    Attributes:
        phase: What is done, in words.
        done, total: Steps of the phase; a total of 0 is not known yet.
        left_s: Estimated seconds left in the phase; None if unknown.
    """

    phase: str
    done: int = 0
    total: int = 0
    left_s: float | None = None


@dataclass(frozen=True, slots=True)
class LessonParts:
    """The parts of a process that lessons use."""

    settings: Settings
    stores: Stores
    models: Models
    releases: Releases
    evaluations: Evaluations


@dataclass(frozen=True, slots=True)
class Working:
    """Work on a lesson.

    Attributes:
        folder: The lesson.
        on_progress: Called with the progress, from any thread.
        stop: Stops the work when set.
    """

    folder: LessonFolder
    on_progress: Callable[[LessonProgress], None] = lambda _: None
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def check_stop(self) -> None:
        """Raise LessonStopped if the work is to stop."""
        if self.stop.is_set():
            raise LessonStopped
