"""One trace as HTML: its head, and its steps as a tree or along time. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from rag.redaction import JSON
from rag.tracing.figures import format_cost, format_seconds, format_tokens
from rag.tracing.trace_query import Neighbours
from rag.tracing.trace_store import Span, Trace
from ui.pages.safe_markup import fragment
from ui.pages.traces.list_state import STEP_VIEWS, ListState
from ui.pages.traces.list_view import clock
from ui.pages.traces.rating_form import LONGEST
from ui.pages.traces.step_views import MODELS, Journey, StepView, journey_of, step_view

SHOWN_JSON = 4_000
"""Characters of one input or output in the page; the rest is a click away."""
SHOWN_TEXT = 20_000
"""Characters of a message or a variable in the page."""
DEEPEST_INDENT = 12
"""Levels of the tree that are indented; deeper ones have the indent of the last one."""

_MARKER = re.compile(r"\[(\d{1,3})\]")
# Shares of the trace from which a step is marked as warm and hot.
_WARM, _HOT = 0.2, 0.5


@dataclass(frozen=True, slots=True)
class Data:
    """An input, an output or the attributes of a step as JSON, without the last ``left_out`` characters."""

    title: str
    json: str
    left_out: int
    href: str


@dataclass(frozen=True, slots=True)
class Step:
    """A span with what the page shows of it.

    Attributes:
        facts: Its time, tokens and cost, each empty where it has none.
        left, width: Of its bar in time, in percent of the trace.
        cost: Its share of the cost, in percent; 0 where nothing is known.
        heat, cost_heat: ``hot``, ``warm`` or ``cool`` by the share of its own time and cost, without its children.
    """

    span: Span
    depth: int
    left: float
    width: float
    cost: float
    heat: str
    cost_heat: str
    facts: tuple[str, str, str]
    data: tuple[Data, ...]
    view: StepView


@dataclass(frozen=True, slots=True)
class Head:
    """What stands above the steps.

    Attributes:
        facts: Names and values; a value without a name speaks for itself.
        answer: Pieces of the answer, each with the number of the marker behind it, which leads to its passage.
    """

    facts: tuple[tuple[str, str], ...]
    answer: tuple[tuple[str, int], ...]


def trace_html(trace: Trace, neighbours: Neighbours | None = None, state: ListState | None = None) -> str:
    """Render a trace with all its steps.

    Args:
        neighbours: The traces before and behind it in the list.
        state: Of the tab: how the steps are shown, and whether a trace waits to be compared.
    """
    journey = journey_of(trace)
    return fragment(
        "traces_trace.html.jinja",
        trace=trace,
        head=Head(tuple(_facts(trace)), tuple(_pieces(trace.answer, journey))),
        steps=list(_steps(trace, journey)),
        neighbours=neighbours or Neighbours(),
        state=state or ListState(),
        views=STEP_VIEWS,
        raw=raw_url(trace.id),
        shown_text=SHOWN_TEXT,
        longest=LONGEST,
    )


def raw_url(trace_id: str, position: int | None = None, part: str = "") -> str:
    """Return the address of a stored trace, or of one value of it, as JSON."""
    place = "" if position is None else f"/{position}/{part}"
    return f"/traces/{quote(trace_id, safe='')}{place}"


def _facts(trace: Trace) -> Iterator[tuple[str, str]]:
    yield "", clock(trace.started)
    yield "", "running" if trace.latency_s is None else format_seconds(trace.latency_s)
    if trace.first_token_s is not None:
        yield "first token", format_seconds(trace.first_token_s)
    yield "", format_tokens(trace.input_tokens, trace.output_tokens, split=True)
    if trace.cached_tokens:
        yield "cached", f"{trace.cached_tokens:,} tok"
    yield "", format_cost(trace.cost_usd)
    if trace.saved_usd:
        yield "saved", format_cost(trace.saved_usd)
    for name in ("prompt", "model", "corpus", "release", "purpose"):
        yield name, getattr(trace, name)
    yield "user", trace.user_name
    yield "prices of", trace.prices
    yield "version", trace.code


def _pieces(answer: str, journey: Journey) -> Iterator[tuple[str, int]]:
    """Yield the answer in pieces; a marker without a passage in the prompt stays text."""
    known = range(1, len(journey.hits or ()) + 1)
    end = 0
    for found in _MARKER.finditer(answer):
        if int(found[1]) in known:
            yield answer[end : found.start()], int(found[1])
            end = found.end()
    yield answer[end:], 0


def _steps(trace: Trace, journey: Journey) -> Iterator[Step]:
    ends = (span.ended or span.started for span in trace.spans)
    total = trace.latency_s or max((end - trace.started for end in ends), default=0.0)
    known = {span.id for span in trace.spans}
    children: dict[str | None, list[Span]] = {}
    for span in trace.spans:
        # A step whose parent was never stored is shown at the top level.
        parent = span.parent_id if span.parent_id in known else None
        children.setdefault(parent, []).append(span)
    waiting = [(span, 0) for span in reversed(children.get(None, []))]
    visited: set[str] = set()
    while waiting:
        span, depth = waiting.pop()
        if span.id in visited:
            continue
        visited.add(span.id)
        yield _step(span, depth, trace, total, children, journey)
        waiting += [(child, depth + 1) for child in reversed(children.get(span.id, []))]


def _step(
    span: Span,
    depth: int,
    trace: Trace,
    total: float,
    children: Mapping[str | None, Sequence[Span]],
    journey: Journey,
) -> Step:
    took = _seconds(span)
    below = children.get(span.id, ())
    own = (took or 0.0) - sum(_seconds(child) or 0.0 for child in below)
    spent = span.cost_usd or 0.0
    own_cost = spent - sum(child.cost_usd or 0.0 for child in below)
    left = _share(span.started - trace.started, total)
    time = format_seconds(took) if took is not None else "not finished"
    counted = span.input_tokens is not None or span.output_tokens is not None
    tokens = format_tokens(span.input_tokens, span.output_tokens, split=True) if counted else ""
    # Only models have a cost: "unknown" would be misleading for other steps.
    cost = format_cost(span.cost_usd) if span.cost_usd is not None or span.kind in MODELS else ""
    return Step(
        span,
        min(depth, DEEPEST_INDENT),
        left,
        min(max(_share(took or 0.0, total), 0.5), 100 - left),
        _share(spent, trace.cost_usd or 0.0),
        _heat(own, total),
        _heat(own_cost, trace.cost_usd or 0.0),
        (time, tokens, cost),
        tuple(_all_data(trace.id, span)),
        step_view(span, journey),
    )


def _all_data(trace_id: str, span: Span) -> Iterator[Data]:
    for title, value in (("Input", span.input), ("Output", span.output), ("Attributes", dict(span.attributes))):
        if title != "Attributes" or value:
            text = as_text(value)
            href = raw_url(trace_id, span.position, title.lower())
            yield Data(title, text[:SHOWN_JSON], max(len(text) - SHOWN_JSON, 0), href)


def as_text(value: JSON) -> str:
    """Return JSON as it is shown."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _seconds(span: Span) -> float | None:
    return None if span.ended is None else max(span.ended - span.started, 0.0)


def _share(part: float, total: float) -> float:
    return min(max(part / total * 100, 0.0), 99.5) if total > 0 else 0.0


def _heat(part: float, total: float) -> str:
    share = part / total if total > 0 else 0.0
    return "hot" if share >= _HOT else "warm" if share >= _WARM else "cool"
