"""LoRA adapters of local models: location and compatibility."""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rag.encoders.adapters import CONFIG, SHIPPED, WEIGHTS, places_of
from rag.errors import ModelUnavailable
from rag.models.local.local_files import read_json

CHAT_TEMPLATE = "chat_template.jinja"
# How its training data were rendered, see `finetune.prepared.text_rendering`; only the end is needed to serve it.
RENDERING = "rendering.json"
_PREFIX = "base_model.model."
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter in peft's format.

    Attributes:
        name: The configured name: a folder, or a name below the workspace's ``models/adapters``.
    """

    name: str
    folder: Path

    @property
    def base(self) -> str:
        """Name of the model that it was trained on; empty if unknown."""
        return str(read_json(self.folder / CONFIG).get("base_model_name_or_path") or "")

    @property
    def identity(self) -> str:
        """Folder name and hash of the weights, such as ``citer@1a2b3c4d``."""
        return f"{self.folder.name}@{hashlib.sha256((self.folder / WEIGHTS).read_bytes()).hexdigest()[:8]}"

    @property
    def scale(self) -> float:
        """Factor of its change: alpha / rank, or alpha / √rank (rsLoRA, arXiv 2312.03732)."""
        config = read_json(self.folder / CONFIG)
        rank = float(config["r"])
        return float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)

    @property
    def chat_template(self) -> str | None:
        """Chat template that it was trained with; None if it has none."""
        path = self.folder / CHAT_TEMPLATE
        return path.read_text(encoding="utf-8") if path.is_file() else None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that it was trained to end its replies with, besides the end token."""
        path = self.folder / RENDERING
        end = read_json(path).get("end") if path.is_file() else None
        return (end,) if isinstance(end, str) and end else ()


def find_lora(name: str, adapters: Path) -> AdapterFiles:
    """Find a LoRA adapter of a language model.

    Args:
        name: A folder, a name below ``adapters``, or the name of a shipped adapter.
        adapters: The workspace's folder ``models/adapters``.

    Raises:
        ModelUnavailable: The adapter is missing, or is not a LoRA adapter with safetensors weights.
    """
    places = places_of(name, adapters)
    for folder in (*places, SHIPPED / name):
        if (folder / CONFIG).is_file():
            _check(folder)
            return AdapterFiles(name, folder.resolve())
    raise ModelUnavailable(
        f"There is no adapter {name}: neither {places[0]} nor {places[1]} contains an {CONFIG}.",
        fix="Fix local.adapter and local.adapters, or clear them to use the base model.",
    )


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Suppress the warning that peft 0.21 uses a deprecated name of transformers 5.23."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def check_fit(
    adapter: AdapterFiles, layers: Mapping[str, tuple[int, int] | None], model_name: str
) -> frozenset[str]:
    """Check that the shapes of an adapter match the layers of a model.

    Args:
        adapter: The adapter to load.
        layers: Input and output size of the model's layers, by path; None for a layer that is not linear.
        model_name: Name of the model, for messages.

    Returns:
        The paths of the layers that the adapter changes.

    Raises:
        ModelUnavailable: A layer is missing or has another size.
    """
    changed = set()
    for name, shape in weight_shapes(adapter).items():
        path, _, part = name.removeprefix(_PREFIX).rpartition(".lora_")
        if part not in ("A.weight", "B.weight"):
            continue
        if path not in layers:
            raise _misfit(adapter, model_name, f"the model has no layer {path}")
        size = layers[path]
        if size is not None and (shape[1] != size[0] if part == "A.weight" else shape[0] != size[1]):
            raise _misfit(adapter, model_name, f"the layer {path} has another size")
        changed.add(path)
    if adapter.base and Path(adapter.base).name != Path(model_name).name:
        _log.warning("The adapter %s was trained on %s, not on %s.", adapter.name, adapter.base, model_name)
    return frozenset(changed)


def weight_shapes(adapter: AdapterFiles) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of an adapter, by its name.

    Raises:
        ModelUnavailable: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # In this framework, it spares the import of torch.
        with safe_open(adapter.folder / WEIGHTS, framework="np") as weights:
            return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelUnavailable(
            f"The weights of the adapter {adapter.name} cannot be read: {error}.", fix="Copy the adapter again."
        ) from error


def _check(folder: Path) -> None:
    kind = read_json(folder / CONFIG).get("peft_type")
    if kind != "LORA":
        raise ModelUnavailable(
            f"The adapter in {folder} must be of type LORA, not {kind}.",
            fix="Train it again with LoRA, or merge it into its base model and use that.",
        )
    if not (folder / WEIGHTS).is_file():
        raise ModelUnavailable(
            f"The adapter in {folder} has no {WEIGHTS}.",
            fix="Copy the whole folder; weights of an old peft version (adapter_model.bin) must be saved again.",
        )


def _misfit(adapter: AdapterFiles, model_name: str, what: str) -> ModelUnavailable:
    trained = f" It was trained on {adapter.base}." if adapter.base else ""
    return ModelUnavailable(
        f"The adapter {adapter.name} does not match the model {model_name}: {what}.{trained}",
        fix="Set model to the base that the adapter was trained on, or clear local.adapter.",
    )
