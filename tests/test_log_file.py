"""The log of a workspace: what was unexpected is found there, and the messages say so."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import pytest
from live_server import running
from scripted_app import ScriptedApp
from terminal import call

from rag.workspace import Workspace
from ui.app import log_file
from ui.app.log_file import open_log
from ui.pages.page_events import error_message

LOG = logging.getLogger("ui.somewhere")


def fail() -> None:
    raise LookupError("no such shelf, said sk-proj-0123456789abcdefghijklmnop")


def failure() -> LookupError:
    try:
        fail()
    except LookupError as error:
        return error
    raise AssertionError


def test_an_unexpected_error_of_the_page_is_in_the_log_that_its_message_names(workspace: Workspace) -> None:
    with open_log(workspace):
        assert error_message(failure()) == (
            "This is a bug in ragsmith (LookupError); its traceback is in logs/ragsmith.log in the workspace."
        )
    text = workspace.log.read_text()
    assert "in fail\n" in text
    assert "LookupError: no such shelf" in text
    assert "sk-proj-0123" not in text
    # Nothing is written after its end.
    LOG.warning("later")
    assert workspace.log.read_text() == text


def test_a_workspace_without_incidents_has_no_log(workspace: Workspace) -> None:
    with open_log(workspace):
        LOG.debug("nothing")
    assert not workspace.log.exists()


def test_a_large_log_is_put_aside(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "LARGEST", 100)
    for number in range(3):
        with open_log(workspace):
            LOG.warning("%d %s", number, "x" * 100)
    assert " 2 x" in workspace.log.read_text()
    assert " 1 x" in workspace.log.with_suffix(".log.1").read_text()
    assert len(list(workspace.log.parent.iterdir())) == 2


def test_a_log_that_cannot_be_written_stops_nothing(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.log.parent.write_text("a file in the way")
    with open_log(workspace):
        LOG.warning("not written")
    assert capsys.readouterr().err == ""


def test_a_command_that_fails_unexpectedly_names_the_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.evaluation.dataset_store.DatasetStore.list", lambda _store: fail())
    result = call(home, "datasets", "list")
    path = home / "logs" / "ragsmith.log"
    assert result.stderr.count("\n") == 1
    assert f"its traceback is in {path}" in result.stderr
    assert "in fail\n" in path.read_text()
    assert call(home, "datasets", "show", "none").exit_code == 1
    assert path.read_text().count("Traceback") == 1


def test_the_api_names_the_log_and_refusals_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = ScriptedApp(tmp_path)
    logging.getLogger("ui").setLevel(logging.INFO)
    monkeypatch.setattr(app.stores, "corpus_names", fail)
    with open_log(app.workspace), running(app) as at:
        error = httpx.get(f"{at}/v1/models").json()["error"]
        asked = {"messages": [{"role": "user", "content": "x"}], "n": 3}
        httpx.post(f"{at}/v1/chat/completions", json=asked)
    logging.getLogger("ui").setLevel(logging.NOTSET)
    app.close()
    assert error["message"] == (
        "This is a bug in ragsmith: LookupError; its traceback is in logs/ragsmith.log in the workspace."
    )
    text = app.workspace.log.read_text()
    assert "in fail\n" in text
    assert "refused with 400 (unsupported_parameter): n cannot be honoured" in text
