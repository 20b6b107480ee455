"""Passwords of settings and keys in questions reach no error, no check, no trace and no tracker."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from terminal import call
from tiny import CORPUS, QUESTION, answered, open_tiny, scripted

from rag.answering.conversation_store import ConversationStore
from rag.database import open_database
from rag.encoders import Encoder
from rag.errors import DatabaseError, RagsmithError, SettingsError, VectorStoreError
from rag.indexing.dense_index import open_chroma
from rag.models.chat_models import open_remote_model
from rag.redaction import MASK
from rag.settings import Settings, load_settings
from rag.types import Answer, Turn
from rag.workspace import Workspace
from ui import cli as cli_module
from ui.doctor.model_checks import check_model
from ui.doctor.store_checks import check_chroma, check_database
from ui.pages.page_events import error_message

PASSWORD = "hunter2horse"
KEY = "sk-proj-Ab12Cd34Ef56Gh78Ij90"
NOBODY = "127.0.0.1:9"
ODD = [f"me:{PASSWORD}", f":{PASSWORD}", f"me:a/{PASSWORD}", f"me:a@{PASSWORD}", f"me:%2F{PASSWORD}"]


@pytest.mark.parametrize("user", ODD)
def test_the_password_of_a_chroma_server_is_not_shown(user: str, workspace: Workspace) -> None:
    url = f"http://{user}@{NOBODY}"
    with pytest.raises((SettingsError, VectorStoreError)) as raised:
        open_chroma(workspace, url)
    assert PASSWORD not in str(raised.value)
    assert f"{MASK}@{NOBODY}" in str(raised.value)
    check = check_chroma(Settings(chroma_url=url))
    assert PASSWORD not in str(check)
    with pytest.raises(SettingsError) as refused:
        open_chroma(workspace, f"ftp://{user}@host")
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("user", [user for user in ODD if "a/" not in user])
async def test_the_password_of_a_model_server_is_not_shown(user: str) -> None:
    base_url = f"http://{user}@{NOBODY}/v1"
    settings = Settings(model="openai:tiny", openai={"base_url": base_url, "api_key": "x", "max_retries": 0})
    assert PASSWORD not in str(check_model(settings))
    with pytest.raises(RagsmithError, match="redacted") as raised:
        await open_remote_model(settings).ainvoke("hello")
    assert PASSWORD not in str(raised.value)


def test_a_password_that_no_client_can_read_is_refused_with_the_settings() -> None:
    with pytest.raises(SettingsError, match="%2F") as raised:
        load_settings({"openai": {"base_url": f"http://me:a/{PASSWORD}@host/v1"}})
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [f"postgresql+psycopg2://me:{PASSWORD}@{NOBODY}/x", f"nonsense://me:{PASSWORD}@host/x", f":{PASSWORD}@x"],
)
def test_the_password_of_a_database_is_not_shown(url: str, workspace: Workspace) -> None:
    with pytest.raises(DatabaseError) as raised:
        open_database(workspace, url)
    assert PASSWORD not in str(raised.value)
    assert PASSWORD not in str(check_database(Settings(database_url=url)))


@pytest.mark.parametrize(
    "table",
    [
        f'port = "{KEY}"',
        f'[access]\npassword = ["{PASSWORD}1"]',
        f'openai = "password={PASSWORD}"',
        f'[openai]\nbase_url = {{ password = "{PASSWORD}" }}',
        f"password = {PASSWORD}",
    ],
)
def test_a_setting_that_is_refused_is_not_repeated(table: str, tmp_path: Path) -> None:
    path = tmp_path / "ragsmith.toml"
    path.write_text(table, encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        load_settings(config=path)
    assert PASSWORD not in str(raised.value)
    assert KEY not in str(raised.value)
    # And nor does what a traceback shows of it.
    assert PASSWORD not in repr(raised.value.__cause__)
    assert KEY not in repr(raised.value.__cause__)


@pytest.mark.parametrize("error", [RagsmithError(f"It said http://me:{PASSWORD}@h."), ValueError(f"bad {KEY}")])
def test_an_error_that_repeats_a_secret_is_masked_where_it_is_printed(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        logging.getLogger("rag").warning("It said %s", KEY)
        raise error

    monkeypatch.setattr("ui.app.app.open_app", fail)
    result = CliRunner().invoke(cli_module.cli, ["--home", str(tmp_path / "home"), "ask", "why?"])
    assert result.exit_code != 0
    assert MASK in result.stderr
    assert "Warning: It said" in result.stderr
    assert PASSWORD not in result.output
    assert KEY not in result.output
    assert PASSWORD not in error_message(error)
    assert KEY not in error_message(error)


def test_a_key_in_a_question_is_kept_in_the_conversation_alone(
    converted_models: Path, encoder: Encoder, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    app = open_tiny(tmp_path / "home", converted_models, encoder=encoder, tracking={"wandb": "offline"})
    typed = f"{QUESTION} My key is {KEY}, and password={PASSWORD}."
    history = (Turn(typed, f"Your key is {KEY}."),)
    conversation = app.stores.conversations.new(CORPUS)
    asyncio.run(answered(app, typed, conversation_id=conversation))
    asyncio.run(answered(app, "Who reads it?", history=history, conversation_id=conversation))
    # A model that rewrites a follow-up keeps the password and not the word before it.
    repeating = scripted(app, "You wrote ", PASSWORD, " and ", KEY, " [1]")
    asyncio.run(answered(repeating, "Who reads it?", history=history, conversation_id=conversation))
    app.tracking.start()
    app.close()
    pages = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.suffix == ".wandb" for path in pages)
    for path in pages:
        held = path.read_bytes()
        assert KEY.encode() not in held, path
        assert PASSWORD.encode() not in held, path


def test_a_conversation_shows_what_was_typed_and_lists_it_masked(workspace: Workspace) -> None:
    engine = open_database(workspace)
    store = ConversationStore(engine)
    made = store.new("notes")
    typed = f"Is {KEY} a key?"
    place = store.append(made, typed)
    store.finish(made, place, Answer("It is.", "answered", standalone=typed))
    kept = store.load(made)
    engine.dispose()
    assert kept is not None
    assert kept.exchanges[0].question == typed
    assert kept.title == f"Is {MASK} a key?"
    assert kept.exchanges[0].answer is not None
    assert kept.exchanges[0].answer.standalone == f"Is {MASK} a key?"


def test_the_configuration_of_a_tracker_run_holds_no_secret(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    from rag.settings import TrackingSettings
    from rag.tracing.wandb_run import RunLabel, open_run

    given: dict[str, Any] = {}

    class StopError(Exception):
        pass

    def init(**options: Any) -> None:
        given.update(options)
        raise StopError

    monkeypatch.setattr(wandb, "init", init)
    config = {"model": f"http://me:{PASSWORD}@host/v1", "api_key": KEY, "recipe": {"note": KEY, "rows": (1, 2)}}
    open_run(TrackingSettings(wandb="offline"), workspace.root, config, RunLabel("a test", "day"))
    assert PASSWORD not in json.dumps(given["config"])
    assert KEY not in json.dumps(given["config"])


def test_doctor_prints_no_password(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_CHROMA_URL", f"http://me:{PASSWORD}@{NOBODY}")
    monkeypatch.setenv("RAGSMITH_OPENAI__BASE_URL", f"http://me:{PASSWORD}@{NOBODY}/v1?api_key={PASSWORD}")
    result = call(home, "--model", "openai:tiny", "doctor", "--json")
    assert PASSWORD not in result.output
    assert MASK in result.output
