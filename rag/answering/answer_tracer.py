"""The callback handler of the chain, which emits events and saves the trace."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from langchain_core.tracers.schemas import Run

from rag.answering.steps import FilledPrompt
from rag.tracing.cost import PriceList
from rag.tracing.trace_store import Trace
from rag.tracing.tracer import TraceTracer
from rag.types import STEPS, Event, Retrieved, StepFinished, StepStarted, Token, whole


class AnswerTracer(TraceTracer):
    """Traces one answer and reports its steps, passages and tokens.

    Args:
        save: Stores the finished trace.
        prices: What tokens and seconds cost.
        emit: Called with every event.
    """

    def __init__(self, save: Callable[[Trace], None], prices: PriceList, emit: Callable[[Event], None]) -> None:
        super().__init__(save, prices)
        self._emit = emit
        self._started: dict[Any, float] = {}

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
        step = self.run_map.get(str(run.parent_run_id))
        if step is not None and step.name == "generate" and token:
            self._emit(Token(whole(str(token))))
