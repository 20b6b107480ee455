"""The callback handler of the chain, which emits events and saves the trace."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from langchain_core.tracers.schemas import Run

from rag.answering.steps import FilledPrompt
from rag.models.thoughts import ThoughtFilter
from rag.tracing.cost import PriceList
from rag.tracing.trace_types import Span, Trace
from rag.tracing.tracer import TraceTracer
from rag.types import STEPS, Event, Retrieved, StepFinished, StepStarted, Token, whole


class Record(Protocol):
    """Storage for the trace of one answer."""

    def save(self, trace: Trace) -> None:
        """Store the finished trace."""
        ...

    def save_span(self, trace_id: str, span: Span) -> None:
        """Store a finished step."""
        ...


class AnswerTracer(TraceTracer):
    """Traces one answer and reports its steps, passages and tokens.

    Args:
        record: Stores the trace.
        prices: What tokens and seconds cost.
        emit: Called with every event.
    """

    def __init__(self, record: Record, prices: PriceList, emit: Callable[[Event], None]) -> None:
        super().__init__(record.save, prices, record.save_span)
        self._emit = emit
        self._started: dict[Any, float] = {}
        self._thoughts: dict[Any, ThoughtFilter] = {}

    def _on_chain_start(self, run: Run) -> None:
        if run.name in STEPS:
            self._started[run.id] = time.perf_counter()
            self._emit(StepStarted(run.name))

    def _on_chain_end(self, run: Run) -> None:
        for step in STEPS:
            if step == run.name:
                self._emit(StepFinished(step, time.perf_counter() - self._started.pop(run.id)))
        filled = (run.outputs or {}).get("output")
        if isinstance(filled, FilledPrompt):
            self._emit(Retrieved(filled.hits))

    def _on_llm_new_token(self, run: Run, token: str | list[Any], chunk: object) -> None:
        if not self._writes_answer(run) or not token:
            return
        text = whole(str(token))
        if not _quotes(chunk):
            text = self._thoughts.setdefault(run.id, ThoughtFilter()).feed(text)
        self._emit_token(text)

    def _on_llm_end(self, run: Run) -> None:
        if thoughts := self._thoughts.pop(run.id, None):
            self._emit_token(thoughts.end())

    def _on_llm_error(self, run: Run) -> None:
        self._on_llm_end(run)

    def _emit_token(self, text: str) -> None:
        if text:
            self._emit(Token(text))

    def _writes_answer(self, run: Run) -> bool:
        step = self.run_map.get(str(run.parent_run_id))
        return step is not None and step.name == "generate"


def _quotes(chunk: object) -> bool:
    return bool(getattr(getattr(chunk, "message", None), "quotes", False))
