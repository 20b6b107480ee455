"""Alerts reach the W&B run of the day: from a command, and from a server that delivers traces to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted_app import ScriptedApp
from tracked import finished_run, trace_of, wait_for
from wandb_reader import RunFile, offline_runs, read_run

from rag.alerting.alert_rules import Alert
from rag.settings import Settings
from ui.app.app import App

pytestmark = [pytest.mark.usefixtures("isolated_wandb"), pytest.mark.slow]

ERRORS = Alert("errors", "errors", 0.1, channels=("wandb",))


def alerts(run: RunFile) -> list[tuple[str, str]]:
    found: list[Any] = [record.alert for record in run.records if record.WhichOneof("record_type") == "alert"]
    return [(alert.title, alert.level) for alert in found]


def errors_of(app: App) -> list[str]:
    return [sent.error for sent in app.alerting.test(ERRORS)]


def test_a_command_logs_an_alert_to_the_run_of_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.tracing.wandb_delivery._LOCK_S", 0.0)
    app = ScriptedApp(tmp_path, Settings(tracking={"wandb": "offline"}))
    assert errors_of(app) == [""]
    (path,) = offline_runs(tmp_path)
    assert alerts(finished_run(path)) == [("ragsmith: errors is alert (test)", "ERROR")]
    with app.workspace.delivering():
        (busy,) = errors_of(app)
    assert "Another ragsmith process is delivering" in busy
    app.close()


def test_a_server_logs_it_to_the_run_that_has_its_traces(tmp_path: Path) -> None:
    app = ScriptedApp(tmp_path, Settings(tracking={"wandb": "offline"}))
    app.tracking.start()
    app.stores.traces.save(trace_of(1))
    app.tracking.on_traced()
    wait_for(lambda: [path for path in offline_runs(tmp_path) if read_run(path).trees])
    # Twice: W&B itself would hold back the second one.
    assert errors_of(app) == errors_of(app) == [""]
    app.close()
    (path,) = offline_runs(tmp_path)
    run = finished_run(path)
    assert len(run.trees) == 1
    assert alerts(run) == [("ragsmith: errors is alert (test)", "ERROR")] * 2


def test_w_and_b_that_is_off_or_fails_takes_none(tmp_path: Path) -> None:
    off = ScriptedApp(tmp_path, Settings(tracking={"wandb": "off"}))
    assert "The channel wandb is not configured" in errors_of(off)[0]
    off.close()
    (tmp_path / "wandb").write_text("no folder")
    broken = ScriptedApp(tmp_path, Settings(tracking={"wandb": "offline"}))
    (as_command,) = errors_of(broken)
    broken.tracking.start()
    (as_server,) = errors_of(broken)
    assert as_command.startswith("W&B did not take an alert. W&B cannot write to ")
    assert as_server.startswith("W&B did not take an alert. W&B cannot write to ")
    broken.close()
