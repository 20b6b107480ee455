"""Loading a local model: where it is found, whether it has room, which adapter fits, and what is said if not."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_lm import MESSAGES, chat, make_adapter, make_model, opened

from rag.errors import ModelUnavailable
from rag.models.local import local_device as device
from rag.models.local.local_adapters import find_lora
from rag.models.local.local_device import Device, check_memory, choose_device, free_memory, memory_needed
from rag.models.local.local_engine import open_local_engine
from rag.models.local.local_files import locate_local, weight_files
from rag.settings import LocalSettings, Settings
from ui.doctor.model_checks import check_model

NOWHERE = Path("no-models")


@pytest.fixture
def copy(tiny_lm: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may spoil."""
    return Path(shutil.copytree(tiny_lm, tmp_path / "copy"))


def refusal(name: Path | str, **settings: Any) -> ModelUnavailable:
    """What is said when a model is not loaded."""
    given = {"runtime": "torch", "device": "cpu", "dtype": "f32"} | settings
    with pytest.raises(ModelUnavailable) as caught:
        open_local_engine(locate_local(str(name)), LocalSettings(**given), NOWHERE)
    assert caught.value.fix
    return caught.value


# Places


LOADED_AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from rag.models.local.local_files import locate_local
from rag.models.local.local_tokenizer import load_tokenizer

sys.setswitchinterval(1e-6)
barrier, files = Barrier(3), locate_local(sys.argv[1])

def load(_):
    barrier.wait()
    return load_tokenizer(files)

print(len(list(ThreadPoolExecutor(3).map(load, range(3)))))
"""


@pytest.mark.slow
def test_several_threads_load_the_first_tokenizer_of_a_process_at_once(tiny_lm: Path) -> None:
    command = [sys.executable, "-c", LOADED_AT_ONCE, str(tiny_lm)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "3\n", done.stderr


def test_a_folder_is_taken_as_it_is(tiny_lm: Path) -> None:
    found = locate_local(str(tiny_lm))
    assert (found.folder, found.origin) == (tiny_lm, "folder")


@pytest.mark.parametrize("name", ["./models/gone", "/models/gone", "~/gone", "a/b/c", "two words"])
def test_what_is_no_folder_and_no_name_on_the_hub_is_told(name: str) -> None:
    told = refusal(name)
    assert "does not exist" in told.message
    assert "OWNER/NAME" in told.fix


def test_a_missing_model_is_told_with_the_way_to_get_it() -> None:
    told = refusal("org/tiny")
    assert "The model org/tiny is not on this machine" in told.message
    assert "Unset HF_HUB_OFFLINE and run `hf download org/tiny` once" in told.fix


def test_a_hub_that_refuses_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **given: Any) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        raise (
            LocalEntryNotFoundError("not here") if given.get("local_files_only") else OSError("401: gated.\nmore")
        )

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    told = refusal("org/tiny")
    assert told.message.endswith("cannot be downloaded from the hub: 401: gated.")
    assert "hf auth login" in told.fix


def test_the_hub_is_asked_for_safetensors_first(
    tiny_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def give(*_: Any, **given: Any) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        if given.get("local_files_only"):
            raise LocalEntryNotFoundError("not here")
        asked.append([pattern for pattern in given["allow_patterns"] if pattern in ("*.safetensors", "*.bin")])
        return str(tiny_lm)

    monkeypatch.setattr("huggingface_hub.snapshot_download", give)
    assert locate_local("org/tiny").origin == "hub"
    assert asked == [["*.safetensors"]]


def hub_cache(model: Path, cache: Path) -> Path:
    """A hub cache that holds a model as ``org/tiny``; the folder of its snapshot."""
    repository = cache / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    return Path(shutil.copytree(model, repository / "snapshots" / "abc123"))


def test_what_the_hub_cache_holds_needs_no_network(
    tiny_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = hub_cache(tiny_lm, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    found = locate_local("org/tiny", download=False)
    assert (found.folder, found.origin) == (snapshot, "hub cache")
    with opened("org/tiny") as engine:
        assert chat(engine).invoke(MESSAGES).text


def test_a_download_that_was_broken_off_counts_as_missing(
    tiny_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hub_cache(tiny_lm, tmp_path / "cache") / "model.safetensors").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelUnavailable, match="is not on this machine"):
        locate_local("org/tiny", download=False)


# Files


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("config.json", "contains no config.json"),
        ("model.safetensors", "contains no model.safetensors"),
        ("tokenizer.json", "The tokenizer of the model"),
    ],
)
def test_a_folder_that_lacks_a_file_is_told(copy: Path, gone: str, words: str) -> None:
    (copy / gone).unlink()
    (copy / "tokenizer_config.json").unlink(missing_ok=gone != "config.json")
    assert words in refusal(copy).message


def test_a_missing_part_of_the_weights_is_named(copy: Path) -> None:
    parts = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    (copy / "model.safetensors").rename(copy / parts["a"])
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    assert "model-2-of-2.safetensors is missing" in refusal(copy).message
    (copy / parts["b"]).touch()
    assert [file.name for file in weight_files(copy)] == sorted(parts.values())


def test_weights_that_were_cut_off_are_told_before_they_are_loaded(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "it is truncated" in refusal(copy).message
    weights.write_bytes(b"\xff" * 100)
    assert "its header is too long" in refusal(copy).message


def test_a_model_without_some_of_its_weights_is_not_filled_with_chance(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight are missing" in refusal(copy).message


def test_an_adapter_is_no_model(tiny_lm: Path) -> None:
    told = refusal(tiny_lm.parent / "adapters" / "citer")
    assert "contains an adapter, not a model" in told.message
    assert "local.adapter" in told.fix


# Room


def test_the_memory_is_the_size_of_the_weights_in_the_format_that_they_are_loaded_in(tiny_lm: Path) -> None:
    stored = (tiny_lm / "model.safetensors").stat().st_size
    assert memory_needed(tiny_lm, "f32") == pytest.approx(stored * 1.1, rel=0.03)
    assert memory_needed(tiny_lm, "bf16") == pytest.approx(memory_needed(tiny_lm, "f32") / 2, abs=2)


def test_the_memory_of_old_weights_follows_from_the_configuration(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    stored = (copy / "pytorch_model.bin").stat().st_size
    assert memory_needed(copy, "f32") == int(stored * 1.1)
    assert memory_needed(copy, "bf16") == int(stored // 2 * 1.1)


def test_a_model_that_does_not_fit_is_refused_with_both_figures(
    tiny_lm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "memory_needed", lambda *_: 16_100_000_000)
    monkeypatch.setattr(device, "free_memory", lambda _: 9_240_000_000)
    told = refusal(tiny_lm)
    assert "needs about 16.1 GB in f32, but only 9.2 GB of this machine's memory are free" in told.message
    for way in ("local.dtype to bf16", "a smaller model"):
        assert way in told.fix
    with pytest.raises(ModelUnavailable, match=r"9\.2 GB of the GPU's memory are free") as caught:
        check_memory(locate_local(str(tiny_lm)), Device("cuda", "bf16"))
    assert "set local.device to cpu" in caught.value.fix
    assert "local.dtype" not in caught.value.fix


def test_free_memory_is_what_the_container_leaves(tmp_path: Path) -> None:
    assert (free_memory("cpu") or 0) > 10_000_000
    assert device._room_in_container(tmp_path) is None
    for name, text in {"max": "1000", "current": "700", "stat": "anon 400\ninactive_file 200\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert device._room_in_container(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert device._room_in_container(tmp_path) is None


@pytest.mark.parametrize(
    ("gpu", "bf16", "expected"),
    [(True, True, "cuda, bf16"), (False, True, "cpu, bf16"), (False, False, "cpu, f32")],
)
def test_the_best_place_is_chosen(monkeypatch: pytest.MonkeyPatch, gpu: bool, bf16: bool, expected: str) -> None:
    import torch

    monkeypatch.setattr("rag.models.local.local_device.gpu_present", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr("rag.models.local.local_device.cpu_has_bf16", lambda: bf16)
    assert str(choose_device(LocalSettings())) == expected
    assert str(choose_device(LocalSettings(device="cpu", dtype="f16"))) == "cpu, f16"


def test_a_device_that_is_not_there_is_told(tiny_lm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "local.device is cuda" in refusal(tiny_lm, device="cuda").message


def test_bf16_writes_as_well(tiny_lm: Path) -> None:
    with opened(tiny_lm, dtype="bf16") as engine:
        assert engine.runtime == "transformers on cpu, bf16"
        assert chat(engine).invoke(MESSAGES).text


# Adapters


def test_an_adapter_is_a_folder_or_a_name_in_the_workspace(tiny_lm: Path) -> None:
    below = tiny_lm.parent / "adapters"
    assert find_lora("citer", below).folder == below / "citer"
    assert find_lora(str(below / "citer"), NOWHERE).folder == below / "citer"


def test_a_missing_adapter_is_told_with_both_places(tiny_lm: Path) -> None:
    told = refusal(tiny_lm, adapters=("gone",))
    assert "neither gone nor no-models/adapters/gone contains an adapter_config.json" in told.message


@pytest.mark.parametrize("change", [{"hidden_size": 32}, {"num_hidden_layers": 4}])
def test_an_adapter_of_another_base_is_refused_before_it_touches_the_model(
    tiny_lm: Path, tmp_path: Path, change: dict[str, int]
) -> None:
    other = make_adapter(make_model(tmp_path / "other", **change), tmp_path / "foreign")
    told = refusal(tiny_lm, adapter=str(other))
    assert f"The adapter {other} does not match the model {tiny_lm}" in told.message
    assert f"It was trained on {tmp_path / 'other'}" in told.message


def test_an_adapter_of_a_model_with_another_name_is_served_with_a_warning(
    tiny_lm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = make_adapter(make_model(tmp_path / "twin"), tmp_path / "adapter")
    with opened(tiny_lm, adapter=str(adapter)) as engine:
        assert chat(engine, adapter=str(adapter)).invoke(MESSAGES).text
    assert "was trained on" in caplog.text


def test_only_lora_with_safetensors_is_served(tiny_lm: Path, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(tiny_lm.parent / "adapters" / "citer", tmp_path / "adapter"))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "has no adapter_model.safetensors" in refusal(tiny_lm, adapter=str(adapter)).message
    (adapter / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    assert "must be of type LORA, not IA3" in refusal(tiny_lm, adapter=str(adapter)).message


def test_an_adapter_brings_its_own_chat_template(tiny_lm: Path, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(tiny_lm.parent / "adapters" / "citer", tmp_path / "adapter"))
    (adapter / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    with opened(tiny_lm, adapters=(str(adapter), str(tiny_lm.parent / "adapters" / "citer"))) as engine:
        long, short = (
            chat(engine, adapter=each, max_tokens=1).invoke(MESSAGES).usage_metadata
            for each in (str(tiny_lm.parent / "adapters" / "citer"), str(adapter))
        )
    assert long is not None
    assert short is not None
    assert 0 < short["input_tokens"] < long["input_tokens"]


def test_a_missing_library_is_told_and_only_where_it_is_needed(
    tiny_lm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else real(name, *rest)
    )
    told = refusal(tiny_lm, adapter=str(tiny_lm.parent / "adapters" / "citer"))
    assert "needs the library peft" in told.message
    assert "pip install 'ragsmith[tune]'" in told.fix
    with opened(tiny_lm) as engine:
        assert chat(engine).invoke(MESSAGES).text


# Doctor


def test_doctor_tells_where_a_model_would_run(tiny_lm: Path) -> None:
    local = {"device": "cpu", "dtype": "f32", "adapter": str(tiny_lm.parent / "adapters" / "citer")}
    check = check_model(Settings(model=f"local:{tiny_lm}", local=local))
    assert check.ok
    assert "from the folder, cpu, f32, about 0.0 GB, adapter" in check.detail


def test_doctor_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelUnavailable, match="The model org/tiny is not on this machine"):
        check_model(Settings(model="local:org/tiny"))
