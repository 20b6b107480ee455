"""What the traces tab shows, as a value: in its address, and after a click. Pure functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, get_args
from urllib.parse import urlencode

from rag.errors import FilterError
from rag.tracing.filter_fields import read_moment
from rag.tracing.trace_filter import both, has, without
from rag.tracing.trace_query import TraceQuery, query_of

TAB = "traces"
RANGES = {"": "All time", "today": "Today", "yesterday": "Yesterday", "7d": "7 days", "30d": "30 days"}
"""Ranges of time with a name of their own."""
Detail = Literal["", "trace", "session", "passage"]
STEP_VIEWS = {"tree": "Tree", "timeline": "Timeline"}

_FORMS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d")


@dataclass(frozen=True, slots=True)
class ListState:
    """The state of the tab.

    Attributes:
        filter: A text of the filter language, as it is applied.
        sort: A column, with ``:asc`` for the smallest first.
        range: A key of ``RANGES``, or two times with two dots between them.
        detail: What is shown beside the list; empty for nothing.
        shown: The id of what is shown.
        compare: Id of the trace that the next one is compared with; empty for none.
        steps: A key of ``STEP_VIEWS``.
    """

    filter: str = ""
    sort: str = ""
    range: str = ""
    detail: Detail = ""
    shown: str = ""
    compare: str = ""
    steps: str = "tree"

    def query(self, now: float | None = None) -> TraceQuery:
        """Return the query for the list.

        Raises:
            FilterError: The filter, the sort or the range is not understood.
        """
        since, until = _ends(self.range, time.time() if now is None else now)
        return query_of(self.filter, self.sort, since=since, until=until)

    @property
    def trace(self) -> str:
        """Id of the trace that is shown; empty for none."""
        return self.shown if self.detail == "trace" else ""

    def opened(self, detail: Detail, shown: str) -> ListState:
        """Return the state with something else beside the list."""
        return replace(self, detail=detail, shown=shown)

    def address(self) -> str:
        """Return the query of the address."""
        values = {
            self.detail: self.shown,
            "compare": self.compare,
            "filter": self.filter,
            "sort": self.sort,
            "range": self.range,
            "steps": "" if self.steps == "tree" else self.steps,
        }
        given = {name: value for name, value in values.items() if name and value}
        return urlencode(given if self.detail == "trace" else {"tab": TAB, **given})


def state_of(address: Mapping[str, str]) -> ListState | None:
    """Return the state that an address names; None if it names another view."""
    if not address.get("trace") and address.get("tab") != TAB:
        return None
    detail: Detail = next((name for name in get_args(Detail) if name and address.get(name)), "")
    steps = address.get("steps", "")
    return ListState(
        address.get("filter", "").strip(),
        address.get("sort", ""),
        address.get("range", ""),
        detail,
        address.get(detail, "") if detail else "",
        address.get("compare", ""),
        steps if steps in STEP_VIEWS else "tree",
    )


def is_on(state: ListState, chip: str) -> bool:
    """Whether the filter has all conditions of a chip."""
    try:
        return bool(state.filter) and has(state.filter, chip)
    except FilterError:
        return False


def act(state: ListState, action: str, value: str) -> ListState:
    """Return the state after a click.

    Raises:
        FilterError: A filter is not understood.
    """
    known = _ACTIONS.get(action)
    return state if known is None else known(state, value)


def _toggle(state: ListState, chip: str) -> ListState:
    combine = without if is_on(state, chip) else both
    return replace(state, filter=combine(state.filter, chip))


def _sorted_by(state: ListState, column: str) -> ListState:
    """Sort by a column, largest first; once more turns the order."""
    name, _, order = (state.sort or "started").partition(":")
    turned = name == column and order != "asc"
    sort = f"{column}:asc" if turned else column
    return replace(state, sort="" if sort == "started" else sort)


def _zoomed(state: ListState, ends: str) -> ListState:
    """Take a range from the charts: two times in seconds, with a space between them."""
    since, until = sorted(float(end) for end in ends.split(" ", 1))
    return replace(state, range=f"{_iso(since)}..{_iso(until)}")


def _iso(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds).isoformat(timespec="seconds")
    return text.removesuffix(":00").removesuffix("T00:00")


_ACTIONS: Mapping[str, Callable[[ListState, str], ListState]] = {
    "chip": _toggle,
    "filter": lambda state, text: replace(state, filter=text),
    "sort": _sorted_by,
    "zoom": _zoomed,
    "range": lambda state, name: replace(state, range=name),
    "steps": lambda state, name: replace(state, steps=name if name in STEP_VIEWS else "tree"),
    "session": lambda state, session: state.opened("session", session),
    "passage": lambda state, passage: state.opened("passage", passage),
    "compare": lambda state, trace: replace(state, compare=trace),
    # Two traces side by side, and one of them alone again.
    "against": lambda state, trace: replace(state, compare=trace),
    "alone": lambda state, trace: replace(state, compare="").opened("trace", trace),
    "close": lambda state, _: replace(state, detail="", shown=""),
}


def range_label(state: ListState) -> str:
    """Return a range for display, such as ``28 Nov 16:00 – 17:00``."""
    if state.range in RANGES:
        return RANGES[state.range]
    ends = [_time(part) for part in state.range.split("..")]
    if len(ends) != 2 or None in ends:
        return state.range
    since, until = (datetime.fromtimestamp(end) for end in ends if end is not None)
    # The end of a day is its last moment and not the first of the next one.
    last = until - timedelta(seconds=1)
    if since.date() == last.date():
        whole = (until - since) == timedelta(days=1)
        day = since.strftime("%d %b")
        return day if whole else f"{day} {since:%H:%M} – {until:%H:%M}"
    days = since.time() == until.time() == datetime.min.time()
    return f"{since:%d %b} – {last:%d %b}" if days else f"{since:%d %b %H:%M} – {until:%d %b %H:%M}"


def _ends(name: str, now: float) -> tuple[float | None, float | None]:
    if not name:
        return None, None
    if name in ("today", "yesterday"):
        day = read_moment(name, now)
        return day.start, None if name == "today" else day.end
    if name in RANGES:
        return read_moment(name, now).start, None
    ends = tuple(_time(part) for part in name.split(".."))
    if len(ends) != 2 or None in ends:
        raise FilterError(
            f"The range {name!r} is not understood.",
            fix=f"Use {', '.join(key for key in RANGES if key)}, or two times as in 2026-05-31..2026-06-02.",
        )
    return ends


def _time(text: str) -> float | None:
    for form in _FORMS:
        try:
            return datetime.strptime(text.strip(), form).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    return None
