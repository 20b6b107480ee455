"""`ragsmith alerts` defines, previews, checks and tests alerts; its exit status says the level."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine
from terminal import assert_one_line, call, one_object
from test_ledger import trace_of

from rag.alert_settings import AlertSettings
from rag.alerting.alert_rules import METRICS
from rag.alerting.alert_texts import CHANNELS
from rag.settings import Settings, TrackingSettings
from rag.tracing.trace_store import TraceStore
from rag.workspace import Workspace
from ui.commands import alerts_command
from ui.doctor.store_checks import check_alerts

SLOW = ("--metric", "p95", "--alert", "3s", "--warning", "1s")
ERRORS = ("--metric", "errors", "--alert", "5%")


@pytest.fixture
def home(engine: Engine, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A workspace with an answer of two seconds and a failed one, ten minutes ago, and a command for notices."""
    store, now = TraceStore(engine), time.time()
    store.save(trace_of(1, started=now - 600))
    store.save(trace_of(2, started=now - 600, status="error"))
    code = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"
    config = tmp_path / "settings.toml"
    config.write_text(f"[alerts]\ncommand = {[sys.executable, '-c', code, str(tmp_path / 'notices')]}\n")
    monkeypatch.setenv("RAGSMITH_CONFIG", str(config))
    return workspace.root


def test_the_choices_of_the_options_are_those_of_the_rules() -> None:
    assert tuple(METRICS) == alerts_command.METRICS
    assert CHANNELS == alerts_command.CHANNELS


def test_an_alert_is_added_changed_listed_and_removed(home: Path) -> None:
    assert "There are no alerts." in call(home, "alerts", "list").stdout
    added = call(home, "alerts", "add", "slow answers", *SLOW)
    assert added.stdout == ("Saved slow answers: p95 answer time above 1.0 s (warning) and 3.0 s (alert) in 1h.\n")
    assert "It has no channel" in added.stderr
    changed = one_object(call(home, "alerts", "add", "slow answers", "--window", "15min", "--json"))
    assert (changed["alert_at"], changed["window_s"]) == (3.0, 900.0)
    other = call(home, "alerts", "add", "slow answers", "--metric", "cost")
    assert (other.exit_code, "needs --alert, in the unit of that metric" in other.stderr) == (2, True)
    assert_one_line(call(home, "alerts", "add", " ", *SLOW), "must have 1 to 120 characters")
    for since in ("2099-01-01", "1970-01-01"):
        assert "--since must be before now" in call(home, "alerts", "preview", *SLOW, "--since", since).stderr
    (listed,) = one_object(call(home, "alerts", "list", "--json"))
    assert (listed["name"], listed["state"]["level"], listed["not_sent"]) == ("slow answers", "ok", [])
    assert "not checked" in call(home, "alerts", "list").stdout
    assert one_object(call(home, "alerts", "remove", "slow answers", "--json")) == {"removed": "slow answers"}
    assert_one_line(call(home, "alerts", "remove", "slow answers"), "no alert 'slow answers'")


def test_a_check_sends_notices_and_exits_with_the_worst_level(home: Path, tmp_path: Path) -> None:
    call(home, "alerts", "add", "slow", *SLOW, "--channel", "command")
    checked = call(home, "alerts", "check", "--json")
    (record,) = one_object(checked)
    assert (checked.exit_code, record["state"]["level"]) == (3, "warning")
    call(home, "alerts", "add", "errors", *ERRORS)
    assert call(home, "alerts", "check").exit_code == 4
    assert call(home, "alerts", "check", "slow").exit_code == 3
    call(home, "alerts", "add", "many", "--metric", "requests", "--alert", "100")
    assert call(home, "alerts", "check", "many").exit_code == 0
    # Once, however often it was checked.
    assert (tmp_path / "notices").read_text().count('"event": "changed"') == 1


def test_a_notice_that_cannot_be_sent_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(home, "alerts", "add", "errors", *ERRORS, "--channel", "command")
    monkeypatch.setenv("RAGSMITH_ALERTS__COMMAND", '["/no/such/program"]')
    checked = call(home, "alerts", "check")
    assert checked.exit_code == 4
    assert "The alert errors was not sent by command: The command /no/such/program cannot be" in checked.stderr
    assert "/no/such/program" in call(home, "alerts", "list").stdout
    tested = call(home, "alerts", "test", "errors", "--json")
    assert tested.exit_code == 1
    assert one_object(tested)[0]["channel"] == "command"
    # The level is ok again, and what waits still cannot be sent.
    call(home, "alerts", "add", "errors", "--alert", "90%")
    assert call(home, "alerts", "check").exit_code == 1


def test_a_test_reaches_every_channel(home: Path, tmp_path: Path) -> None:
    call(home, "alerts", "add", "errors", *ERRORS, "--channel", "command")
    assert call(home, "alerts", "test", "errors").stdout == "command: sent\n"
    assert '"title": "ragsmith: errors is alert (test)"' in (tmp_path / "notices").read_text()


def test_a_preview_shows_notices_of_an_alert_that_is_not_saved(home: Path) -> None:
    shown = call(home, "alerts", "preview", *ERRORS, "--since", "2h").stdout
    assert "share of failed answers above 5 % in 1h:" in shown
    assert "1 notice of " in shown
    found = one_object(call(home, "alerts", "preview", *ERRORS, "--since", "2h", "--json"))
    (notice,) = found["notices"]
    assert (notice["level"], notice["before"], notice["value"]) == ("alert", "ok", 0.5)
    assert call(home, "alerts", "list", "--json").stdout == "[]\n"
    call(home, "alerts", "add", "errors", *ERRORS)
    # A saved one, changed by an option.
    assert one_object(call(home, "alerts", "preview", "errors", "--alert", "60%", "--json"))["notices"] == []


@pytest.mark.parametrize(
    ("arguments", "problem", "status"),
    [
        (("add", "x"), "There is no alert 'x'; a new alert needs --metric.", 2),
        (("preview",), "A new alert needs --metric.", 2),
        (("add", "x", "--metric", "p95"), "needs --alert", 2),
        (("add", "x", "--metric", "speed"), "speed", 2),
        (("add", "x", *ERRORS, "--filter", "model ="), "filter of an alert is not understood", 1),
        (("add", "x", *ERRORS, "--channel", "webhook"), "channel webhook is not configured", 1),
        (("add", "x", *ERRORS, "--window", "0"), "1min to 7d", 1),
        (("preview", *ERRORS, "--since", "whenever"), "whenever", 1),
        (("check", "x"), "no alert 'x'", 1),
        (("test", "x"), "no alert 'x'", 1),
    ],
)
def test_wrong_arguments_are_named(home: Path, arguments: tuple[str, ...], problem: str, status: int) -> None:
    refused = call(home, "alerts", *arguments)
    assert refused.exit_code == status
    assert problem in refused.stderr


def test_doctor_says_what_keeps_an_alert_from_being_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> tuple[bool | None, str]:
        check = check_alerts(Settings(home=home, tracking=TrackingSettings(wandb="off"), alerts=alerts))
        return check.ok, check.detail

    alerts = AlertSettings(command=("/nonexistent/program",))
    assert found() == (True, "none")
    call(home, "alerts", "add", "errors", *ERRORS, "--channel", "command")
    assert found() == (None, "nothing checks errors")
    call(home, "alerts", "check")
    assert found() == (True, "errors: alert")
    call(home, "alerts", "add", "slow", *SLOW, "--channel", "command")
    monkeypatch.setenv("RAGSMITH_ALERTS__COMMAND", '["/no/such/program"]')
    call(home, "alerts", "check")
    assert found()[0] is None
    assert "a notice was not sent: slow by command: The command /no/such/program" in found()[1]
    alerts = AlertSettings()
    assert found() == (None, "not configured, but named by an alert: command")
