"""Answers a question, telling what happens while it happens.

    async for event in assistant.answer(Ask("What is a release?")):
        ...

Closing the iterator, or cancelling the task that reads it, stops the work; what was done until then is traced.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from rag.errors import QuestionTooLong, RagsmithError, StoreError
from rag.redaction import redact
from rag.retrieval.question_limit import check_question
from rag.tracing.trace_store import Status, Trace
from rag.types import (
    STEPS,
    Answer,
    Cited,
    Done,
    Event,
    Retrieved,
    Started,
    StepFinished,
    StepStarted,
    Token,
    Turn,
    whole,
)

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.runnables import Runnable

    from rag.answering.answer_gate import AnswerGate
    from rag.answering.chain import Draft
    from rag.answering.release import Release
    from rag.tracing.cost import PriceList
    from rag.types import Hit

_log = logging.getLogger(__name__)

# Earlier turns that are looked at, the latest: no step reads as many, and a trace keeps them all.
LATEST_TURNS = 20
# An earlier answer may be so many times as long as a question.
ANSWER_TIMES = 4


@dataclass(frozen=True, slots=True)
class Ask:
    """One question.

    Attributes:
        history: Earlier turns of the conversation, oldest first.
        corpus: Which corpus; empty for the one in the settings.
        conversation_id: What the trace belongs to, if anything.
        hits: What to answer from, in place of what a search would find; None searches.
    """

    question: str
    history: tuple[Turn, ...] = ()
    corpus: str = ""
    conversation_id: str | None = None
    hits: tuple[Hit, ...] | None = None


@dataclass(frozen=True)
class Pipeline:
    """A release, ready to answer."""

    release: Release
    chain: Runnable[Draft, Answer]


class TraceSink(Protocol):
    """Where traces go: ``rag.tracing.trace_store.TraceStore``."""

    def begin(self, trace: Trace) -> None:
        """A question is being answered."""
        ...

    def save(self, trace: Trace) -> None:
        """It was answered, failed or was stopped."""
        ...


@dataclass(frozen=True)
class Assistant:
    """Runs the chain and turns its callbacks into events.

    Attributes:
        pipeline: Gives the pipeline of a corpus; may take seconds the first time.
        traces: Where every answer is written before it is called done.
        prices: What tokens and seconds cost.
        on_traced: Called after a trace was written.
        question_chars: Characters that a question may have; of earlier turns, the question is cut to as many and
            the answer to four times as many. None for no limit.
        gate: Limits how many answers are written at the same time; None for no limit.
    """

    pipeline: Callable[[str], Pipeline]
    traces: TraceSink
    prices: PriceList
    on_traced: Callable[[], None] = field(default=lambda: None)
    question_chars: int | None = None
    gate: AnswerGate | None = None

    def answer(self, ask: Ask) -> AsyncIterator[Event]:
        """Answer one question, when its turn has come; its place is taken at once.

        Args:
            ask: The question and its conversation.

        Yields:
            ``Started`` first and ``Done`` last; every failure that a person can fix is a ``Done`` with the
            status ``failed``. A question that is too long has no trace, and both name none.

        Raises:
            Busy: The gate has no place left, not even for waiting.
        """
        events = self._answer(ask)
        return self.gate.admit(events) if self.gate else events

    async def _answer(self, ask: Ask) -> AsyncIterator[Event]:
        limit = self.question_chars
        if limit is not None:
            try:
                check_question(ask.question, limit)
            except QuestionTooLong as error:
                yield Started("")
                yield Done(Answer("", "failed", error=str(error)))
                return
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        work = asyncio.create_task(self._work(_readable(ask, limit), events))
        # However the work ends, nobody waits for more.
        work.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def _work(self, ask: Ask, events: asyncio.Queue[Event | None]) -> None:
        record = _Record(self.traces, ask)
        events.put_nowait(Started(record.id))
        try:
            record.open()
        except StoreError as error:
            # A store that cannot be written now would be waited for again at every further write.
            events.put_nowait(Done(Answer("", "failed", trace_id=record.id, error=str(error))))
            return
        started = time.perf_counter()
        try:
            answer = await self._run(ask, record, events)
        except RagsmithError as error:
            answer = Answer("", "failed", error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page needs an answer
            _log.exception("The chain failed")
            answer = Answer("", "failed", error=f"This is a bug in ragsmith: {type(error).__name__}: {error}.")
        except BaseException:
            # Stopped from outside: the stop button, a closed page, Ctrl-C.
            record.close("cancelled")
            self._tell()
            raise
        record.close("error", answer.error)
        self._tell()
        if not answer.latency_s:
            answer = replace(answer, latency_s=time.perf_counter() - started)
        for citation in answer.citations:
            events.put_nowait(Cited(citation))
        events.put_nowait(Done(replace(answer, trace_id=record.id)))

    def _tell(self) -> None:
        try:
            self.on_traced()
        except Exception as error:  # noqa: BLE001 - whoever is told must not keep the answer back
            _log.warning("Nobody could be told of a trace: %s", error)

    async def _run(self, ask: Ask, record: _Record, events: asyncio.Queue[Event | None]) -> Answer:
        pipeline = await asyncio.to_thread(self.pipeline, ask.corpus)
        from rag.answering.chain import Draft, part_of
        from rag.tracing.tracer import TraceTracer, as_json

        release = pipeline.release
        tracer = TraceTracer(
            save=record.save,
            begin=record.begin,
            prices=self.prices,
            view=lambda name, side, value: as_json(name, side, part_of(name, side, value)),
        )
        answer = await pipeline.chain.ainvoke(
            Draft(ask.question, ask.history, fixed=ask.hits),
            config={
                "run_id": uuid.UUID(record.id),
                "callbacks": [tracer, _listener(events)],
                "metadata": {
                    "corpus": release.corpus,
                    "model": release.model,
                    "prompt": release.prompt,
                    "prompt_sha256": release.prompt_sha256,
                    "release": release.name,
                    "conversation_id": ask.conversation_id or "",
                },
            },
        )
        if record.saved is None:
            return answer
        return replace(answer, latency_s=record.saved.latency_s or 0.0, cost_usd=record.saved.cost_usd)


class _Record:
    """The trace of one question, from the moment it was asked: also where its chain cannot be made, or is
    stopped before it begins. As soon as the chain runs, its tracer writes here.
    """

    def __init__(self, sink: TraceSink, ask: Ask) -> None:
        self.id = str(uuid.uuid4())
        self.saved: Trace | None = None
        self._sink = sink
        self._traced = False
        self._asked = Trace(
            id=self.id,
            started=time.time(),
            status="running",
            question=redact(ask.question).replace("\x00", "\ufffd"),
            corpus=ask.corpus,
            conversation_id=ask.conversation_id or "",
        )

    def open(self) -> None:
        """Note that the question was asked.

        Raises:
            StoreError: The database refuses.
        """
        self._sink.begin(self._asked)

    def begin(self, trace: Trace) -> None:
        """The chain runs, and its tracer keeps the trace from here on."""
        self._traced = True
        self._sink.begin(trace)

    def save(self, trace: Trace) -> None:
        """The chain has ended."""
        self._sink.save(trace)
        self.saved = trace

    def close(self, status: Status, error: str = "") -> None:
        """End a trace that no tracer has taken over."""
        if not self._traced:
            took = time.time() - self._asked.started
            self._write(self._sink.save, replace(self._asked, status=status, error=error, latency_s=took))

    def _write(self, write: Callable[[Trace], None], trace: Trace) -> None:
        try:
            write(trace)
        except Exception as error:  # noqa: BLE001 - a trace that cannot be kept must not keep the answer back
            _log.warning("Trace %s could not be kept: %s", self.id, error)


def _readable(ask: Ask, limit: int | None) -> Ask:
    longest = None if limit is None else ANSWER_TIMES * limit
    history = tuple(
        Turn(whole(turn.question[:limit]), whole(turn.answer[:longest])) for turn in ask.history[-LATEST_TURNS:]
    )
    return replace(ask, question=whole(ask.question), history=history)


def _listener(events: asyncio.Queue[Event | None]) -> BaseCallbackHandler:
    """A callback handler that puts what happens in the chain on the queue."""
    from langchain_core.callbacks import BaseCallbackHandler

    from rag.answering.chain import Draft

    class Listener(BaseCallbackHandler):
        # On the event loop and in order, not in a thread of the pool.
        run_inline = True

        def __init__(self) -> None:
            self.steps: dict[uuid.UUID, tuple[str, float]] = {}

        def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: uuid.UUID, **kwargs: Any) -> None:
            name = kwargs.get("name")
            if name in STEPS:
                self.steps[run_id] = (name, time.perf_counter())
                events.put_nowait(StepStarted(name))

        def on_chain_end(self, outputs: Any, *, run_id: uuid.UUID, **kwargs: Any) -> None:
            name, started = self.steps.pop(run_id, ("", 0.0))
            for step in STEPS:
                if step == name:
                    events.put_nowait(StepFinished(step, time.perf_counter() - started))
            if name == "prompt" and isinstance(outputs, Draft):
                events.put_nowait(Retrieved(outputs.hits))

        def on_llm_new_token(
            self, token: Any, *, run_id: uuid.UUID, parent_run_id: uuid.UUID | None = None, **kwargs: Any
        ) -> None:
            name, _ = self.steps.get(parent_run_id, ("", 0.0)) if parent_run_id else ("", 0.0)
            if name == "generate" and token:
                events.put_nowait(Token(whole(str(token))))

    return Listener()
