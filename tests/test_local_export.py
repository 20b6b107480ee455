"""Exports to int8: what CTranslate2 makes of a model, how it is served, and what is never loaded."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from terminal import assert_one_line, call
from tiny import whole
from tiny_lm import MESSAGES, OTHERS, chat, make_model, make_tokenizer, opened

from finetune.export import export_int8
from rag.errors import ModelError, ModelUnavailable, SettingsError, StorageFull
from rag.models.local.chat_template import render
from rag.models.local.export_card import CARD, read_card
from rag.models.local.local_adapters import find_lora
from rag.models.local.local_engine import LocalEngine
from ui.cli import cli

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tiny_lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_int8(str(tiny_lm), [], tmp_path_factory.mktemp("exports") / "int8").folder


@pytest.fixture(scope="module")
def engine(exported: Path) -> Iterator[LocalEngine]:
    with opened(exported) as made:
        yield made


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """A copy of the export that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


# Serving


def test_an_export_writes_what_its_model_begins_with(engine: LocalEngine, tiny_lm: Path) -> None:
    with opened(tiny_lm) as original:
        told = chat(original, max_tokens=6).invoke(MESSAGES).text
    # Weights of eight bits write something else sooner or later; weights of another model would at once.
    assert chat(engine).invoke(MESSAGES).text.startswith(told[:6])
    assert engine.runtime == "CTranslate2 on cpu, int8"


def test_an_export_streams_and_counts(engine: LocalEngine) -> None:
    chunks = list(chat(engine, max_tokens=20).stream(MESSAGES))
    reply = whole(chunks)
    read = len(render(make_tokenizer(), MESSAGES).ids)
    assert len([chunk for chunk in chunks if chunk.content]) > 8
    assert reply.usage_metadata == {"input_tokens": read, "output_tokens": 20, "total_tokens": read + 20}
    assert reply.response_metadata["finish_reason"] == "length"


def test_an_export_ends_at_stop_sequences_and_end_tokens(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = chat(engine).invoke(MESSAGES).text
    for at in range(2, 12):
        stop = told[at : at + 3]
        assert chat(engine).invoke(MESSAGES, stop=[stop]).text == told[: told.index(stop)]
    first = make_tokenizer()(told[:4])["input_ids"]
    monkeypatch.setattr(engine.backend, "ends", frozenset(first))
    reply = chat(engine).invoke(MESSAGES)
    assert reply.text == ""
    assert reply.response_metadata["finish_reason"] == "stop"


def test_an_export_honours_the_temperature_and_the_window(engine: LocalEngine) -> None:
    greedy = chat(engine).invoke(MESSAGES).text
    assert chat(engine).invoke(MESSAGES).text == greedy
    assert len({chat(engine, temperature=1.0).invoke(MESSAGES).text for _ in range(3)}) == 3
    with pytest.raises(ModelError, match="reads at most 2,048"):
        chat(engine).invoke([HumanMessage("ferry " * 3000)])


async def test_leaving_an_export_stops_the_work(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    backend: Any = engine.backend
    real = backend._generator

    class Counting:
        def generate_batch(self, *args: Any, callback: Callable[[Any], bool], **given: Any) -> Any:
            return real.generate_batch(*args, callback=lambda step: made.append(1) or callback(step), **given)

    monkeypatch.setattr(backend, "_generator", Counting())
    seen = 0
    stream = chat(engine, max_tokens=1900).astream(MESSAGES)
    async for _ in stream:
        seen += 1
        if seen == 6:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    await chat(engine, max_tokens=1).ainvoke(MESSAGES)
    assert len(made) < 1200


def test_requests_of_like_length_share_a_batch_and_write_as_alone(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = chat(engine)
    alike = [HumanMessage("When does a ferry leave?")]
    alone = [model.invoke(messages).text for messages in (alike, alike, OTHERS)]
    batches: list[int] = []
    begun, go = threading.Event(), threading.Event()
    backend: Any = engine.backend
    real = backend.run

    def run(rows: Any) -> None:
        begun.set()
        assert go.wait(60)
        batches.append(len(rows))
        real(rows)

    monkeypatch.setattr(backend, "run", run)

    async def together() -> list[str]:
        first = asyncio.create_task(model.ainvoke([HumanMessage("First?")]))
        await asyncio.to_thread(begun.wait, 60)
        others = [asyncio.create_task(model.ainvoke(messages)) for messages in (alike, alike, OTHERS)]
        while len(engine._batches._waiting) < 3:
            await asyncio.sleep(0.01)
        go.set()
        await first
        return [str((await other).text) for other in others]

    assert asyncio.run(together()) == alone
    assert batches == [1, 2, 1]


def test_an_export_takes_no_adapter(exported: Path, tiny_lm: Path) -> None:
    with (
        pytest.raises(ModelUnavailable, match="cannot load adapters") as caught,
        opened(exported, tiny_lm.parent, adapter="citer"),
    ):
        pass
    assert "--adapter NAME" in caught.value.fix


def test_a_missing_ctranslate2_is_told(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "ctranslate2" else real(name, *rest)
    )
    with pytest.raises(ModelUnavailable, match="needs the library ctranslate2") as caught, opened(exported):
        pass
    assert "ragsmith[tune]" in caught.value.fix


# Making


def test_the_card_says_what_the_export_is(exported: Path, tiny_lm: Path) -> None:
    card = read_card(exported)
    assert (card.base, card.adapters, card.quantization, card.window) == (str(tiny_lm), (), "int8", 2048)
    assert card.end_tokens == (make_tokenizer().eos_token_id,)
    assert set(card.files) == {path.name for path in exported.iterdir()} - {CARD}
    weights = (tiny_lm / "model.safetensors").stat().st_size
    assert card.files["model.bin"].bytes < weights / 2


def test_an_adapter_is_merged_before_it_is_converted(tiny_lm: Path, exported: Path, tmp_path: Path) -> None:
    adapter = find_lora("citer", tiny_lm.parent)
    made = export_int8(str(tiny_lm), [adapter], tmp_path / "new" / "cited")
    assert made.card.adapters == ("citer",)
    with opened(tiny_lm, tiny_lm.parent, adapter="citer") as original:
        told = chat(original, adapter="citer", max_tokens=6).invoke(MESSAGES).text
    with opened(made.folder) as cited, opened(exported) as plain:
        assert chat(cited).invoke(MESSAGES).text.startswith(told[:4])
        assert chat(cited).invoke(MESSAGES).text != chat(plain).invoke(MESSAGES).text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cited"]


def test_a_tokenizer_without_a_first_token_is_exported_as_it_is(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    tokenizer = make_tokenizer()
    tokenizer.bos_token = None
    tokenizer.save_pretrained(model)
    made = export_int8(str(model), [], tmp_path / "int8")
    assert json.loads((made.folder / "tokenizer_config.json").read_text()).get("bos_token") is None
    with opened(made.folder) as engine:
        assert chat(engine).invoke(MESSAGES).text


def test_what_exists_is_not_overwritten(tiny_lm: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(SettingsError, match="already exists"):
        export_int8(str(tiny_lm), [], tmp_path / "kept")


def test_an_export_is_not_exported_again(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is already an export"):
        export_int8(str(exported), [], tmp_path / "again")


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(28, "No space left on device"), StorageFull), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_an_export_that_is_broken_off_leaves_nothing(
    tiny_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, told: type[BaseException]
) -> None:
    from ctranslate2.converters import TransformersConverter

    def half(self: Any, output_dir: str, **_: Any) -> None:
        Path(output_dir, "model.bin").write_bytes(b"half")
        raise error

    monkeypatch.setattr(TransformersConverter, "convert", half)
    with pytest.raises(told):
        export_int8(str(tiny_lm), [], tmp_path / "new" / "int8")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_kind_of_model_that_cannot_be_converted_is_told(tiny_lm: Path, tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    folder = Path(shutil.copytree(tiny_lm, tmp_path / "mamba"))
    config = MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(folder)
    with pytest.raises(ModelUnavailable, match=r"CTranslate2 cannot convert the model .* MambaConfig"):
        export_int8(str(folder), [], tmp_path / "int8")
    assert not (tmp_path / "int8").exists()


# Damage


def spoil(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / CARD).unlink(), "contains an export without card.json"),
        (lambda folder: (folder / CARD).write_text("{}"), "contains an export without card.json"),
        (
            lambda folder: (folder / CARD).write_text('{"format": "ragsmith-ctranslate2"}'),
            "card.json cannot be read",
        ),
        (lambda folder: (folder / "model.bin").unlink(), "model.bin is missing"),
        (lambda folder: (folder / "model.bin").write_bytes(b"x" * 100), "model.bin has 100 bytes instead of"),
        (lambda folder: spoil(folder / "model.bin"), "model.bin has changed"),
        (lambda folder: spoil(folder / "tokenizer.json"), "tokenizer.json has changed"),
    ],
)
def test_a_damaged_export_is_never_loaded(copy: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(copy)
    with pytest.raises(ModelUnavailable) as caught, opened(copy):
        pass
    assert words in caught.value.message
    assert "ragsmith tune export" in caught.value.fix


# The command


def test_the_command_makes_an_export_and_says_how_to_serve_it(tiny_lm: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "models").mkdir(parents=True)
    (tmp_path / "home" / "models" / "adapters").symlink_to(tiny_lm.parent)
    target = tmp_path / "int8"
    told = ("tune", "export", f"local:{tiny_lm}", "--adapter", "citer", "--to", str(target))
    result = call(tmp_path / "home", *told)
    assert result.exit_code == 0, result.output
    assert result.stderr == "Merging the adapters.\nConverting to int8.\n"
    assert result.stdout.splitlines()[-1] == f"Serve it with: ragsmith --model local:{target} serve"
    assert read_card(target).adapters == ("citer",)
    assert_one_line(call(tmp_path / "home", *told), "already exists")


def test_the_command_refuses_an_adapter_that_is_not_there(tiny_lm: Path, tmp_path: Path) -> None:
    result = call(tmp_path, "tune", "export", str(tiny_lm), "--adapter", "gone", "--to", str(tmp_path / "int8"))
    assert_one_line(result, "There is no adapter gone")


def test_help_names_the_commands_of_tune() -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(cli, ["tune", "--help"])
    assert "export" in result.output
