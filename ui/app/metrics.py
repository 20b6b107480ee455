"""Metrics of a server in the format of Prometheus: counters of this process, and gauges of the workspace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, get_args

from rag.types import STEPS

if TYPE_CHECKING:
    from rag.settings import CostSettings
    from rag.tracing.trace_store import Trace
    from ui.app.stores import Stores

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DAY_S = 86_400
# Upper ends in seconds: from a quotation of the extractive reader to a long answer of a slow model.
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)


class Metrics(Protocol):
    """Counts finished answers."""

    def observe(self, trace: Trace | None) -> None:
        """Count an answer; None for one whose trace could not be stored."""


class NoMetrics:
    """The metrics of a process that is no server."""

    def observe(self, trace: Trace | None) -> None:
        """Count nothing."""


class ServerMetrics:
    """The metrics of a server.

    Args:
        stores: The stores that the gauges are read from.
        budget: The budget of the day, if there is one.
    """

    def __init__(self, stores: Stores, budget: CostSettings) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._registry = registry = CollectorRegistry()
        self._questions = Counter(
            "ragsmith_questions", "Questions by purpose and ending.", ["purpose", "status"], registry=registry
        )
        self._seconds = Histogram(
            "ragsmith_answer_seconds", "Time of an answer.", buckets=BUCKETS, registry=registry
        )
        self._steps = Histogram(
            "ragsmith_step_seconds", "Time of a step.", ["step"], buckets=BUCKETS, registry=registry
        )
        self._tokens = Counter("ragsmith_tokens", "Tokens of language models.", ["kind"], registry=registry)
        self._cost = Counter("ragsmith_cost_usd", "Known cost of answers in US dollars.", registry=registry)
        self._saved = Counter("ragsmith_saved_usd", "What answers of caches had cost.", registry=registry)
        self._unknown = Counter("ragsmith_unknown_cost_calls", "Calls of unknown cost.", registry=registry)
        registry.register(_Workspace(stores, budget))

    def observe(self, trace: Trace | None) -> None:
        """Count an answer and its steps."""
        from rag.tracing.ledger import spending_of

        if trace is None:
            return
        self._questions.labels(trace.purpose, trace.status).inc()
        if trace.latency_s is not None:
            self._seconds.observe(trace.latency_s)
        for span in trace.spans:
            if span.name in STEPS and span.ended is not None:
                self._steps.labels(span.name).observe(max(span.ended - span.started, 0.0))
        spending = spending_of(trace)
        for kind in ("input", "output", "cached"):
            self._tokens.labels(kind).inc(getattr(spending, f"{kind}_tokens"))
        self._cost.inc(max(spending.cost_usd, 0.0))
        self._saved.inc(max(spending.saved_usd, 0.0))
        self._unknown.inc(spending.unknown)

    def text(self) -> bytes:
        """Return all metrics as text.

        Raises:
            DatabaseError: The database refuses.
        """
        from prometheus_client import generate_latest

        return generate_latest(self._registry)


class _Workspace:
    """Reads the gauges of a workspace whenever they are asked for."""

    def __init__(self, stores: Stores, budget: CostSettings) -> None:
        self._stores = stores
        self._budget = budget

    def describe(self) -> Iterator[Any]:
        """Return nothing, so that the database is not read before the first request."""
        return iter(())

    def collect(self) -> Iterator[Any]:
        """Yield the gauges."""
        from prometheus_client.core import GaugeMetricFamily

        from rag.alerting.alert_rules import Level
        from rag.tracing.ledger import day_start
        from rag.tracing.measures import STATUS

        today = self._stores.ledger.total(day_start(datetime.now().astimezone().date()))
        yield GaugeMetricFamily("ragsmith_today_cost_usd", "Cost of today in the ledger.", value=today.cost_usd)
        if self._budget.day_usd is not None:
            yield GaugeMetricFamily("ragsmith_day_budget_usd", "Budget of a day.", value=self._budget.day_usd)
        ended = GaugeMetricFamily(
            "ragsmith_workspace_questions_24h",
            "Questions of the last 24 hours in all processes.",
            labels=["status"],
        )
        found = self._stores.measures.total(time.time() - DAY_S)
        for name in found.counts:
            if name.startswith(STATUS):
                ended.add_metric([name.removeprefix(STATUS)], found.number(name))
        yield ended
        levels = GaugeMetricFamily(
            "ragsmith_alert_level",
            "Level of an alert at its last check: 0 is ok, 1 a warning, 2 an alert.",
            labels=["alert"],
        )
        for watched in self._stores.alerts.list():
            levels.add_metric([watched.alert.name], get_args(Level).index(watched.state.level))
        yield levels
