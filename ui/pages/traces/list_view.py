"""The list of traces as HTML, with its chips and counts. Pure functions."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rag.errors import FilterError, FilterSyntaxError, RagsmithError
from rag.evaluation.report_rendering import shortened
from rag.tracing.figures import format_cost, format_seconds, format_tokens
from rag.tracing.filter_fields import ANY_PURPOSE
from rag.tracing.saved_filters import SavedFilter
from rag.tracing.trace_filter import condition_on
from rag.tracing.trace_query import Listing
from rag.tracing.trace_series import Tails
from rag.tracing.trace_store import Trace
from ui.pages.safe_markup import fragment, note
from ui.pages.traces.list_state import RANGES, ListState, is_on, range_label

EVERY_PURPOSE = f"purpose = {ANY_PURPOSE}"
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
class Column:
    """A column of the list; ``order`` is ``ascending`` or ``descending`` where the list is sorted by it."""

    name: str
    label: str
    title: str
    css: str
    order: str = ""


@dataclass(frozen=True, slots=True)
class Chip:
    """A condition that a click adds to the filter or removes from it."""

    label: str
    filter: str
    on: bool


_COLUMNS = (
    Column("status", "", "status", "rs-status-col"),
    Column("question", "Question and answer", "question", "rs-question-col"),
    Column("started", "Started", "start", "rs-number-col"),
    Column("latency", "Time", "time", "rs-number-col"),
    Column("tokens", "Tokens", "tokens", "rs-number-col"),
    Column("cost", "Cost", "cost", "rs-cost-col"),
    Column("feedback", "", "feedback", "rs-thumb-col"),
    Column("release", "Release", "release", "rs-release-col"),
)

PLAIN_COLUMNS = tuple(replace(column, name="") for column in _COLUMNS)
"""The columns of a list that is not sorted by them."""


def list_html(traces: Sequence[Trace], state: ListState) -> str:
    """Render a page of the list."""
    if not traces:
        return note(NO_TRACES)
    return fragment(
        "traces_list.html.jinja", rows=rows_of(traces), columns=list(_columns(state.sort)), chosen=state.trace
    )


def count_html(listing: Listing, first: int) -> str:
    """Render how many traces there are.

    Args:
        first: Number of the first trace on the page, from 1.
    """
    return fragment(
        "traces_count.html.jinja",
        first=first,
        last=first + len(listing.traces) - 1,
        total=listing.total_label,
        hidden=listing.hidden,
        every_purpose=EVERY_PURPOSE,
    )


def chips_html(state: ListState, tails: Tails, saved: Sequence[SavedFilter]) -> str:
    """Render the chips, the ranges of time and the saved filters."""
    return fragment(
        "traces_chips.html.jinja",
        state=state,
        chips=list(_chips(state, tails)),
        ranges=RANGES.items(),
        own_range="" if state.range in RANGES else range_label(state),
        saved=saved,
        savable=bool(state.filter) and all(one.text != state.filter for one in saved),
    )


def error_html(error: RagsmithError, typed: str) -> str:
    """Render why a filter is not understood, with the word at fault marked."""
    start, end = (error.start, error.end) if isinstance(error, FilterSyntaxError) else (0, 0)
    near = slice(max(start - 60, 0), start), slice(start, min(end, start + 60)), slice(end, end + 40)
    before, marked, after = (typed[part] for part in near)
    return fragment("traces_error.html.jinja", before=before, marked=marked, after=after, message=str(error))


def _columns(sort: str) -> Iterator[Column]:
    name, _, order = (sort or "started").partition(":")
    for column in _COLUMNS:
        direction = "ascending" if order == "asc" else "descending"
        shown = direction if column.name == name else ""
        yield Column(column.name, column.label, column.title, column.css, shown)


def _chips(state: ListState, tails: Tails) -> Iterator[Chip]:
    slow = "" if tails.latency_s is None else f"latency >= {_seconds(tails.latency_s)}"
    costly = f"cost >= ${_rounded_down(tails.cost_usd)}" if tails.cost_usd else ""
    filters = {
        "Errors": "status = error",
        # What was slow in the range before stays the condition until it is removed.
        "Slow": _present(state, "latency") or slow,
        "👎": "feedback = down",
        "Abstained": "status = abstained",
        "Costly": _present(state, "cost") or costly,
    }
    for label, text in filters.items():
        if text:
            yield Chip(label, text, is_on(state, text))


def _present(state: ListState, field: str) -> str:
    try:
        return condition_on(state.filter, field, ">=")
    except FilterError:
        return ""


def _seconds(seconds: float) -> str:
    """Write a time as the filter language reads it."""
    return f"{1000 * seconds:.0f}ms" if seconds < 0.01 else f"{_rounded_down(seconds)}s"


def _rounded_down(value: float) -> str:
    """Write a number with two digits that is not above it, so that what has this number is not left out."""
    if value <= 0:
        return "0"
    places = 1 - math.floor(math.log10(value))
    # Half a millionth of a digit, so that 0.29 is not written as 0.28.
    rounded = math.floor(value * 10**places + 5e-7) / 10**places
    return f"{rounded:.{max(places, 0)}f}"


def rows_of(traces: Sequence[Trace]) -> list[Row]:
    """Return traces as a list shows them."""
    now = time.time()
    return [_row(trace, now) for trace in traces]


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
