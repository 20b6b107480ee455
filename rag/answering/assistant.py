"""The path from a question to its answer, for page, API, command line, lab and evaluation.

    stream = assistant.start(Ask("What is a release?"))
    async for event in stream:
        ...

Closing the stream stops the work, which is traced up to that moment.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from rag.answering.answer_gate import Gate, OpenGate, Place
from rag.answering.answer_stream import AnswerStream
from rag.errors import BudgetSpent, ModelLimited, NoAnswer, QuestionTooLong, RagsmithError, StorageFull, StoreError
from rag.redaction import redact
from rag.retrieval.question_limit import check_question
from rag.tracing.budget import Budget, NoBudget
from rag.tracing.code_version import code_version
from rag.tracing.trace_types import Span, Status, Trace
from rag.types import Answer, Ask, Cited, Done, Event, Started, Turn, whole

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from rag.answering.release import Release
    from rag.tracing.cost import PriceList

_log = logging.getLogger(__name__)

# Maximum earlier turns; no step reads more, but a trace stores all of them.
LATEST_TURNS = 20
# Maximum length of an earlier answer, as a multiple of the maximum length of a question.
ANSWER_TIMES = 4

Emit = Callable[[Event], None]


@dataclass(frozen=True)
class Pipeline:
    """A release, ready to answer."""

    release: Release
    chain: Runnable[Ask, Answer]


class TraceSink(Protocol):
    """Storage for traces, such as ``rag.tracing.trace_store.TraceStore``."""

    def begin(self, trace: Trace) -> None:
        """Store the trace of a question that is being answered."""
        ...

    def save_span(self, trace_id: str, span: Span) -> None:
        """Store a finished step of it."""
        ...

    def finish(self, trace: Trace) -> None:
        """Store the trace of a question that was answered, failed or cancelled."""
        ...


@dataclass(frozen=True)
class Assistant:
    """Runs the chain.

    Attributes:
        pipeline: Returns the pipeline of a corpus; may take seconds the first time.
        traces: Stores every question when it is asked, its steps as they finish, and its end before the answer is
            reported as done.
        prices: What tokens and seconds cost.
        on_traced: Called after a trace was written, with the trace; None if it could not be stored.
        question_chars: Maximum characters of a question. Earlier questions are truncated to that length, earlier
            answers to four times that length. None for no limit.
        gate: Admits questions.
        budget: Refuses questions once it is spent, and adds a notice to answers before.
    """

    pipeline: Callable[[str], Pipeline]
    traces: TraceSink
    prices: PriceList
    on_traced: Callable[[Trace | None], None] = field(default=lambda _: None)
    question_chars: int | None = None
    gate: Gate = field(default_factory=OpenGate)
    budget: Budget = field(default_factory=NoBudget)

    def start(self, ask: Ask) -> AnswerStream:
        """Start to answer a question; requires a running loop.

        Returns:
            The events, from ``Started`` to ``Done``; a failure is a ``Done`` with the status ``failed``. For a
            question that is too long, or that no budget is left for, there is no trace, and both have an empty
            trace id.

        Raises:
            Busy: Too many questions are waiting.
        """
        place = self.gate.enter()
        return AnswerStream(lambda emit: self._work(ask, place, emit), on_end=place.leave)

    async def _work(self, ask: Ask, place: Place, emit: Emit) -> None:
        await place.turn()
        try:
            if self.question_chars is not None:
                check_question(ask.question, self.question_chars)
            if self.budget.is_limited:
                await asyncio.to_thread(self.budget.check, ask.conversation_id)
        except (QuestionTooLong, BudgetSpent, StoreError) as error:
            emit(Started(""))
            emit(Done(Answer("", "failed", error=str(error))))
            return
        ask = _readable(ask, self.question_chars)
        record = _Record(self.traces, ask)
        emit(Started(record.id))
        try:
            record.open()
        except (StoreError, StorageFull) as error:
            # An answer without a trace is not given.
            emit(Done(Answer("", "failed", trace_id=record.id, error=str(error))))
            return
        started = time.perf_counter()
        try:
            answer = await self._run(ask, record, emit)
        except ModelLimited as error:
            answer = Answer("", "failed", error=str(error), limited=True, limited_s=error.after_s)
        except NoAnswer as error:
            answer = Answer("", "failed", error=str(error), filtered=error.filtered)
        except RagsmithError as error:
            answer = Answer("", "failed", error=str(error))
        except Exception as error:  # noqa: BLE001 - the page needs an answer in any case
            _log.exception("The chain failed")
            answer = Answer("", "failed", error=f"This is a bug in ragsmith: {type(error).__name__}: {error}.")
        except BaseException:
            # Cancelled by the stop button, a closed page or Ctrl-C.
            self._close(record, "cancelled")
            raise
        self._close(record, "filtered" if answer.filtered else "error", answer.error)
        if not answer.latency_s:
            answer = replace(answer, latency_s=time.perf_counter() - started)
        for citation in answer.citations:
            emit(Cited(citation))
        notice = await asyncio.to_thread(self._notice, ask) if self.budget.is_limited else ""
        emit(Done(replace(answer, trace_id=record.id, budget=notice)))

    async def _run(self, ask: Ask, record: _Record, emit: Emit) -> Answer:
        pipeline = await asyncio.to_thread(self.pipeline, ask.corpus)
        from rag.answering.answer_tracer import AnswerTracer
        from rag.models.request_retries import PACED

        release = pipeline.release
        answer = await pipeline.chain.ainvoke(
            ask,
            config={
                "run_id": uuid.UUID(record.id),
                "callbacks": [AnswerTracer(record, self.prices, emit)],
                "metadata": {
                    "corpus": release.corpus,
                    "model": release.model,
                    "prompt": release.prompt,
                    "prompt_sha256": release.prompt_sha256,
                    "release": release.name,
                    "conversation_id": ask.conversation_id or "",
                    "purpose": ask.purpose,
                    "user": ask.user,
                    "replay_of": ask.replay_of,
                    PACED: ask.paced,
                },
            },
        )
        if record.saved is None:
            return answer
        return replace(answer, latency_s=record.saved.latency_s or 0.0, cost_usd=record.saved.cost_usd)

    def _notice(self, ask: Ask) -> str:
        try:
            return self.budget.warning(ask.conversation_id)
        except StoreError as error:
            _log.warning("The budget could not be read: %s", error)
            return ""

    def _close(self, record: _Record, status: Status, error: str = "") -> None:
        record.close(status, error)
        self.budget.spent()
        try:
            self.on_traced(record.saved)
        except Exception as failure:  # noqa: BLE001 - a failing listener must not affect the answer
            _log.warning("The trace listener failed: %s", failure)


class _Record:
    """The trace of one question, stored from its start to its end."""

    def __init__(self, sink: TraceSink, ask: Ask) -> None:
        self.id = str(uuid.uuid4())
        self.saved: Trace | None = None
        self._ended = False
        self._sink = sink
        self._running = Trace(
            id=self.id,
            started=time.time(),
            status="running",
            question=redact(ask.question).replace("\x00", "\ufffd"),
            corpus=ask.corpus,
            conversation_id=ask.conversation_id or "",
            purpose=ask.purpose,
            user_name=redact(ask.user),
            replay_of=ask.replay_of or None,
            code=code_version(),
        )

    def open(self) -> None:
        """Store the start of the question.

        Raises:
            StoreError: The database refuses.
            StorageFull: The disk is full.
        """
        self._sink.begin(self._running)

    def save_span(self, trace_id: str, span: Span) -> None:
        """Store a finished step of the chain."""
        self._sink.save_span(trace_id, span)

    def save(self, trace: Trace) -> None:
        """Store the trace of a finished chain."""
        # Set first, so that a failing store is not waited for again.
        self._ended = True
        self._sink.finish(trace)
        self.saved = trace

    def close(self, status: Status, error: str = "") -> None:
        """Store the end of a question without a trace by the chain."""
        if self._ended:
            return
        took = time.time() - self._running.started
        try:
            self.save(replace(self._running, status=status, error=error, latency_s=took))
        except Exception as failure:  # noqa: BLE001 - a failing store must not affect the answer
            _log.warning("Trace %s could not be stored: %s", self.id, failure)


def _readable(ask: Ask, limit: int | None) -> Ask:
    longest = None if limit is None else ANSWER_TIMES * limit
    history = tuple(
        Turn(whole(turn.question[:limit]), whole(turn.answer[:longest])) for turn in ask.history[-LATEST_TURNS:]
    )
    return replace(ask, question=whole(ask.question), history=history)
