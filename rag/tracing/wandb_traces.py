"""Conversion of traces for W&B: tree of spans, scalars, and row in the table of answers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from rag.redaction import JSON
from rag.tracing.trace_store import Span, Trace
from rag.tracing.trace_types import rooted_spans

# The tree of a trace is one line of the run's history, which W&B's server limits to some megabytes.
_MAX_TREE_CHARS = 2_000_000
_TREE_STRINGS = (4_000, 400, 40)
COLUMNS = (
    "question",
    "answer",
    "status",
    "latency_s",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "prompt",
    "release",
    "trace_id",
)


def trace_values(trace: Trace) -> dict[str, Any]:
    """Return the values of a trace for the history of a run, without unknown ones.

    The ids in the tree are the stored ones, so that repeated deliveries can be recognised.
    """
    from wandb.sdk.data_types.trace_tree import WBTraceTree

    numbers = {"latency_s": trace.latency_s, "cost_usd": trace.cost_usd}
    numbers |= {"tokens/input": trace.input_tokens, "tokens/output": trace.output_tokens}
    numbers |= {f"latency/{name}": seconds for name, seconds in step_seconds(trace).items()}
    known = {name: number for name, number in numbers.items() if number is not None}
    return {"trace": WBTraceTree(trace_tree(trace)), **known}


def trace_row(trace: Trace) -> tuple[Any, ...]:
    """Return the row of a trace in the table of answers."""
    texts = (clipped(trace.question, 1_000), clipped(trace.answer, 4_000))
    return (*texts, *(getattr(trace, name) for name in COLUMNS[2:-1]), trace.id)


def trace_tree(trace: Trace) -> Any:
    """Return W&B's tree of spans, with texts truncated depending on the size of the trace."""
    tree = None
    for limit in _TREE_STRINGS:
        tree = _Forest(trace, limit).root()
        if len(json.dumps(asdict(tree))) <= _MAX_TREE_CHARS:
            break
    return tree


class _Forest:
    """Converts the spans of a trace into W&B's tree."""

    def __init__(self, trace: Trace, limit: int) -> None:
        self._trace = trace
        self._limit = limit
        self._end = trace.started + (trace.latency_s or 0.0)
        self._spans = rooted_spans(trace)
        self._children: dict[str | None, list[Span]] = {}
        for span in self._spans:
            self._children.setdefault(span.parent_id, []).append(span)

    def root(self) -> Any:
        trace = self._trace
        root = self._node(self._spans[0])
        root.attributes |= {
            "status": trace.status,
            "trace_id": trace.id,
            "corpus": trace.corpus,
            "model": trace.model,
            "prompt": trace.prompt,
            "release": trace.release,
            "cost_usd": trace.cost_usd,
            "input_tokens": trace.input_tokens,
            "output_tokens": trace.output_tokens,
        }
        return root

    def _node(self, span: Span) -> Any:
        from wandb.sdk.data_types import trace_tree as wb

        kinds = {"llm": wb.SpanKind.LLM, "tool": wb.SpanKind.TOOL, "retriever": wb.SpanKind.TOOL}
        ended = max(self._end if span.ended is None else span.ended, span.started)
        return wb.Span(
            span_id=span.id,
            name=span.name,
            start_time_ms=round(span.started * 1000),
            end_time_ms=round(ended * 1000),
            status_code=wb.StatusCode.SUCCESS if span.status == "ok" else wb.StatusCode.ERROR,
            status_message=clipped(span.error, self._limit) or None,
            span_kind=kinds.get(span.kind, wb.SpanKind.CHAIN),
            attributes={
                "status": span.status,
                "cost_usd": span.cost_usd,
                "input_tokens": span.input_tokens,
                "output_tokens": span.output_tokens,
                **span.attributes,
            },
            results=[wb.Result(self._named("input", span.input), self._named("output", span.output))],
            child_spans=[self._node(child) for child in self._children.get(span.id, ())],
        )

    def _named(self, name: str, value: JSON) -> dict[str, JSON]:
        shown = clipped(value, self._limit)
        if shown is None:
            return {}
        return shown if isinstance(shown, dict) else {name: shown}


def clipped(value: JSON, limit: int) -> JSON:
    """Truncate all strings in ``value`` to ``limit`` characters, with a mark."""
    if isinstance(value, str) and len(value) > limit:
        return f"{value[:limit]}… [{len(value) - limit} characters left out]"
    if isinstance(value, list):
        return [clipped(item, limit) for item in value]
    if isinstance(value, dict):
        return {key: clipped(item, limit) for key, item in value.items()}
    return value


def step_seconds(trace: Trace) -> dict[str, float]:
    """Return the seconds by name of the step, without the root and spans named by LangChain."""
    seconds: Counter[str] = Counter()
    for span in trace.spans:
        if span.parent_id is not None and span.ended is not None and not span.name.startswith("Runnable"):
            seconds[span.name] += span.ended - span.started  # type: ignore[assignment]
    return dict(seconds)
