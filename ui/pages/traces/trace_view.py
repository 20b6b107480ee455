"""Traces as HTML: the list, and the steps of one trace as a tree. Pure functions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from rag.evaluation.report_rendering import shortened
from rag.redaction import JSON
from rag.tracing.figures import format_cost, format_place, format_seconds, format_tokens
from rag.tracing.trace_store import Span, Trace, TracePage
from ui.pages.chat.answer_html import is_markdown
from ui.pages.safe_markup import fragment, note, passage_html

SHOWN_JSON = 20_000
"""Characters of one input or output; more makes the browser slow, and nobody reads it."""

DEEPEST_INDENT = 12
"""Levels of the tree that are indented; deeper ones have the indent of the last one."""

_FAULTS = {
    "number": "number not in the sources",
    "name": "name not in the sources",
    "negation": "negation differs from the sources",
    "words": "words not in the sources",
    "echo": "says nothing",
}

NO_TRACES = "No matching traces. Ask a question in the chat, or change the filter."


@dataclass(frozen=True, slots=True)
class Row:
    """A trace in the list."""

    trace: Trace
    question: str
    said: str
    started: str
    day: str
    time: str
    tokens: str
    read_and_written: str
    cost: str


@dataclass(frozen=True, slots=True)
class Data:
    """An input, an output or the attributes of a step as JSON, without the last ``left_out`` characters."""

    title: str
    json: str
    left_out: int


@dataclass(frozen=True, slots=True)
class Step:
    """A span in the tree.

    Attributes:
        left, width: Of the bar, in percent of the trace.
        passages: Names and texts of what a search found, to be read.
        replaced: Sentences that failed the check of claims, their faults, and the quotations in their places.
    """

    span: Span
    depth: int
    left: float
    width: float
    facts: str
    data: tuple[Data, ...]
    passages: tuple[tuple[str, Markup], ...] = ()
    replaced: tuple[tuple[str, str, str], ...] = ()


def list_html(page: TracePage, first: int, chosen: str = "") -> str:
    """Render a page of the list.

    Args:
        first: Number of the first trace on the page, from 1.
        chosen: Id of the trace that is shown beside the list.
    """
    if not page.traces:
        return note(NO_TRACES)
    return fragment("traces_list.html.jinja", rows=rows_of(page), first=first, total=page.total, chosen=chosen)


def rows_of(page: TracePage) -> list[Row]:
    """Return the traces of a page as the list shows them."""
    now = time.time()
    return [_row(trace, now) for trace in page.traces]


def _row(trace: Trace, now: float) -> Row:
    read, written = trace.input_tokens, trace.output_tokens
    return Row(
        trace,
        question=shortened(trace.question, 200),
        said=shortened(trace.answer or trace.error, 200),
        started=clock(trace.started),
        day=_when(trace.started, now),
        time="" if trace.latency_s is None else format_seconds(trace.latency_s),
        tokens=format_tokens(read, written).removesuffix(" tok").removeprefix("tokens "),
        read_and_written=format_tokens(read, written, split=True),
        cost=format_cost(trace.cost_usd).removeprefix("cost "),
    )


def _when(started: float, now: float) -> str:
    """Format the time of a trace of today, else its day, with the year where that differs."""
    moment = datetime.fromtimestamp(started).astimezone()
    present = datetime.fromtimestamp(now).astimezone()
    if moment.date() == present.date():
        return moment.strftime("%H:%M")
    return moment.strftime("%d %b" if moment.year == present.year else "%b %Y")


def clock(seconds: float) -> str:
    """Format date and time in the time zone of this machine."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def trace_html(trace: Trace) -> str:
    """Render a trace with all its steps."""
    facts = (
        ("", clock(trace.started)),
        ("", "running" if trace.latency_s is None else format_seconds(trace.latency_s)),
        ("", format_tokens(trace.input_tokens, trace.output_tokens, split=True)),
        ("", format_cost(trace.cost_usd)),
        ("prompt", trace.prompt),
        ("model", trace.model),
        ("corpus", trace.corpus),
        ("release", trace.release),
    )
    return fragment("traces_trace.html.jinja", trace=trace, facts=facts, steps=list(_steps(trace)))


def _steps(trace: Trace) -> Iterator[Step]:
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
        yield _step(span, depth, trace.started, total)
        waiting += [(child, depth + 1) for child in reversed(children.get(span.id, []))]


def _step(span: Span, depth: int, began: float, total: float) -> Step:
    took = None if span.ended is None else max(span.ended - span.started, 0.0)
    left = _share(span.started - began, total)
    width = max(_share(took or 0.0, total), 0.5)
    facts = [format_seconds(took) if took is not None else "not finished"]
    if span.input_tokens is not None or span.output_tokens is not None:
        facts.append(format_tokens(span.input_tokens, span.output_tokens, split=True))
    # Only models have a cost: "unknown" would be misleading for other steps.
    if span.cost_usd is not None or span.kind in ("llm", "chat_model"):
        facts.append(format_cost(span.cost_usd))
    data = [_data("Input", span.input), _data("Output", span.output)]
    if span.attributes:
        data.append(_data("Attributes", dict(span.attributes)))
    indent = min(depth, DEEPEST_INDENT)
    return Step(
        span,
        indent,
        left,
        min(width, 100 - left),
        " · ".join(facts),
        tuple(data),
        tuple(_passages(span)),
        tuple(_replaced(span)),
    )


def _passages(span: Span) -> Iterator[tuple[str, Markup]]:
    """Yield what a search found; nothing where its output has another form, as in a trace of an older version."""
    hits = span.output.get("hits") if span.name == "retrieve" and isinstance(span.output, dict) else None
    for hit in hits if isinstance(hits, list) else ():
        match hit:
            case {"passage": {"name": str(name), "source": str(source), "text": str(text), **rest}}:
                page = rest.get("page")
                place = format_place(name, page if isinstance(page, int) else None)
                yield place, passage_html(text, 0, 0, formatted=is_markdown(source))


def _replaced(span: Span) -> Iterator[tuple[str, str, str]]:
    """Yield the sentences that failed the check; nothing where the output is that of an older version."""
    faults = span.output.get("replaced") if span.name == "ground" and isinstance(span.output, dict) else None
    for fault in faults if isinstance(faults, list) else ():
        match fault:
            case {"sentence": str(sentence), "kind": str(kind), "words": list(words), **rest}:
                about = "" if kind == "echo" else f": {', '.join(map(str, words))}"
                yield sentence, f"{_FAULTS.get(kind, kind)}{about}", str(rest.get("quotation") or "")


def _share(seconds: float, total: float) -> float:
    return min(max(seconds / total * 100, 0.0), 99.5) if total > 0 else 0.0


def _data(title: str, value: JSON) -> Data:
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return Data(title, text[:SHOWN_JSON], max(len(text) - SHOWN_JSON, 0))
