"""Alerts of a workspace: checked on its traces, notified once, delivered again until it works, and previewed."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_app import ScriptedApp
from sqlalchemy import Engine
from test_ledger import NOON, trace_of
from tracked import wait_for

from rag.alerting.alert_history import SCALE, moments_between, replay
from rag.alerting.alert_notices import KEPT_S, MOST_ATTEMPTS, NoticeQueue, pause_s
from rag.alerting.alert_rules import METRICS, Alert, Check, State
from rag.alerting.alert_samples import read_samples
from rag.alerting.alert_store import AlertStore
from rag.database import open_database
from rag.errors import AlertError, DatabaseError, DeliveryError
from rag.settings import Settings
from rag.tracing.trace_store import TraceStore
from ui.app.alert_timer import AlertTimer
from ui.app.alerting import Alerting

MINUTE = 60.0
ERRORS = Alert("errors", "errors", 0.5, 0.1, window_s=10 * MINUTE, channels=("command",))


class ScriptedChannel:
    """A channel that fails as often as it is told."""

    def __init__(self) -> None:
        self.failures = 0
        self.sent: list[tuple[str, str, str]] = []

    def send(self, notice: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise DeliveryError("The line is dead.")
        self.sent.append((notice.message.alert, notice.message.event, notice.message.level))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ScriptedApp]:
    made = ScriptedApp(tmp_path, Settings(tracking={"wandb": "off"}))
    yield made
    made.close()


@pytest.fixture
def channel(app: ScriptedApp) -> ScriptedChannel:
    """The channel ``command`` of the app."""
    scripted = ScriptedChannel()
    vars(app.alerting)["channels"] = {"command": scripted, "webhook": scripted}
    return scripted


def ask(store: TraceStore, number: int, minute: float, **fields: Any) -> None:
    """Store an answer that ended at a minute after noon."""
    latency = fields.get("latency_s", 2.0)
    store.save(trace_of(number, started=NOON + minute * MINUTE - latency, **{"latency_s": latency} | fields))


def check(app: ScriptedApp, name: str, minute: float) -> Check:
    found = app.alerting.check(app.stores.alerts.get(name), NOON + minute * MINUTE)
    assert found is not None
    return found


def delivered(app: ScriptedApp, at: float = NOON + 1e6) -> list[str]:
    return [sent.error for sent in app.alerting.deliver(at)]


# Values


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("requests", 4.0),
        ("p50", 2.0),
        ("p95", 8.0),
        ("p99", 8.0),
        ("first_token", 0.75),
        ("cost", 0.06),
        ("tokens", 39.0),
        ("errors", 0.25),
        ("abstained", 0.5),
        ("thumbs_down", 2 / 3),
        ("support", 0.5),
    ],
)
def test_metrics_are_read_from_the_answers_of_their_window(
    engine: Engine, store: TraceStore, metric: str, value: float
) -> None:
    tokens = {"input_tokens": 9, "output_tokens": 4}
    ask(store, 1, -5, cost_usd=0.02, first_token_s=0.25, **tokens)
    ask(store, 2, -4, status="abstained", latency_s=1.0, cost_usd=0.04, **tokens)
    ask(store, 3, -3, status="abstained", latency_s=8.0, first_token_s=0.75, **tokens)
    ask(store, 4, -2, status="error")
    # Outside of the window, unfinished, or asked by nobody.
    ask(store, 5, -11, latency_s=100.0, cost_usd=9.0)
    ask(store, 6, 0, latency_s=100.0, cost_usd=9.0)
    ask(store, 7, -3, status="running")
    ask(store, 8, -3, purpose="evaluation", latency_s=100.0)
    for number, rating in ((1, "up"), (2, "down"), (5, "down")):
        store.rate(f"trace-{number}", rating)  # type: ignore[arg-type]  # a literal
    for number, support in ((1, 0.25), (2, 0.75), (3, None)):
        trace = store.get(f"trace-{number}")
        store.save(replace(trace, spans=(replace(trace.spans[0], output={"support": support}), *trace.spans[1:])))
    now = time.time() if metric == "thumbs_down" else NOON
    alert = Alert("x", metric, 1.0, window_s=10 * MINUTE)
    samples = read_samples(engine, alert, now - 10 * MINUTE, now)
    (found,) = replay(alert, State(), samples, [now])
    assert found.state.value == pytest.approx(value)


@pytest.mark.parametrize(
    "output", ["text", None, 3, [], {}, {"support": None}, {"support": "high"}, {"support": 7}]
)
def test_only_a_share_is_the_support_of_an_answer(engine: Engine, store: TraceStore, output: Any) -> None:
    for number, value in ((1, output), (2, {"support": 0.5})):
        trace = trace_of(number, started=NOON - 60)
        store.save(replace(trace, spans=(replace(trace.spans[0], output=value), *trace.spans[1:])))
    (sample,) = read_samples(engine, Alert("x", "support", 1.0), NOON - 3_600, NOON)
    assert sample.amount == SCALE // 2


def test_a_filter_chooses_the_answers(engine: Engine, store: TraceStore) -> None:
    for number, model in enumerate(("tiny", "tiny", "large")):
        ask(store, number, -1, model=model)
    ask(store, 9, -1, model="large", purpose="evaluation")

    def count(text: str) -> int:
        return len(read_samples(engine, replace(ERRORS, filter=text), NOON - 600, NOON))

    assert [count(text) for text in ("", "model = tiny", "model = large and purpose = any")] == [3, 2, 2]


@pytest.mark.parametrize("metric", METRICS)
def test_a_workspace_without_answers_has_no_data(engine: Engine, metric: str) -> None:
    assert read_samples(engine, Alert("x", metric, 1.0), NOON - 3_600, NOON) == []


def test_both_databases_read_metrics_and_keep_alerts_and_notices(either_engine: Engine) -> None:
    traces, alerts, queue = TraceStore(either_engine), AlertStore(either_engine), NoticeQueue(either_engine)
    root = trace_of(1).spans[0]
    for number, output in ((1, {"support": 0.5}), (2, {"support": "high"}), (3, "text")):
        spans = (replace(root, id=f"root-{number}", output=output),)
        trace = trace_of(number, started=NOON - 60, input_tokens=9, cost_usd=0.5, first_token_s=0.5, spans=spans)
        traces.save(trace)
        traces.rate(trace.id, "down")
    traces.close()
    for metric, count in (dict.fromkeys(METRICS, 3) | {"support": 1}).items():
        at = time.time() if metric == "thumbs_down" else NOON
        found = read_samples(
            either_engine, Alert("x", metric, 1.0, filter="model = tiny or release = r1"), at - 600, at
        )
        assert (metric, len(found)) == (metric, count)
    for _ in range(2):
        alerts.save(replace(ERRORS, channels=("wandb", "command"), renotify_s=60.0))
    watched = alerts.get("errors")
    check = Check(NOON, "ok", State("alert", NOON, 1.0, NOON, NOON), "changed")
    assert [alerts.record(watched, check), alerts.record(watched, check)] == [True, False]
    assert alerts.get("errors").state == check.state
    first, second = queue.take(NOON), queue.take(NOON)
    assert first is not None
    assert second is not None
    assert {first.channel, second.channel} == {"wandb", "command"}
    queue.failed(first, "The line is dead.", NOON)
    queue.sent(second)
    assert queue.take(NOON) is None
    assert [trouble.channel for trouble in queue.troubles()["errors"]] == [first.channel]
    alerts.remove("errors")
    assert alerts.list() == ()


# Checks


def test_a_level_is_stored_and_a_restart_repeats_no_notice(app: ScriptedApp, channel: ScriptedChannel) -> None:
    store = app.stores.traces
    app.alerting.save(ERRORS)
    ask(store, 1, 1)
    ask(store, 2, 2, status="error")
    assert check(app, "errors", 3).state.level == "warning"
    ask(store, 3, 3, status="error")
    ask(store, 4, 3.5, status="error")
    assert check(app, "errors", 4).event == "changed"
    # Another process, which knows only what is stored.
    other = ScriptedApp(app.home, app.settings)
    vars(other.alerting)["channels"] = {"command": channel}
    assert other.stores.alerts.get("errors").state.level == "alert"
    assert check(other, "errors", 5).event is None
    assert delivered(other) == ["", ""]
    assert delivered(app) == []
    other.close()
    # The window moves on.
    assert check(app, "errors", 30).state.level == "ok"
    assert delivered(app) == [""]
    assert channel.sent == [
        ("errors", "changed", "warning"),
        ("errors", "changed", "alert"),
        ("errors", "changed", "ok"),
    ]


def test_of_two_processes_that_check_at_once_one_notifies(app: ScriptedApp, channel: ScriptedChannel) -> None:
    app.alerting.save(ERRORS)
    ask(app.stores.traces, 1, 1, status="error")
    watched = app.stores.alerts.get("errors")
    first = app.alerting.check(watched, NOON + 2 * MINUTE)
    assert first is not None
    assert app.alerting.check(watched, NOON + 2 * MINUTE + 1) is None
    assert delivered(app) == [""]
    app.stores.alerts.remove("errors")
    assert app.alerting.check(watched, NOON + 3 * MINUTE) is None


def test_a_server_checks_every_alert_at_its_times_and_only_once(
    app: ScriptedApp, channel: ScriptedChannel
) -> None:
    app.alerting.save(ERRORS)
    app.alerting.save(replace(ERRORS, name="long", window_s=86_400.0))
    for now in (NOON, NOON + 9, NOON + 31, NOON + 75, NOON + 3_600):
        app.alerting.check_due(now)
    # The last minute, and the last quarter of an hour, that ended some seconds ago.
    found = {watched.alert.name: watched.state.checked for watched in app.alerting.watched()}
    assert found == {"errors": NOON + 3_600 - 60, "long": NOON + 3_600 - 900}


def test_a_changed_alert_keeps_its_state_and_a_removed_one_goes_with_its_notices(
    app: ScriptedApp, channel: ScriptedChannel
) -> None:
    app.alerting.save(ERRORS)
    ask(app.stores.traces, 1, 1, status="error")
    check(app, "errors", 2)
    app.alerting.save(replace(ERRORS, alert_at=0.9))
    watched = app.stores.alerts.get("errors")
    assert (watched.alert.alert_at, watched.state.level) == (0.9, "alert")
    app.alerting.save(replace(ERRORS, metric="requests"))
    assert app.stores.alerts.get("errors").state == State()
    app.stores.alerts.remove("errors")
    assert delivered(app) == []
    with pytest.raises(AlertError, match="no alert 'errors'"):
        app.stores.alerts.get("errors")
    with pytest.raises(AlertError, match="no alert 'errors'"):
        app.stores.alerts.remove("errors")


def test_an_alert_whose_filter_is_no_longer_understood_does_not_stop_the_others(
    app: ScriptedApp, channel: ScriptedChannel, caplog: pytest.LogCaptureFixture
) -> None:
    app.stores.alerts.save(replace(ERRORS, name="broken", filter="lost > 3"))
    app.alerting.save(ERRORS)
    app.alerting.check_due(NOON + 60)
    assert app.stores.alerts.get("errors").state.checked is not None
    assert "The alert broken cannot be checked: " in caplog.text


# Previews

HISTORY = st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["ok", "error"])), max_size=12)


# Every check is a transaction, and the rules have a test of their own.
@settings(max_examples=12)
@given(HISTORY, st.sampled_from([None, 120.0]), st.sampled_from(["ok", "keep", "alert"]))
def test_a_preview_is_what_the_checks_of_a_server_have_done(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[int, str]],
    renotify_s: float | None,
    no_data: Any,
) -> None:
    app = ScriptedApp(tmp_path_factory.mktemp("home"), Settings(tracking={"wandb": "off"}))
    vars(app.alerting)["channels"] = {"command": ScriptedChannel()}
    alert = replace(ERRORS, renotify_s=renotify_s, no_data=no_data)
    app.alerting.save(alert)
    done = []
    # The answers come one after the other, and every check sees those so far.
    waiting = sorted(enumerate(history), key=lambda item: item[1][0])
    for moment in moments_between(alert, NOON, NOON + 20 * MINUTE):
        while waiting and NOON + waiting[0][1][0] * MINUTE < moment:
            number, (minute, status) = waiting.pop(0)
            ask(app.stores.traces, number, minute, status=status)
        found = app.alerting.check(app.stores.alerts.get("errors"), moment)
        assert found is not None
        done.append(found)
    preview = app.alerting.preview(alert, NOON, NOON + 20 * MINUTE)
    assert list(preview.checks) == done
    assert [notice.at for notice in preview.notices] == [one.at for one in done if one.event]
    app.close()


def test_a_preview_saves_nothing(app: ScriptedApp) -> None:
    ask(app.stores.traces, 1, 1, status="error")
    preview = app.alerting.preview(ERRORS, NOON, NOON + 3_600)
    assert [(notice.state.level, notice.at) for notice in preview.notices] == [
        ("alert", NOON + 120),
        ("ok", NOON + 720),
    ]
    assert app.alerting.watched() == ()


# Delivery


def test_a_notice_that_fails_is_sent_again_after_growing_pauses(
    app: ScriptedApp, channel: ScriptedChannel
) -> None:
    app.alerting.save(replace(ERRORS, channels=("command", "webhook")))
    ask(app.stores.traces, 1, 1, status="error")
    check(app, "errors", 2)
    now, channel.failures = NOON + 120, 1
    assert sorted(delivered(app, now)) == ["", "The line is dead."]
    (trouble,) = app.alerting.troubles()["errors"]
    assert (trouble.error, trouble.attempts, trouble.next_at) == ("The line is dead.", 1, now + 30)
    assert delivered(app, now + 29) == []
    assert delivered(app, now + 30) == [""]
    assert app.alerting.troubles() == {}
    assert len(channel.sent) == 2


def test_a_notice_that_never_works_is_given_up_and_stays_named(app: ScriptedApp, channel: ScriptedChannel) -> None:
    app.alerting.save(ERRORS)
    ask(app.stores.traces, 1, 1, status="error")
    check(app, "errors", 2)
    now, channel.failures, tried = NOON + 120.0, 1_000, 0
    while errors := delivered(app, now):
        tried += len(errors)
        now += pause_s(tried)
    assert tried == MOST_ATTEMPTS
    (trouble,) = app.alerting.troubles()["errors"]
    assert trouble.next_at is None
    assert [pause_s(attempt) for attempt in (1, 2, 3, 20)] == [30, 60, 120, 3_600]
    # The next one that works is all that counts.
    channel.failures = 0
    check(app, "errors", 30)
    assert delivered(app) == [""]
    assert app.alerting.troubles() == {}


def test_a_notice_that_a_process_was_sending_when_it_died_is_sent_by_another(
    app: ScriptedApp, channel: ScriptedChannel
) -> None:
    app.alerting.save(ERRORS)
    ask(app.stores.traces, 1, 1, status="error")
    check(app, "errors", 2)
    taken = app.stores.notices.take(NOON + 120)
    assert taken is not None
    assert delivered(app, NOON + 121) == []
    assert delivered(app, NOON + 1_000) == [""]


def test_old_notices_are_forgotten(app: ScriptedApp, channel: ScriptedChannel) -> None:
    app.alerting.save(ERRORS)
    ask(app.stores.traces, 1, 1, status="error")
    channel.failures = 1
    check(app, "errors", 2)
    delivered(app, NOON + 120)
    later = NOON + KEPT_S + 1_000
    app.alerting.check(app.stores.alerts.get("errors"), later)
    assert delivered(app, later + 1) == [""]
    assert channel.sent == [("errors", "changed", "ok")]


def test_a_channel_that_breaks_does_not_keep_the_others_from_their_notices(
    app: ScriptedApp, channel: ScriptedChannel, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def send(self, _notice: Any) -> None:
            raise ZeroDivisionError

    vars(app.alerting)["channels"] = {"command": Broken(), "webhook": channel}
    app.alerting.save(replace(ERRORS, channels=("command", "webhook")))
    ask(app.stores.traces, 1, 1, status="error")
    check(app, "errors", 2)
    assert sorted(delivered(app)) == [
        "",
        "This is a bug in ragsmith (ZeroDivisionError); its traceback is in the log.",
    ]
    assert "A notice could not be sent" in caplog.text


def test_an_alert_is_saved_only_with_channels_that_the_settings_have(app: ScriptedApp) -> None:
    with pytest.raises(AlertError, match="channel command is not configured"):
        app.alerting.save(ERRORS)
    app.stores.alerts.save(ERRORS)
    # Its settings were removed later.
    (sent,) = app.alerting.test(ERRORS)
    assert sent.error.startswith("The channel command is not configured. Set alerts.command")
    with pytest.raises(AlertError, match="no channel to test"):
        list(app.alerting.test(replace(ERRORS, channels=())))


def test_the_queue_survives_the_database_of_another_connection(app: ScriptedApp, channel: ScriptedChannel) -> None:
    app.alerting.save(ERRORS)
    ask(app.stores.traces, 1, 1, status="error")
    check(app, "errors", 2)
    engine = open_database(app.workspace)
    notice = NoticeQueue(engine).take(NOON + 120)
    assert notice is not None
    assert notice.message.text.startswith("The share of failed answers was 100 %")
    assert AlertStore(engine).get("errors").state.level == "alert"
    engine.dispose()


# The thread of a server


def test_a_server_checks_and_sends_in_a_thread_of_its_own(tmp_path: Path) -> None:
    target = tmp_path / "notice.json"
    code = "import os, sys; open(sys.argv[1] + '~', 'w').write(sys.stdin.read())\n"
    code += "os.replace(sys.argv[1] + '~', sys.argv[1])"
    settings = {"command": (sys.executable, "-c", code, str(target)), "timeout_s": 60}
    app = ScriptedApp(tmp_path, Settings(tracking={"wandb": "off"}, alerts=settings))
    app.alerting.save(replace(ERRORS, window_s=86_400.0))
    app.stores.traces.save(trace_of(1, started=time.time() - 3_600, status="error"))
    timer = AlertTimer(app.alerting, pause_s=0.01)
    timer.start()
    wait_for(target.exists)
    timer.close()
    app.close()
    found = json.loads(target.read_text())
    assert (found["alert"], found["level"], found["value"]) == ("errors", "alert", 1.0)
    assert not [thread for thread in threading.enumerate() if thread.name == "ragsmith-alerts"]


def test_a_database_that_refuses_does_not_end_the_thread(
    app: ScriptedApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked = threading.Semaphore(0)
    problems = iter([DatabaseError("The database is locked."), ZeroDivisionError()])

    def check_due(_alerting: Alerting, _now: float) -> None:
        looked.release()
        if problem := next(problems, None):
            raise problem

    monkeypatch.setattr(Alerting, "check_due", check_due)
    timer = AlertTimer(app.alerting, pause_s=0.01)
    timer.start()
    assert all(looked.acquire(timeout=60) for _ in range(3))
    timer.close()
    assert "could not be checked: The database is locked." in caplog.text
    assert "ZeroDivisionError" in caplog.text
