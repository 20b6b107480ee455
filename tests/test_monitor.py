"""Counts of answers, the page that shows them with what was spent, and the metrics of the server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_server import running
from markupsafe import Markup
from prometheus_client.parser import text_string_to_metric_families
from scripted_app import ScriptedApp
from sqlalchemy import Engine
from test_ledger import NOON, trace_of

from rag.alerting.alert_rules import Alert, Check, State
from rag.settings import Settings
from rag.tracing.figures import format_seconds
from rag.tracing.ledger import LedgerRow, Spending
from rag.tracing.measures import LATENCY, Measured, Measures, bucket_of
from rag.tracing.trace_store import TraceStore
from ui.app.metrics import ServerMetrics
from ui.pages.monitor.answers_view import answers_html
from ui.pages.monitor.cost_view import Period, cost_html, group_url

PERIOD = Period("day", NOON - 43_200, ("2026-03-02", "2026-03-03"))


@pytest.fixture
def measures(engine: Engine) -> Measures:
    return Measures(engine)


def test_answers_are_counted_by_ending_once(store: TraceStore, measures: Measures) -> None:
    for number, status in enumerate(("ok", "ok", "abstained", "error")):
        store.save(trace_of(number, status=status))
        store.save(trace_of(number, status=status))
    store.save(trace_of(9, status="running"))
    found = measures.total(NOON)
    assert (found.answers, found.share("abstained"), found.share("error")) == (4, 0.25, 0.25)
    assert found.number("step/generate") == 4
    assert found.percentile(LATENCY, 0.5) == pytest.approx(2.0, rel=0.075)


def test_evaluations_are_left_out_unless_they_are_asked_for(store: TraceStore, measures: Measures) -> None:
    store.save(trace_of(1))
    store.save(trace_of(2, purpose="evaluation", release="r2"))
    assert measures.total(NOON, ("evaluation", "lab")).answers == 1
    assert measures.groups("release", NOON).keys() == {"r1", "r2"}
    assert measures.groups("day", NOON)["2026-03-02"].answers == 2
    assert measures.total(NOON + 7200).answers == 0


def test_a_thumb_that_changes_is_counted_once(store: TraceStore, measures: Measures) -> None:
    store.save(trace_of(1))
    for rating in ("up", "down", "down"):
        store.rate("trace-1", rating)  # type: ignore[arg-type]  # a literal
    found = measures.total(NOON)
    assert (found.number("thumb/up"), found.number("thumb/down")) == (0, 1)
    store.rate("trace-1", None)
    assert measures.total(NOON).number("thumb/down") == 0


def test_the_support_of_answers_is_averaged(store: TraceStore, measures: Measures) -> None:
    for number, support in enumerate((0.5, 1.0, None)):
        trace = trace_of(number)
        root = replace(trace.spans[0], output={"support": support})
        store.save(replace(trace, spans=(root, *trace.spans[1:])))
    assert measures.total(NOON).support == pytest.approx(0.75)
    assert Measured({}).support is None


@given(st.lists(st.floats(0.0011, 3000), min_size=2, max_size=60))
def test_a_percentile_is_known_to_a_thirteenth(times: list[float]) -> None:
    counts: dict[int, int] = {}
    for seconds in times:
        counts[bucket_of(seconds)] = counts.get(bucket_of(seconds), 0) + 1
    found = Measured({LATENCY: counts})
    for share in (0.5, 0.95, 0.99):
        exact = sorted(times)[max(-int(-share * len(times) // 1), 1) - 1]
        assert found.percentile(LATENCY, share) == pytest.approx(exact, rel=0.075)


def test_a_period_has_all_its_days_or_hours() -> None:
    now = datetime(2026, 3, 3, 15, 30).astimezone().timestamp()
    week = Period.last(7, now)
    assert (week.by, week.names[0], week.names[-1], len(week.names)) == ("day", "2026-02-25", "2026-03-03", 7)
    day = Period.last(1, now)
    assert (day.by, day.names[-1], len(day.names)) == ("hour", "2026-03-03 15:00", 24)


def test_a_group_leads_to_its_traces() -> None:
    url = group_url("model", 'a "quoted" \\ name', NOON)
    query = parse_qs(urlsplit(url).query)
    assert query["tab"] == ["traces"]
    assert query["filter"] == [
        'model = "a \\"quoted\\" \\\\ name" and started >= "2026-03-02 12:00" and purpose = any'
    ]
    assert (
        group_url("purpose", "judging", NOON)
        == group_url("step", "read", NOON)
        == group_url("user", "", NOON)
        == ""
    )
    assert "purpose+%3D+any" not in group_url("purpose", "lab", NOON)


def test_the_page_shows_bars_groups_total_and_what_is_unknown() -> None:
    rows = [LedgerRow("<b>x</b>", Spending(calls=3, cost_usd=1.5, saved_usd=0.25)), LedgerRow("", Spending(1, 2))]
    times = [LedgerRow("2026-03-03", Spending(calls=4, cost_usd=1.5))]
    html = cost_html(PERIOD, "model", times, rows, "today's budget: $1.50 of $2.00 spent")
    assert "<b>x</b>" not in html
    shown = Markup(html).striptags()
    assert "2026-03-03: $1.50, 4 model calls" in shown
    assert "2026-03-02: $0, 0 model calls" in shown
    assert "2 calls of unknown cost" in shown
    assert "today's budget: $1.50 of $2.00 spent" in shown
    assert html.count("<a ") == 2
    assert "Nothing was spent" in cost_html(PERIOD, "model", (), ())


def test_the_page_shows_the_times_of_steps_and_the_endings_by_group() -> None:
    found = Measured({"status/ok": {0: 3}, "status/error": {0: 1}, LATENCY: {bucket_of(2.0): 4}})
    html = answers_html(PERIOD, "release", found, {"2026-03-02": found}, {"r1": found})
    shown = " ".join(re.sub("<[^>]*>", " ", html).replace("&#10;", " ").split())
    about = format_seconds(found.percentile(LATENCY, 0.5) or 0)
    assert f"whole answer 4 {about} {about} {about}" in shown
    assert f"r1 4 25 % 0 % {about} {about}" in shown
    assert "2026-03-02, questions 4" in shown
    assert "No question was asked" in answers_html(PERIOD, "release", Measured({}), {}, {})


# The metrics of the server


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ScriptedApp]:
    made = ScriptedApp(tmp_path, Settings(cost={"day_usd": 2.0}))
    yield made
    made.close()


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_the_answers_of_the_process_and_the_state_of_the_workspace(app: ScriptedApp) -> None:
    metrics = ServerMetrics(app.stores, app.settings.cost)
    trace = trace_of(1, started=time.time())
    app.stores.traces.save(trace)
    app.stores.alerts.save(Alert("slow", "p95", 3.0))
    for each in (trace, replace(trace, status="error", purpose="api"), None):
        metrics.observe(each)
    found = samples(metrics.text().decode())
    assert (
        found["ragsmith_questions_total", "chat", "ok"] == found["ragsmith_questions_total", "api", "error"] == 1
    )
    assert found["ragsmith_tokens_total", "input"] == 18
    assert found[("ragsmith_cost_usd_total",)] == pytest.approx(0.06)
    assert found[("ragsmith_answer_seconds_count",)] == 2
    assert found["ragsmith_step_seconds_count", "retrieve"] == 2
    assert found[("ragsmith_today_cost_usd",)] == pytest.approx(0.03)
    assert found[("ragsmith_day_budget_usd",)] == 2.0
    assert found["ragsmith_workspace_questions_24h", "ok"] == 1
    assert found["ragsmith_alert_level", "slow"] == 0
    (watched,) = app.stores.alerts.list()
    app.stores.alerts.record(watched, Check(time.time(), "ok", State("alert")))
    assert samples(metrics.text().decode())["ragsmith_alert_level", "slow"] == 2


def test_the_server_offers_them_behind_its_password(tmp_path: Path) -> None:
    app = ScriptedApp(tmp_path, Settings(access={"password": "open sesame", "api_key": "the-key-of-the-api"}))
    with running(app) as address:
        assert httpx.get(f"{address}/metrics").status_code == 401
        given = httpx.get(f"{address}/metrics", headers={"Authorization": "Bearer the-key-of-the-api"})
    app.close()
    assert given.status_code == 200
    assert given.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "ragsmith_answer_seconds_count 0.0" in given.text
