"""Locating the files of a local model: in a folder, the local hub cache, or the hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.encoders.adapters import CONFIG as ADAPTER_CONFIG
from rag.errors import ModelUnavailable, first_line

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Patterns of the files to download: configuration, tokenizer, template; the weights are listed separately.
_TEXTS = ["*.json", "*.jinja", "*.model", "*.txt"]
_BLOCK = 1 << 20
_OTHER_WEIGHTS = ["original/*", "onnx/*", "*/*.safetensors", "*/*.bin"]


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A folder with a model.

    Attributes:
        name: The configured name, without ``local:``.
        origin: ``folder``, ``hub cache`` or ``hub``.
    """

    name: str
    folder: Path
    origin: str

    def sha256(self) -> str:
        """Hexadecimal hash of the weights of a model of transformers."""
        digest = hashlib.sha256()
        for path in weight_files(self.folder):
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        return digest.hexdigest()


def locate_local(name: str, *, download: bool = True) -> LocalFiles:
    """Find the files of a model.

    Args:
        name: A folder, or a name on the hub.
        download: Whether the model may be downloaded from the hub.

    Raises:
        ModelUnavailable: The model was not found, or is incomplete.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _in_folder(name, folder.resolve())
    if not _may_be_on_hub(name):
        raise ModelUnavailable(
            f"The model folder {folder} does not exist.",
            fix="Fix the name after `local:`: a folder, or OWNER/NAME on the Hugging Face hub.",
        )
    cached = _in_hub_cache(name)
    if cached:
        return LocalFiles(name, cached, "hub cache")
    if not download:
        raise ModelUnavailable(f"The model {name} is not on this machine.", fix=_how_to_get(name))
    return LocalFiles(name, _from_hub(name), "hub")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files with a model's weights.

    Raises:
        ModelUnavailable: There are no weights, or a file is missing.
    """
    for index in INDEXES:
        if (folder / index).is_file():
            parts = read_json(folder / index).get("weight_map", {})
            files = tuple(folder / part for part in sorted(set(parts.values())))
            missing = [file.name for file in files if not file.is_file()]
            if missing or not files:
                raise ModelUnavailable(
                    f"The model in {folder} is incomplete: {(missing or [index])[0]} is missing.",
                    fix="Download it again, or copy the whole folder.",
                )
            return files
    for weights in WEIGHTS:
        if (folder / weights).is_file():
            return (folder / weights,)
    raise ModelUnavailable(
        f"The folder {folder} contains no model.safetensors.",
        fix="Use the folder of a causal language model, as written by `save_pretrained` of transformers.",
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a model's folder.

    Raises:
        ModelUnavailable: The file cannot be read.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"The file {path} cannot be read: {error}.", fix="Download it again.") from error
    return read if isinstance(read, dict) else {}


def _in_folder(name: str, folder: Path) -> LocalFiles:
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        raise ModelUnavailable(
            f"The folder {folder} contains an adapter, not a model.",
            fix="Set model to `local:` and its base model, and local.adapter to this folder.",
        )
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(
            f"The folder {folder} contains no config.json, so it is not a model of transformers.",
            fix="Use the folder with config.json, the weights and the tokenizer.",
        )
    weight_files(folder)
    return LocalFiles(name, folder, "folder")


def _may_be_on_hub(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.startswith((".", "/", "~"))


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
        # An interrupted download leaves an incomplete folder.
        weight_files(folder)
    except (LocalEntryNotFoundError, ModelUnavailable):
        return None
    return folder if (folder / "config.json").is_file() else None


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(name, allow_patterns=[*_TEXTS, "*.safetensors"], ignore_patterns=_OTHER_WEIGHTS)
        )
        if not any(folder.glob("*.safetensors")):
            folder = Path(
                snapshot_download(name, allow_patterns=[*_TEXTS, "*.bin"], ignore_patterns=_OTHER_WEIGHTS)
            )
    except Exception as error:
        reason = first_line(error)
        raise ModelUnavailable(
            f"The model {name} is not on this machine and cannot be downloaded from the hub: {reason}.",
            fix=_how_to_get(name),
        ) from error
    weight_files(folder)
    return folder


def _how_to_get(name: str) -> str:
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        return (
            f"Unset HF_HUB_OFFLINE and run `hf download {name}` once, or set model to `local:` and a folder "
            "copied from a machine with network access."
        )
    return (
        f"Run `hf download {name}` while online (a gated model also needs `hf auth login`), or set model to "
        "`local:` and a folder."
    )
