"""The answers that an adapter rehearses in a lesson: good ones that it gave, and others that it is asked for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.data.chat_rows import SUFFIX
from finetune.lesson import Lesson, lineage, write_rows
from finetune.lesson_rows import (
    CORRECTIONS,
    KEPT,
    correction_rows,
    is_kept,
    kept_row,
    wanted_kept,
    write_lesson_data,
)
from rag.settings import SMOLLM2
from rag.types import Ask
from rag.workspace import disk_errors
from ui.app.lesson_parts import AT_ONCE, LessonParts, LessonProgress, Working

if TYPE_CHECKING:
    from rag.tracing.trace_store import Trace

PAGES, PAGE = 20, 200
"""The pages of the newest answered traces, and their size, among which good ones are looked for."""
SPARE = 1.5
"""Questions that are written for every answer that is wanted: some have no good answer."""
_ASKED, _QUESTIONS = "asked", "questions.json"
_PEOPLE = ("chat", "api", "command")


class Rehearsal:
    """Collects the answers of a lesson."""

    def __init__(self, parts: LessonParts, working: Working) -> None:
        self._parts = parts
        self._working = working
        self._folder = working.folder

    async def collect(self) -> None:
        """Write the data of the lesson, and let it go on to the training.

        Raises:
            LessonStopped: A stop was requested.
            TuningError: The model has hardly a good answer.
            RagsmithError: A part is missing.
        """
        lesson = self._folder.lesson
        corrections = _lines(self._folder.data / f"{CORRECTIONS}{SUFFIX}")
        wanted = wanted_kept(len(corrections))
        self._working.on_progress(LessonProgress("collecting good answers", 0, wanted))
        kept = await asyncio.to_thread(lambda: list(islice(self._known_rows(lesson), wanted)))
        kept += _lines(self._folder.data / f"{_ASKED}{SUFFIX}")
        if len(kept) < wanted:
            kept += await self._asked(lesson, kept, wanted)
        write_lesson_data(self._folder.data, corrections, kept[:wanted])
        self._folder.change(state="training", kept=len(_lines(self._folder.data / f"{KEPT}{SUFFIX}")))

    def _known_rows(self, lesson: Lesson) -> Iterator[str]:
        """Yield the rows of earlier lessons of this adapter, then of good answers, the newest first."""
        earlier = (one for taught in lineage(self._folder.path.parent, lesson.adapter) for one in taught.traces)
        traces = self._parts.stores.traces
        learnt = [traces.get(one.id) for one in traces.brief(tuple(earlier))]
        yield from correction_rows(learnt, lesson.model).lines
        before: float | None = None
        for _ in range(PAGES):
            page = traces.list(limit=PAGE, before=before, status="ok").traces
            for found in page:
                if found.purpose in _PEOPLE and found.model == lesson.model and found.id not in lesson.traces:
                    trace = traces.get(found.id)
                    if is_kept(trace, lesson.model, lesson.adapter):
                        yield kept_row(trace)
            if len(page) < PAGE:
                return
            before = page[-1].started

    async def _asked(self, lesson: Lesson, kept: list[str], wanted: int) -> list[str]:
        """Ask questions until enough answers are good; what was asked survives a crash."""
        file = self._folder.data / f"{_ASKED}{SUFFIX}"
        before, rows = _lines(file), []
        missing = wanted - len(kept)
        questions = await self._questions(lesson, missing)
        began, done = time.monotonic(), 0
        for at in range(0, len(questions), AT_ONCE):
            self._working.check_stop()
            traces = await asyncio.gather(*(self._answer(lesson, one) for one in questions[at : at + AT_ONCE]))
            done += len(traces)
            rows += [kept_row(trace) for trace in traces if is_kept(trace, lesson.model, lesson.adapter)]
            write_rows(file, [*before, *rows])
            _write_left(self._folder.data, questions[at + AT_ONCE :])
            pace = (time.monotonic() - began) / done
            left = min(pace * SPARE * max(missing - len(rows), 0), pace * (len(questions) - done))
            self._working.on_progress(LessonProgress("asking questions to rehearse", len(rows), missing, left))
            if len(rows) >= missing:
                break
        return rows

    async def _questions(self, lesson: Lesson, missing: int) -> list[str]:
        """Return questions to rehearse, written about the corpus; else those of the dataset.

        Of the latter, the evaluation cannot see what the adapter forgets.
        """
        stored = self._folder.data / _QUESTIONS
        if stored.is_file():
            found: list[str] = json.loads(stored.read_text(encoding="utf-8"))
            return found
        count = max(int(missing * SPARE), missing + AT_ONCE)
        cases = self._parts.evaluations.datasets.cases(self._parts.evaluations.datasets.resolve(lesson.dataset))
        asked = [case.question for case in cases if not case.must_refuse and not case.history]
        if lesson.model == SMOLLM2:
            written = await asyncio.to_thread(self._written_questions, lesson, count, frozenset(asked))
        else:
            written = asked[:count]
        _write_left(self._folder.data, written)
        return written

    def _written_questions(self, lesson: Lesson, count: int, known: frozenset[str]) -> list[str]:
        from rag.evaluation.candidates import draw_passages, propose
        from ui.app.proposing import BATCH, question_model, question_writer

        model, prompt = (
            question_model(self._parts.models, self._parts.settings),
            self._parts.stores.prompt("write-question"),
        )
        passages = draw_passages(self._parts.stores.engine, self._parts.stores.index(lesson.corpus).id)
        found: list[str] = []
        began = time.monotonic()
        try:
            for case in propose(passages, question_writer(prompt, model), BATCH):
                self._working.check_stop()
                if case.question not in known:
                    found.append(case.question)
                    self._working.on_progress(LessonProgress("writing questions to rehearse", len(found), count))
                if len(found) >= count:
                    break
        finally:
            self._spent(lesson, prompt.label, time.monotonic() - began)
        return found

    def _spent(self, lesson: Lesson, prompt: str, seconds: float) -> None:
        """Add the seconds of the questions to the ledger; answers are traces, and the training adds its own."""
        from rag.tracing.ledger import Expense

        prices = self._parts.stores.prices
        cost, day = prices.seconds_usd(seconds), prices.checked.isoformat()
        self._parts.stores.ledger.add(
            Expense("training", lesson.name, "propose", SMOLLM2, day, cost, seconds, prompt=prompt)
        )

    async def _answer(self, lesson: Lesson, question: str) -> Trace:
        ask = Ask(question, corpus=lesson.corpus, conversation_id=lesson.name, purpose="evaluation")
        answer = await self._parts.releases.assistant().start(ask).answer()
        return await asyncio.to_thread(self._parts.stores.traces.get, answer.trace_id)


def _write_left(folder: Path, questions: list[str]) -> None:
    """Store the questions that are still to be asked."""
    from prompts.files import atomic_write

    with disk_errors(f"write {folder}"), atomic_write(folder / _QUESTIONS) as file:
        file.write(json.dumps(questions).encode())


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
