"""What was spent as HTML: figures, bars by day or hour, and a table. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from urllib.parse import urlencode

from rag.tracing.figures import counted, format_cost, format_seconds
from rag.tracing.ledger import NOTHING, Grouping, LedgerRow, Spending, day_start, time_label
from rag.types import PURPOSES
from ui.pages.safe_markup import fragment

WIDTH, HEIGHT, BASE = 960, 150, 130
"""Of the chart, in units of its own; the bars stand on BASE."""
LEFT = 60
MOST_LABELS = 10

# Groups that the filter of the traces tab knows.
_FILTERED = frozenset({"model", "prompt", "release", "user", "purpose"})
_PLAIN_NAME = "—"
_COUNTS = ("calls", "input_tokens", "output_tokens", "cached_tokens")


@dataclass(frozen=True, slots=True)
class Period:
    """The hours or days of a chart.

    Attributes:
        by: ``hour`` or ``day``.
        since: Its start, in seconds since the epoch.
        names: The names of all its hours or days, in order.
    """

    by: Grouping
    since: float
    names: tuple[str, ...]

    @classmethod
    def last(cls, days: int, now: float) -> Period:
        """Return the last 24 hours, or so many days up to today."""
        moment = datetime.fromtimestamp(now).astimezone()
        if days == 1:
            hours = [(moment - timedelta(hours=ago)).timestamp() for ago in reversed(range(24))]
            return cls("hour", hours[0], tuple(dict.fromkeys(time_label(hour, "hour") for hour in hours)))
        dates = [moment.date() - timedelta(days=ago) for ago in reversed(range(days))]
        return cls("day", day_start(dates[0]), tuple(day.isoformat() for day in dates))


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of the chart, in its units.

    Attributes:
        label: Below the bar; empty where there is no room.
        title: What it says when it is pointed at.
        href: The traces of its day or hour.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    title: str
    href: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table; ``href`` leads to its traces, and is empty where there are none."""

    name: str
    href: str
    cells: tuple[str, ...]
    share: float


def cost_html(
    period: Period, by: Grouping, times: Sequence[LedgerRow], rows: Sequence[LedgerRow], budget: str = ""
) -> str:
    """Render what was spent in a period.

    Args:
        period: The time.
        by: The groups of the table.
        times: Sums by hour or day of the period.
        rows: Sums by group.
        budget: Notice about the budget of the day.
    """
    total = sum((row.spending for row in rows), NOTHING)
    most = max((row.spending.cost_usd for row in times), default=0.0)
    return fragment(
        "monitor_cost.html.jinja",
        total=total,
        figures=_figures(total),
        budget=budget,
        bars=list(_bars(period, times, most)),
        most=format_cost(most),
        by=by,
        rows=[_row(by, row, total, period) for row in rows],
        total_row=_cells(total),
        width=WIDTH,
        height=HEIGHT,
        base=BASE,
        left=LEFT,
    )


def traces_url(conditions: Sequence[str]) -> str:
    """Return the address of the traces tab with a filter."""
    return "/?" + urlencode({"tab": "traces", "filter": " and ".join(conditions)})


def group_url(by: str, name: str, since: float) -> str:
    """Return the address of the traces of a group; empty if it has no name, or no traces."""
    if not name or by not in _FILTERED or (by == "purpose" and name not in PURPOSES):
        return ""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    started = datetime.fromtimestamp(since).astimezone().strftime("%Y-%m-%d %H:%M")
    conditions = [f'{by} = "{quoted}"', f'started >= "{started}"']
    # Otherwise the tab leaves out evaluations and the lab, which cost as well.
    return traces_url(conditions if by == "purpose" else [*conditions, "purpose = any"])


def _figures(total: Spending) -> tuple[tuple[str, str], ...]:
    return (
        ("cost", format_cost(total.cost_usd)),
        ("saved by caches", format_cost(total.saved_usd)),
        ("model calls", f"{total.calls:,}"),
        ("tokens read + written", f"{total.input_tokens:,} + {total.output_tokens:,}"),
        ("machine time", format_seconds(total.seconds)),
        ("unknown cost", counted(total.unknown, "call") if total.unknown else "none"),
    )


def _bars(period: Period, times: Sequence[LedgerRow], most: float) -> Iterator[Bar]:
    known = {row.name: row.spending for row in times}
    step = (WIDTH - LEFT) / len(period.names)
    labelled = max(len(period.names) // MOST_LABELS, 1)
    for at, name in enumerate(period.names):
        spending = known.get(name, NOTHING)
        height = (BASE - 16) * spending.cost_usd / most if most else 0.0
        yield Bar(
            x=LEFT + step * (at + 0.1),
            y=BASE - height,
            width=step * 0.8,
            height=height,
            # Counted from the last one, which is the present.
            label=bar_label(name, period.by) if (len(period.names) - 1 - at) % labelled == 0 else "",
            title=f"{name}: {format_cost(spending.cost_usd)}, {counted(spending.calls, 'model call')}",
            href=traces_url([_started(name, period.by), "purpose = any"]) if spending.calls else "",
        )


def bar_label(name: str, by: Grouping) -> str:
    """Return what stands below an hour or a day of a chart."""
    return date.fromisoformat(name).strftime("%-d %b") if by == "day" else name[-5:]


def _started(name: str, by: Grouping) -> str:
    if by == "day":
        return f"started = {name}"
    end = datetime.fromisoformat(name) + timedelta(hours=1)
    return f'started >= "{name}" and started < "{end:%Y-%m-%d %H:%M}"'


def _row(by: Grouping, row: LedgerRow, total: Spending, period: Period) -> Row:
    share = row.spending.cost_usd / total.cost_usd if total.cost_usd else 0.0
    return Row(row.name or _PLAIN_NAME, group_url(by, row.name, period.since), _cells(row.spending), 100 * share)


def _cells(spending: Spending) -> tuple[str, ...]:
    return (
        *(f"{getattr(spending, name):,}" if getattr(spending, name) else "" for name in _COUNTS),
        format_seconds(spending.seconds) if spending.seconds else "",
        format_cost(spending.saved_usd) if spending.saved_usd else "",
        f"{spending.unknown:,}" if spending.unknown else "",
        format_cost(spending.cost_usd),
    )
