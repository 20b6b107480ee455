"""A model's folder may bring Python code: it is never run, and nobody is asked whether it may be."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path

import pytest
from tiny_lm import opened

from rag.encoders.encoder_conversion import convert
from rag.encoders.encoder_files import locate_model
from rag.encoders.torch_encoder import TorchEncoder
from rag.errors import EncoderError, ModelUnavailable
from rag.settings import EncoderSettings
from rag.workspace import Workspace

pytestmark = pytest.mark.slow

SENTENCE = "needs Python code of its own, which ragsmith does not run."

# Whoever imports it leaves a mark beside it; transformers copies it first, so the place is written out.
CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "house-made"
class Model(LlamaForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question on the terminal is answered with yes, and the code would run."""
    monkeypatch.setattr(builtins, "input", lambda *_: "y")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "it-ran"


def with_code(folder: Path, mark: Path, name: str, **changes: object) -> None:
    """Put code beside a model, and name it in one of its files."""
    (folder / "house_made.py").write_text(CODE.format(mark=str(mark)), encoding="utf-8")
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


CONFIG = {
    "model_type": "house-made",
    "auto_map": {"AutoConfig": "house_made.Config", "AutoModelForCausalLM": "house_made.Model"},
}


@pytest.fixture
def model(tiny_lm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_lm, tmp_path / "model"))


def assert_refused(error: ModelUnavailable | EncoderError, folder: Path, mark: Path) -> None:
    assert f"The model in {folder} {SENTENCE}" in str(error)
    assert error.fix
    assert not mark.exists()


def test_a_model_of_its_own_code_is_not_loaded(model: Path, mark: Path) -> None:
    with_code(model, mark, "config.json", **CONFIG)
    with pytest.raises(ModelUnavailable) as raised, opened(model):
        pass
    assert_refused(raised.value, model, mark)


def test_a_tokenizer_of_its_own_code_is_not_loaded(model: Path, mark: Path) -> None:
    code = {"auto_map": {"AutoTokenizer": [None, "house_made.Tokenizer"]}, "tokenizer_class": "HouseMade"}
    with_code(model, mark, "tokenizer_config.json", **code)
    try:
        with opened(model):
            pass
    except ModelUnavailable as error:
        assert_refused(error, model, mark)
    assert not mark.exists()


def test_code_beside_a_model_that_does_not_need_it_stays_unused(model: Path, mark: Path) -> None:
    with_code(model, mark, "config.json", auto_map=CONFIG["auto_map"])
    (model / "custom_generate").mkdir()
    shutil.copyfile(model / "house_made.py", model / "custom_generate" / "generate.py")
    with opened(model):
        pass
    assert not mark.exists()


def test_an_encoder_of_its_own_code_is_not_loaded(mark: Path, tmp_path: Path, workspace: Workspace) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(locate_model(EncoderSettings()).folder, folder)
    with_code(folder, mark, "config_sentence_transformers.json")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[1]["type"] = "house_made.Model"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    files = locate_model(EncoderSettings(model=str(folder)))
    with pytest.raises(EncoderError) as raised:
        TorchEncoder(files, device="cpu", precision="f32", batch_size=8)
    assert_refused(raised.value, folder, mark)
    with pytest.raises(EncoderError) as raised:
        convert(files, workspace.models / "encoder")
    assert_refused(raised.value, folder, mark)
    assert list(workspace.models.iterdir()) == []
