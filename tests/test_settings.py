"""Settings: which source wins, what is refused, and that a secret stays one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rag.errors import SettingsError
from rag.settings import Settings, load_settings

PORTS = st.none() | st.integers(0, 65535)


@contextmanager
def folder(**variables: str) -> Iterator[pytest.MonkeyPatch]:
    """An empty current folder and an environment of its own, for tests that run many examples."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.chdir(name)
        for variable, value in variables.items():
            patch.setenv(variable, value)
        yield patch


def write_config(text: str, name: str = "ragsmith.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_need_no_source() -> None:
    settings = load_settings()
    assert settings.home == Path(".ragsmith")
    assert (settings.host, settings.port, settings.model) == ("127.0.0.1", 7860, "extractive")


@given(file=PORTS, variable=PORTS, flag=PORTS)
def test_flags_win_over_the_environment_over_the_file(
    file: int | None, variable: int | None, flag: int | None
) -> None:
    with folder() as patch:
        if file is not None:
            write_config(f"port = {file}\n")
        if variable is not None:
            patch.setenv("RAGSMITH_PORT", str(variable))
        given_ports = [port for port in (flag, variable, file) if port is not None]
        assert load_settings({"port": flag}).port == (given_ports[0] if given_ports else 7860)


def test_sources_mix_within_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    write_config("[retrieval]\nk = 3\nmode = 'dense'\ncandidates = 30\n")
    monkeypatch.setenv("RAGSMITH_RETRIEVAL__MODE", "lexical")
    monkeypatch.setenv("RAGSMITH_RETRIEVAL__K", "4")
    retrieval = load_settings({"retrieval": {"k": 7}}).retrieval
    assert (retrieval.k, retrieval.mode, retrieval.candidates) == (7, "lexical", 30)


def test_home_host_and_port_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOME": "/srv/notes", "HOST": "::1", "PORT": "0"}.items():
        monkeypatch.setenv(f"RAGSMITH_{name}", value)
    settings = load_settings()
    assert (settings.home, settings.host, settings.port) == (Path("/srv/notes"), "::1", 0)


@pytest.mark.parametrize(
    ("model", "condenser", "active"),
    [
        ("extractive", "auto", "words"),
        ("smollm2", "auto", "smollm2"),
        ("local:org/model", "auto", "model"),
        ("openai:gpt-4o", "smollm2", "smollm2"),
        ("extractive", "generator", "smollm2"),
        ("smollm2", "words", "words"),
    ],
)
def test_what_rewrites_follow_ups_depends_on_the_model(model: str, condenser: str, active: str) -> None:
    settings = Settings(model=model, retrieval={"condenser": condenser})
    assert settings.active_condenser == active
    assert settings.uses_smollm2 is ("smollm2" in (model, active))


def test_the_older_name_of_the_extractive_reader_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_MODEL", "embedded")
    assert load_settings().model == "extractive"


def test_the_config_variable_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write_config("port = 1\n")
    write_config("port = 2\n", "other.toml")
    write_config("port = 3\n", "named.toml")
    monkeypatch.setenv("RAGSMITH_CONFIG", "other.toml")
    assert load_settings().port == 2
    assert load_settings(config=Path("named.toml")).port == 3


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml does not exist"):
        load_settings(config=Path("nowhere.toml"))
    monkeypatch.setenv("RAGSMITH_CONFIG", "elsewhere.toml")
    with pytest.raises(SettingsError, match=r"elsewhere\.toml does not exist"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[retrieval]\nk = 0\n", "retrieval.k"),
        ("[retrieval]\nk = true\n", "retrieval.k"),
        ("[retrieval]\ndense_weight = 1.5\n", "retrieval.dense_weight"),
        ("[retrieval]\nmode = 'both'\n", "retrieval.mode"),
        ("port = 65536\n", "port"),
        ("port = 'many'\n", "port"),
        ("encoder = 'small'\n", "encoder"),
    ],
)
def test_a_file_with_an_unusable_setting_names_it(text: str, named: str) -> None:
    write_config(text)
    with pytest.raises(SettingsError, match=rf"The setting {named} is not usable") as caught:
        load_settings()
    assert "ragsmith.toml" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("colour = 'red'\n", "Unknown setting `colour`."),
        ("temperature = 1\n", "Unknown setting `temperature` (did you mean `decoding.temperature`?)."),
        ("[retrieval]\ncandidate = 3\n", "`retrieval.candidate` (did you mean `retrieval.candidates`?)."),
        ("[retreival]\nk = 3\n", "`retreival` (did you mean `retrieval`?)."),
    ],
)
def test_the_closest_name_is_proposed_for_an_unknown_setting(text: str, problem: str) -> None:
    write_config(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.message.endswith(problem)
    assert "ragsmith.toml" in caught.value.fix


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("RAGSMITH_RETRIEVAL__K", "many", "retrieval.k"),
        ("RAGSMITH_PORT", "-1", "port"),
        ("RAGSMITH_DECODING__TEMPERATURE", "2.1", "decoding.temperature"),
    ],
)
def test_a_variable_with_an_unusable_value_is_named(
    variable: str, value: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"The setting {named} is not usable"):
        load_settings()


def test_an_unknown_flag_is_named() -> None:
    with pytest.raises(SettingsError, match="colour"):
        load_settings({"colour": "red"})


@given(port=st.integers().filter(lambda port: not 0 <= port <= 65535))
def test_every_port_out_of_range_is_refused(port: int) -> None:
    with folder(RAGSMITH_PORT=str(port)), pytest.raises(SettingsError, match="port"):
        load_settings()


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    Path("ragsmith.toml").write_bytes(b"\xef\xbb\xbfport = 1\n[access]\nno_auth = true\n")
    settings = load_settings()
    assert (settings.port, settings.access.no_auth) == (1, True)


@pytest.mark.parametrize(
    "content", [b"port = \n", b"[retrieval\nk = 3\n", b"port = 1\nport = 2\n", b"\xff\xfe\x00"]
)
def test_a_malformed_file_is_one_clear_error(content: bytes) -> None:
    Path("ragsmith.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"The settings file ragsmith\.toml cannot be read"):
        load_settings()


@given(text=st.text(max_size=60))
def test_no_file_content_escapes_as_another_error(text: str) -> None:
    with folder():
        Path("ragsmith.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
        with suppress(SettingsError):
            load_settings()


@pytest.mark.parametrize("value", ["5", "{", "[1]", "many"])
def test_a_section_variable_that_is_no_json_object_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_RETRIEVAL", value)
    with pytest.raises(SettingsError, match="retrieval"):
        load_settings()


def test_a_list_that_is_no_json_is_explained_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_TRACING__MASK", "email")
    with pytest.raises(SettingsError, match=r"lists .* must be JSON: .*tracing") as caught:
        load_settings()
    assert """RAGSMITH_TRACING__MASK='["email"]'""" in caught.value.fix


def test_a_key_in_the_environment_does_not_hide_a_wrong_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "usual")
    write_config("openai = 3\n")
    with pytest.raises(SettingsError, match="The setting openai is not usable"):
        load_settings()


def test_the_openai_key_falls_back_to_its_usual_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().openai.api_key is None
    monkeypatch.setenv("OPENAI_API_KEY", "usual")
    assert secret(load_settings()) == "usual"
    monkeypatch.setenv("RAGSMITH_OPENAI__API_KEY", "own")
    assert secret(load_settings()) == "own"


def test_a_key_in_the_file_wins_over_the_usual_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    write_config("[openai]\napi_key = 'filed'\nbase_url = 'http://127.0.0.1:1/v1'\n")
    monkeypatch.setenv("OPENAI_API_KEY", "usual")
    settings = load_settings()
    assert secret(settings) == "filed"
    assert settings.openai.base_url == "http://127.0.0.1:1/v1"


# A short secret, or one that is a word, may stand in the text by chance.
@given(key=st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=8, max_size=40).map("sk9{}".format))
def test_a_secret_stays_out_of_everything_that_is_printed(key: str) -> None:
    with folder(OPENAI_API_KEY=key):
        settings = load_settings()
    assert secret(settings) == key
    for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert key not in shown


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.retrieval.k = 1  # type: ignore[misc]


def secret(settings: Settings) -> str:
    assert settings.openai.api_key is not None
    return settings.openai.api_key.get_secret_value()
