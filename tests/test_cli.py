"""The command line: help, messages for failures, and the checks of ``doctor``."""

from __future__ import annotations

import json
import socket
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from rag.errors import RagsmithError
from rag.settings import Settings, load_settings
from rag.workspace import Workspace
from ui.cli import COMMANDS, Entry, cli
from ui.context import Context, pass_context
from ui.doctor import server_probe, setup_checks
from ui.doctor.check import Check
from ui.doctor.examination import examine
from ui.doctor.model_checks import check_model
from ui.doctor.setup_checks import check_port, check_settings, check_wandb, check_workspace
from ui.doctor.store_checks import check_chroma

ROOT = Path(__file__).resolve().parent.parent
# Port 9 is the discard service: nothing listens there.
NOBODY = "http://127.0.0.1:9"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="ragsmith")


@contextmanager
def server(status: int, seen: list[str] | None = None) -> Iterator[str]:
    """A server on the loopback that answers every GET with one status; ``seen`` gets paths and keys."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if seen is not None:
                seen.append(f"{self.path} {self.headers.get('Authorization')}")
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}"
        finally:
            listening.shutdown()
            thread.join()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Adds a command ``scripted`` that does what it is given."""

    def add(action: Callable[[], None]) -> None:
        module = ModuleType("scripted_command")
        module.command = click.Command("scripted", callback=action)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "scripted_command", module)
        monkeypatch.setitem(COMMANDS, "scripted", Entry("scripted_command:command", "Scripted."))  # type: ignore[arg-type]

    return add


def failing(error: BaseException) -> Callable[[], None]:
    def deed() -> None:
        raise error

    return deed


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_every_command(option: str) -> None:
    result = run(option)
    assert result.exit_code == 0
    listed = result.output.partition("Commands:")[2].splitlines()
    assert [line.split(maxsplit=1) for line in listed if line] == [
        [name, entry.help] for name, entry in COMMANDS.items()
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_has_its_own_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: ragsmith {name} ")


@pytest.mark.parametrize("name", ["corpora", "datasets", "eval", "prompts", "traces", "tune"])
def test_the_summary_of_every_command_fits(name: str) -> None:
    assert "..." not in run(name, "--help").output.partition("Commands:")[2]


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["--frobnicate"], ["doctor", "--frobnicate"], ["doctor", "x"]]
)
def test_a_wrong_call_is_a_usage_error(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: ragsmith" in result.stderr
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "closest"), [(["igest"], "ingest"), (["corpora", "lst"], "list"), (["trace"], "traces")]
)
def test_a_misspelt_command_is_answered_with_the_closest_one(arguments: list[str], closest: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.endswith(f"No such command {arguments[-1]!r}. Did you mean {closest!r}?\n")


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    result = run("--version")
    assert result.exit_code == 0
    assert result.output == f"ragsmith {project['version']}\n"


def test_an_error_of_ours_is_one_line(command: Callable[..., None]) -> None:
    command(failing(RagsmithError("The disk\nis full.", fix="Free some space.")))
    result = run("scripted")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Error: The disk is full. Free some space.\n"


def test_a_bug_is_one_line(command: Callable[..., None]) -> None:
    command(failing(KeyError("passage\n7")))
    result = run("scripted")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("This is a bug in ragsmith: KeyError: 'passage")


@pytest.mark.parametrize("error", [RagsmithError("The disk is full."), KeyError("passage")])
def test_debug_shows_the_traceback_before_the_line(error: Exception, command: Callable[..., None]) -> None:
    command(failing(error))
    result = run("--debug", "scripted")
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert "in deed" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(("Error: The disk", "This is a bug in ragsmith: KeyError"))


def test_an_interrupt_has_its_message_and_status(command: Callable[..., None]) -> None:
    command(failing(KeyboardInterrupt()))
    result = run("scripted")
    assert result.exit_code == 130
    assert result.stderr.strip() == "Stopped."


def test_options_before_the_command_reach_its_settings(command: Callable[..., None], tmp_path: Path) -> None:
    seen: list[Settings] = []

    @pass_context
    def deed(context: Context) -> None:
        seen.append(context.settings)
        seen.append(context.settings_with(port=None, retrieval={"k": 9, "mode": None}))

    command(deed)
    config = tmp_path / "own.toml"
    config.write_text("port = 8111\n[retrieval]\nk = 4\nmode = 'dense'\n", encoding="utf-8")
    result = run("--home", str(tmp_path / "h"), "--config", str(config), "--model", "openai:tiny", "scripted")
    assert result.exit_code == 0, result.output
    plain, overridden = seen
    assert (plain.home, plain.model, plain.port) == (tmp_path / "h", "openai:tiny", 8111)
    assert plain.retrieval.k == 4
    assert (overridden.port, overridden.retrieval.k, overridden.retrieval.mode) == (8111, 9, "dense")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("RAGSMITH_MODLE", "did you mean RAGSMITH_MODEL?"),
        ("RAGSMITH_RETREIVAL__K", "did you mean RAGSMITH_RETRIEVAL__K?"),
        ("RAGSMITH_OPENAI_BASE_URL", "did you mean RAGSMITH_OPENAI__BASE_URL?"),
        ("RAGSMITH_XYZ", "it is ignored."),
    ],
)
def test_a_variable_that_sets_nothing_is_one_warning(
    name: str, hint: str, command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    @pass_context
    def deed(context: Context) -> None:
        _ = context.settings
        context.settings_with(port=None)

    command(deed)
    monkeypatch.setenv(name, "3")
    monkeypatch.setenv("RAGSMITH_RETRIEVAL__K", "3")
    monkeypatch.setenv("RAGSMITH_HOME", "here")
    assert run("scripted").stderr == f"Warning: no setting is named {name}; {hint}\n"


@pytest.mark.slow
def test_doctor_passes_a_fresh_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_PORT", "0")
    result = run("doctor", "--json")
    checks = json.loads(result.stdout)
    assert result.exit_code == 0, checks
    assert [set(check) for check in checks] == [{"name", "ok", "detail", "fix"}] * len(checks)
    assert [check["name"] for check in checks] == [
        *("python", "settings", "workspace", "prompts", "database", "chroma", "pending", "alerts", "index"),
        *("encoder", "openvino", "torch", "smollm2", "model", "wandb", "otlp", "port"),
    ]
    # Only a processor without bf16 is allowed to warn.
    assert {check["name"] for check in checks if check["ok"] is not True} <= {"openvino"}
    assert (tmp_path / ".ragsmith" / "ragsmith.db").is_file()


def test_doctor_marks_a_failure_and_names_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_PORT", "0")
    monkeypatch.setenv("RAGSMITH_CHROMA_URL", NOBODY)
    result = run("doctor")
    assert result.exit_code == 1
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert any(line.startswith("✓ python Python 3.") for line in lines)
    failure = next(number for number, line in enumerate(lines) if line.startswith(f"✗ chroma {NOBODY}"))
    assert "Start it with `chroma run" in " ".join(lines[failure + 1 : failure + 3])


def test_doctor_without_settings_says_why() -> None:
    Path("ragsmith.toml").write_text("port = \n", encoding="utf-8")
    result = run("doctor", "--json")
    assert result.exit_code == 1
    checks = json.loads(result.stdout)
    assert [(check["name"], check["ok"]) for check in checks] == [("python", True), ("settings", False)]
    assert "ragsmith.toml cannot be read" in checks[1]["detail"]
    assert checks[1]["fix"]


def test_doctor_names_a_variable_that_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_PROT", "1")
    monkeypatch.setenv("RAGSMITH_RETRIEVAL__K", "3")
    check = check_settings(load_settings())
    assert check.ok is None
    assert check.detail == "No setting is named RAGSMITH_PROT."


@pytest.mark.parametrize(("free_mb", "ok"), [(50, False), (500, None), (5000, True)])
def test_doctor_looks_at_the_room_on_the_disk(
    free_mb: int, ok: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(setup_checks.shutil.disk_usage("."))(10**12, 0, free_mb * 1_000_000)
    monkeypatch.setattr(setup_checks.shutil, "disk_usage", lambda _path: usage)
    check = check_workspace(load_settings())
    assert check.ok is ok
    assert bool(check.fix) is not bool(ok)


def test_doctor_skips_the_stores_of_an_unusable_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".ragsmith").write_text("a file", encoding="utf-8")
    monkeypatch.setenv("RAGSMITH_PORT", "0")
    checks = {check.name: check for check in examine(Context())}
    assert checks["workspace"].ok is False
    assert "RAGSMITH_HOME" in checks["workspace"].fix
    assert not {"database", "chroma"} & set(checks)


def test_doctor_reports_damaged_stores(workspace: Workspace) -> None:
    workspace.chroma.mkdir()
    for file in (workspace.database, workspace.chroma / "chroma.sqlite3"):
        file.write_bytes(b"not a database " * 300)
    checks = {check.name: check for check in examine(Context())}
    for name in ("database", "chroma"):
        assert checks[name].ok is False
        assert "ingest" in checks[name].fix


def test_doctor_knows_an_altered_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rag.encoders import encoder_files as locate

    monkeypatch.setattr(locate, "PACKAGED_SHA256", "0" * 64)
    monkeypatch.setattr(locate, "_in_hub_cache", lambda _name: None)
    checks = {check.name: check for check in examine(Context())}
    assert checks["encoder"].ok is False
    assert "sha256" in checks["encoder"].detail


@pytest.mark.parametrize(("status", "ok"), [(200, True), (500, False)])
def test_doctor_asks_the_chroma_server(status: int, ok: bool) -> None:
    seen: list[str] = []
    with server(status, seen) as url:
        check = check_chroma(load_settings({"chroma_url": f"{url}/"}))
    assert check.ok is ok
    assert seen == ["/api/v2/heartbeat None"]


def model_check(base_url: str | None = None, api_key: str | None = None) -> Check:
    openai = {"base_url": base_url, "api_key": api_key}
    return check_model(Context().settings_with(model="openai:tiny", openai=openai))


def test_doctor_asks_the_model_server_with_the_key() -> None:
    seen: list[str] = []
    with server(200, seen) as url:
        assert model_check(f"{url}/v1", "opensesame").ok is True
        assert model_check(f"{url}/v1/").ok is True
    assert seen == ["/v1/models Bearer opensesame", "/v1/models None"]


def test_doctor_names_a_missing_key_without_asking_anybody() -> None:
    check = model_check()
    assert check.ok is False
    assert "OPENAI_API_KEY" in check.fix


@pytest.mark.parametrize(("key", "fix"), [(None, "Set OPENAI_API_KEY"), ("wrong", "Correct OPENAI_API_KEY")])
def test_doctor_reports_a_refused_key(key: str | None, fix: str) -> None:
    with server(401) as url:
        check = model_check(url, key)
    assert check.ok is False
    assert check.fix.startswith(fix)
    assert "wrong" not in check.detail


@pytest.mark.parametrize("url", [NOBODY, "localhost:11434", "http://", "http://[::1"])
def test_doctor_reports_a_missing_model_server(url: str) -> None:
    check = model_check(url)
    assert check.ok is False
    assert "RAGSMITH_OPENAI__BASE_URL" in check.fix


def test_doctor_does_not_wait_for_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_probe, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        check = model_check(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert check.ok is False
    assert "no answer" in check.detail


@pytest.mark.parametrize(
    ("mode", "logged_in", "ok", "said"),
    [
        ("off", True, True, "off"),
        ("offline", True, True, "offline"),
        ("auto", False, True, "offline"),
        ("auto", True, True, "online"),
        ("online", True, True, "online"),
        ("online", False, False, "nobody is logged in"),
    ],
)
def test_doctor_reports_the_wandb_mode(
    mode: str, logged_in: bool, ok: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if logged_in:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine api.wandb.ai login user password secret\n", encoding="utf-8")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
    check = check_wandb(load_settings({"tracking": {"wandb": mode}}))
    assert check.ok is ok
    assert said in check.detail


def test_doctor_reports_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        # The listener accepts and stays silent, so it is not ragsmith.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server_probe, "TIMEOUT_S", 0.2)
            check = check_port(load_settings({"port": number}))
    assert check.ok is False
    assert "RAGSMITH_PORT" in check.fix
    assert check_port(load_settings({"port": number})).ok is True


def test_doctor_accepts_a_running_ragsmith() -> None:
    with server(200) as url:
        check = check_port(load_settings({"port": int(url.rpartition(":")[2])}))
    assert check.ok is True


def test_doctor_reports_an_address_of_another_machine() -> None:
    check = check_port(load_settings({"host": "192.0.2.1"}))
    assert check.ok is False
    assert "RAGSMITH_HOST" in check.fix
