"""The conversion of local models to OpenVINO: which models, how often, and what is said when it fails."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from langchain_core.messages import HumanMessage
from test_sampling import tokens
from tiny_lm import MESSAGES, OTHERS, chat, make_model, make_other, make_tokenizer, opened

from rag.errors import ModelUnavailable
from rag.models.local import local_engine
from rag.models.local.causal_conversion import GRAPH, REASON, converted_folder
from rag.models.local.chat_template import render
from rag.models.local.converted_card import CARD
from rag.models.local.local_engine import LocalEngine
from rag.models.local.local_files import LocalFiles, locate_local

MANY = [MESSAGES, OTHERS, [HumanMessage("Why?")], [HumanMessage("When is the pier closed? " * 12)]]


@pytest.fixture
def copies(tiny_lm: Path, tmp_path: Path) -> Path:
    """A folder of models with a copy of the converted one, that a test may damage."""
    with opened(tiny_lm, tiny_lm.parent, runtime="openvino"):
        found = converted(tiny_lm, tiny_lm.parent)
    shutil.copytree(found, tmp_path / "models" / found.name)
    return tmp_path / "models"


def converted(model: Path, models: Path) -> Path:
    return converted_folder(locate_local(str(model)), models)


def regret(reference: LocalEngine, messages: Any, ids: list[int]) -> float:
    """How much more probable than a token the best one was, by the original: the largest logarithm."""
    import torch

    prompt = list(render(make_tokenizer(), messages).ids)
    backend: Any = reference.backend
    with torch.no_grad():
        scores = backend.model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    return float((scores.max(-1).values - scores.gather(1, torch.tensor(ids)[:, None])[:, 0]).max())


# The kinds of models, and why they are left to torch.
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "mistral": ("mistral", {"sliding_window": None}, ""),
    "mistral-window": ("mistral", {"sliding_window": 16}, "attention is not full"),
    "qwen3": ("qwen3", {"head_dim": 16}, ""),
    "gemma": ("gemma", {"head_dim": 16}, ""),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}, "trac"),
    "llama-dynamic": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
        "positions depend on the length",
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}, "Check"),
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of all kinds, converted in one process."""
    folder = tmp_path_factory.mktemp("kinds")
    folders = []
    for name, (kind, config, _) in KINDS.items():
        model = make_other(kind, folder / name, **config)
        target = converted(model, folder)
        target.mkdir()
        folders.append((str(model), str(target)))
    code = (
        "import sys, json; from pathlib import Path\n"
        "from rag.models.local.causal_conversion import _convert_here\n"
        "for model, target in json.loads(sys.argv[1]): _convert_here(Path(model), Path(target))"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(folders)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_served_exactly_or_left_to_torch(
    kinds: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, reason = kinds / name, KINDS[name][2]
    with opened(model, kinds, runtime="auto") as ours, opened(model) as reference:
        assert ours.runtime.startswith("transformers" if reason else "OpenVINO GenAI")
        for messages in MANY:
            assert regret(reference, messages, tokens(ours, messages=messages)) < 0.3
    assert ("runs on torch, which is slower than OpenVINO" in caplog.text) == bool(reason)
    assert reason in caplog.text
    if reason:
        with (
            pytest.raises(ModelUnavailable, match="cannot run on OpenVINO") as caught,
            opened(model, kinds, runtime="openvino"),
        ):
            pass
        assert caught.value.fix == "Set local.runtime to auto or torch."
        assert [file.name for file in converted(model, kinds).iterdir()] == [REASON]


def test_a_model_that_cannot_be_converted_is_tried_once(kinds: Path, caplog: pytest.LogCaptureFixture) -> None:
    (converted(kinds / "gpt2", kinds) / REASON).write_text("it was tried before\n")
    with opened(kinds / "gpt2", kinds, runtime="auto"):
        pass
    assert "OpenVINO: it was tried before." in caplog.text


@pytest.mark.parametrize("damage", ["cut", GRAPH, CARD, "openvino_model.bin"])
def test_a_damaged_conversion_is_told_in_one_sentence(tiny_lm: Path, copies: Path, damage: str) -> None:
    folder = converted(tiny_lm, copies)
    if damage == "cut":
        weights = folder / "openvino_model.bin"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    else:
        (folder / damage).unlink()
    with (
        pytest.raises(ModelUnavailable, match="The converted model in") as caught,
        opened(tiny_lm, copies, runtime="openvino"),
    ):
        pass
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message
    assert "Delete that folder" in caught.value.fix


def test_other_weights_or_another_configuration_are_converted_again(
    tiny_lm: Path, copies: Path, tmp_path: Path
) -> None:
    model, models = Path(shutil.copytree(tiny_lm, tmp_path / "model")), copies
    first = converted(tiny_lm, models).rename(converted(model, models))
    with opened(model, models, runtime="openvino") as engine:
        before = chat(engine).invoke(MESSAGES).text
    shutil.rmtree(model)
    make_model(model, seed=7)
    with opened(model, models, runtime="openvino") as engine, opened(model) as reference:
        after = chat(engine).invoke(MESSAGES).text
        assert after == chat(reference).invoke(MESSAGES).text != before
    second = converted(model, models)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    assert len({first, second, converted(model, models)}) == 3


def test_a_changed_generation_configuration_holds_at_once(tiny_lm: Path, copies: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_lm, tmp_path / "model"))
    converted(tiny_lm, copies).rename(converted(model, copies))
    own = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(own | {"eos_token_id": [3, 17], "top_k": 1}))
    with opened(model, copies, runtime="openvino") as engine:
        assert engine.backend.ends == {3, 17}
        greedy = chat(engine).invoke(MESSAGES).text
        assert chat(engine, temperature=2.0).invoke(MESSAGES).text == greedy


def test_a_killed_conversion_leaves_nothing_and_torch_serves(
    tiny_lm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = tmp_path / "models"
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            for child in psutil.Process().children():
                # Another child, of the tests before, may end meanwhile.
                with suppress(psutil.NoSuchProcess):
                    if "rag.models.local.causal_conversion" in child.cmdline() and any(
                        models.glob(".converting-*")
                    ):
                        child.kill()
                        killed.append(child.pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    with opened(tiny_lm, models, runtime="auto") as engine:
        killer.join()
        assert killed
        assert engine.runtime.startswith("transformers")
        assert chat(engine).invoke(MESSAGES).text
    assert "its conversion failed" in caplog.text
    assert list(models.iterdir()) == []


def test_a_missing_library_leaves_the_model_to_torch(
    tiny_lm: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "openvino_genai" else real(name, *rest)
    )
    with opened(tiny_lm, tiny_lm.parent, runtime="auto") as engine:
        assert engine.runtime.startswith("transformers")
    assert "openvino-genai is not installed" in caplog.text


def test_a_converted_model_needs_no_memory_for_its_conversion(
    tiny_lm: Path, tmp_path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: LocalFiles = locate_local(str(tiny_lm))
    monkeypatch.setattr(local_engine, "free_memory", lambda _: 100_000)
    assert local_engine._conversion(files, local_engine.Device("cpu", "f32"), copies)[0]
    folder, reason = local_engine._conversion(files, local_engine.Device("cpu", "f32"), tmp_path)
    assert (folder, reason) == (None, "its conversion needs more memory than is free")
