"""The ledger: what every model call has cost, in sums by hour.

A finished trace adds its leaf spans, in the transaction that stores it; work that is no trace (judging, training,
ingestion, answers from the cache of an evaluation) adds expenses. Nothing is priced here: an amount is added as it
was stored, with the prices of its day. The sums outlive the traces.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import Connection, Engine, func, insert, select

from rag.database import insert_or_add, reading, writing
from rag.tables import LARGEST_COUNT
from rag.trace_tables import expenses as expenses_table
from rag.trace_tables import ledger as ledger_table
from rag.trace_tables import traces as traces_table
from rag.types import STEPS, current_model

if TYPE_CHECKING:
    from rag.tracing.trace_types import Span, Trace

Grouping = Literal["hour", "day", "model", "prompt", "release", "user", "purpose", "step"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)
TIMES: tuple[Grouping, ...] = ("hour", "day")

ExpensePurpose = Literal["judging", "training", "ingestion", "evaluation"]

BILLED = "billed"
"""Attribute of a span that a server bills, by ``tokens``. Any other leaf costs its seconds of this machine, unless
a cache answered."""

# Steps that run a model in their own code: encoder and reranker, the reader, the encoder.
_MODEL_STEPS = frozenset({"retrieve", "read", "ground"})
_KEY = ("hour", "purpose", "step", "model", "prompt", "release", "user_name")
_LENGTHS = {"step": 60, "model": 200, "prompt": 200, "release": 12, "user_name": 100}


@dataclass(frozen=True, slots=True)
class Spending:
    """A sum of costs.

    Attributes:
        calls: Calls of language models, encoders, rerankers and readers, also those that a cache answered.
        unknown: Calls of unknown cost, which is not part of ``cost_usd``.
        input_tokens, output_tokens: As reported; what no model reported is not part of them.
        cached_tokens: Those of the input tokens that the server had read before.
        seconds: Seconds of this machine.
        cost_usd: The known cost in US dollars.
        saved_usd: What the answers of caches had cost when they were asked.
    """

    calls: int = 0
    unknown: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    cost_usd: float = 0.0
    saved_usd: float = 0.0

    def __add__(self, other: Spending) -> Spending:
        """Add two sums."""
        return Spending(*(getattr(self, name) + getattr(other, name) for name in AMOUNTS))


NOTHING = Spending()
AMOUNTS = tuple(field.name for field in fields(Spending))


@dataclass(frozen=True, slots=True)
class Entry:
    """What one call has cost, and what for; ``at`` in seconds since the epoch."""

    at: float
    purpose: str
    step: str
    model: str
    prompt: str
    release: str
    user_name: str
    spending: Spending

    @property
    def key(self) -> tuple[Any, ...]:
        """The key of its row in the ledger."""
        texts = {name: str(getattr(self, name))[:length] for name, length in _LENGTHS.items()}
        return tuple({"hour": hour_of(self.at), "purpose": self.purpose, **texts}[name] for name in _KEY)


@dataclass(frozen=True, slots=True)
class Expense:
    """The cost of work that is no trace.

    Attributes:
        subject: The run, dataset or corpus that it was spent on.
        step: What was done, such as ``judge`` or ``embed``.
        model: The model that worked.
        prices: The day of the price list, ``YYYY-MM-DD``.
        seconds: Seconds of this machine; None for the calls of a server or a cache.
        cost_usd: None means unknown.
        saved_usd: What a cached answer had cost when it was asked; None if unknown, or without a cache.
        calls: The calls of the model.
        at: Seconds since the epoch; by default now.
    """

    purpose: ExpensePurpose
    subject: str
    step: str
    model: str
    prices: str
    cost_usd: float | None
    seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    saved_usd: float | None = None
    prompt: str = ""
    release: str = ""
    user_name: str = ""
    calls: int = 1
    at: float | None = None

    @property
    def spending(self) -> Spending:
        """Its amounts as a sum."""
        return Spending(
            calls=self.calls,
            unknown=self.calls if self.cost_usd is None else 0,
            input_tokens=_count(self.input_tokens),
            output_tokens=_count(self.output_tokens),
            cached_tokens=_count(self.cached_tokens),
            seconds=self.seconds or 0.0,
            cost_usd=self.cost_usd or 0.0,
            saved_usd=self.saved_usd or 0.0,
        )


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """The spending of a group.

    Attributes:
        name: ``YYYY-MM-DD`` for a day, ``YYYY-MM-DD HH:00`` for an hour; empty for what has no name.
    """

    name: str
    spending: Spending


class Ledger:
    """Reads the ledger, and adds expenses. Every method may raise DatabaseError; ``add``, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, *expenses: Expense) -> None:
        """Add expenses in one transaction."""
        if not expenses:
            return
        now = time.time()
        entries = [_entry(expense, now) for expense in expenses]
        rows = [
            {column.name: getattr(expense, column.name) for column in expenses_table.c if column.name != "id"}
            | {"at": entry.at}
            for expense, entry in zip(expenses, entries, strict=True)
        ]
        with writing(self._engine) as connection:
            connection.execute(insert(expenses_table), rows)
            record(connection, entries)

    def rows(self, by: Grouping, since: float | None = None, until: float | None = None) -> tuple[LedgerRow, ...]:
        """Sum the spending by group: hours and days in order, other groups by cost, the largest first.

        Args:
            by: The groups.
            since, until: Limits in seconds since the epoch, ``until`` excluded; only whole hours are known, from
                that of ``since`` to the last one that starts before ``until``.
        """
        name = {"day": "hour", "user": "user_name"}.get(by, by)
        column = ledger_table.c[name]
        sums = [func.sum(ledger_table.c[amount]) for amount in AMOUNTS]
        query = select(column, *sums).group_by(column)
        if since is not None:
            query = query.where(ledger_table.c.hour >= hour_of(since))
        if until is not None:
            query = query.where(ledger_table.c.hour < until)
        with reading(self._engine) as connection:
            found = connection.execute(query).all()
        groups: dict[str, Spending] = {}
        for group, *amounts in found:
            label = str(group) if by not in TIMES else time_label(group, by)
            groups[label] = groups.get(label, NOTHING) + _spending(amounts)
        rows = [LedgerRow(label, spending) for label, spending in groups.items()]
        if by in TIMES:
            return tuple(sorted(rows, key=lambda row: row.name))
        return tuple(sorted(rows, key=lambda row: (-row.spending.cost_usd, row.name)))

    def total(self, since: float | None = None, until: float | None = None) -> Spending:
        """Sum all spending; see ``rows``."""
        return sum((row.spending for row in self.rows("purpose", since, until)), NOTHING)

    def spent_on(self, subject: str) -> Spending:
        """Sum the expenses for a run, a dataset or a corpus; those of unknown cost count as one call each."""
        names = [name for name in AMOUNTS if name in expenses_table.c]
        sums = [func.coalesce(func.sum(expenses_table.c[name]), 0) for name in names]
        unknown = func.count().filter(expenses_table.c.cost_usd.is_(None))
        query = select(func.count(), unknown, *sums).where(expenses_table.c.subject == subject)
        with reading(self._engine) as connection:
            calls, missing, *amounts = connection.execute(query).one()
        found = dict(zip(names, amounts, strict=True)) | {"calls": calls, "unknown": missing}
        return _spending([found[name] for name in AMOUNTS])

    def conversation_usd(self, conversation_id: str) -> float:
        """Return the known cost of the answers of a conversation."""
        wanted = traces_table.c.conversation_id == conversation_id
        with reading(self._engine) as connection:
            return float(connection.scalar(select(func.sum(traces_table.c.cost_usd)).where(wanted)) or 0.0)


def record(connection: Connection, entries: Iterable[Entry]) -> None:
    """Add entries to the ledger, in the transaction of ``connection``."""
    sums: dict[tuple[Any, ...], Spending] = {}
    for entry in entries:
        key = entry.key
        sums[key] = sums[key] + entry.spending if key in sums else entry.spending
    rows = [
        dict(zip(_KEY, key, strict=True)) | {name: getattr(sums[key], name) for name in AMOUNTS}
        # In the same order in every process, so that none waits for a row of another that waits for one of its.
        for key in sorted(sums)
    ]
    insert_or_add(connection, ledger_table, rows, AMOUNTS)


def entries_of(trace: Trace) -> Iterator[Entry]:
    """Yield what the leaf spans of a trace have cost; any other span costs the sum of its children."""
    spans = {span.id: span for span in trace.spans}
    parents = {span.parent_id for span in trace.spans}
    end = trace.started + (trace.latency_s or 0.0)
    for span in trace.spans:
        if span.id in parents:
            continue
        step = _step_of(span, spans)
        called = span.kind == "llm" or step in _MODEL_STEPS
        is_free = bool(span.attributes.keys() & {BILLED, "cached"})
        yield Entry(
            at=trace.started,
            purpose=trace.purpose,
            step=step,
            model=current_model(trace.model),
            prompt=trace.prompt,
            release=trace.release,
            user_name=trace.user_name,
            spending=Spending(
                calls=int(called),
                unknown=int(span.cost_usd is None),
                input_tokens=_count(span.input_tokens),
                output_tokens=_count(span.output_tokens),
                cached_tokens=_count(span.cached_tokens),
                seconds=0.0 if is_free else max((span.ended or end) - span.started, 0.0),
                cost_usd=span.cost_usd or 0.0,
                saved_usd=span.saved_usd or 0.0,
            ),
        )


def spending_of(trace: Trace) -> Spending:
    """Sum what the leaf spans of a trace have cost."""
    return sum((entry.spending for entry in entries_of(trace)), NOTHING)


def hour_of(at: float) -> float:
    """Return the start of the hour of a time, in the time zone of this machine."""
    return _hour_of_quarter(int(at // 900))


@lru_cache(maxsize=4096)
def _hour_of_quarter(quarter: int) -> float:
    # Time zones differ by whole quarters of an hour.
    moment = datetime.fromtimestamp(900 * quarter).astimezone()
    return moment.replace(minute=0, second=0, microsecond=0).timestamp()


def time_label(at: float, by: Grouping) -> str:
    """Return the name of the day or the hour of a time; see ``LedgerRow``."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d" if by == "day" else "%Y-%m-%d %H:00")


def day_start(day: date) -> float:
    """Return the first second of a day in the time zone of this machine, since the epoch."""
    return datetime(day.year, day.month, day.day).astimezone().timestamp()


def _entry(expense: Expense, now: float) -> Entry:
    return Entry(
        at=now if expense.at is None else expense.at,
        purpose=expense.purpose,
        step=expense.step,
        model=expense.model,
        prompt=expense.prompt,
        release=expense.release,
        user_name=expense.user_name,
        spending=expense.spending,
    )


def _step_of(span: Span, spans: Mapping[str, Span]) -> str:
    """Return the step of the chain that a span belongs to; in other chains, its own name."""
    at: Span | None = span
    # A damaged trace may have a circle.
    for _ in spans:
        if at is None:
            break
        if at.name in STEPS:
            return at.name
        at = spans.get(at.parent_id or "")
    return span.name


def _count(tokens: int | None) -> int:
    """Return a count within the range of a column; what servers report is untrusted."""
    return min(max(tokens or 0, 0), LARGEST_COUNT)


def _spending(amounts: Iterable[Any]) -> Spending:
    # PostgreSQL sums integers to decimals.
    kinds = (int, int, int, int, int, float, float, float)
    return Spending(*(kind(amount) for kind, amount in zip(kinds, amounts, strict=True)))
