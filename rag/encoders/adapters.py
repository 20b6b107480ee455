"""Adapters: folders produced by training and used for answering.

An adapter folder contains ``adapter_config.json`` and ``adapter_model.safetensors`` (peft's format), the head's
``head.safetensors`` if the task has one, and ``card.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rag.errors import AdapterError, first_line
from rag.workspace import Workspace

SHIPPED = Path(__file__).parent.parent / "shipped"
CARD, HEAD = "card.json", "head.safetensors"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class Calibration(BaseModel):
    """Turns a score into a probability: ``1 / (1 + exp(-(slope * score + intercept)))``."""

    model_config = ConfigDict(frozen=True)
    slope: float
    intercept: float


class AdapterCard(BaseModel):
    """Description of an adapter.

    Attributes:
        task: The task of its head, such as ``reader``.
        base: Name of the base model; ``base_sha256`` is the hash of its weights.
        recipe: The complete training recipe.
        data: Rows, tokens and sha256 of the features per stage.
        licences: Licences of the training data.
        calibration: Calibration of a reader.
        rank_weight: Weight of the previous rank in a reranker's score, see ``rag.retrieval.reranking``.
        figures: Measured metrics, with the command that measured them.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    task: str
    base: str
    base_sha256: str
    rank: int
    recipe: Mapping[str, Any]
    data: Mapping[str, Any] = {}
    licences: tuple[str, ...] = ()
    calibration: Calibration | None = None
    rank_weight: float = 0.0
    figures: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter folder and its card."""

    folder: Path
    card: AdapterCard

    @property
    def identity(self) -> str:
        """Name and hash of the weights, such as ``reader@1a2b3c4d``."""
        digest = hashlib.sha256()
        for name in (WEIGHTS, HEAD):
            if (self.folder / name).is_file():
                digest.update((self.folder / name).read_bytes())
        return f"{self.card.name}@{digest.hexdigest()[:8]}"

    def check_task(self, task: str) -> None:
        """Raise AdapterError if the adapter was trained for another task."""
        if self.card.task != task:
            raise AdapterError(f"The adapter {self.folder} must be a {task}, not a {self.card.task}.")


def places_of(name: str, adapters: Path) -> tuple[Path, Path]:
    """Return the possible folders of an adapter: the name as a path, or below the given folder."""
    # `Path.expanduser` raises if there is no such user.
    return Path(os.path.expanduser(name)), adapters / name


def find_adapter(name: str, workspace: Workspace) -> Adapter:
    """Find an adapter by folder, or by name in the workspace or among the shipped ones.

    Raises:
        AdapterError: There is no such adapter, or it is damaged.
    """
    places = (*places_of(name, workspace.adapters), SHIPPED / name)
    # `Path.is_file` raises if a name is too long.
    folder = next((place for place in places if os.path.isfile(place / CARD)), None)
    if folder is None:
        roots = (workspace.adapters, SHIPPED)
        known = sorted({path.parent.name for root in roots for path in root.glob(f"*/{CARD}")})
        raise AdapterError(
            f"There is no adapter {name}.",
            fix=f"Name a folder with a card.json, or one of: {', '.join(known) or 'none yet'}.",
        )
    return read_adapter(folder)


def read_adapter(folder: Path) -> Adapter:
    """Check a folder and read its card.

    Raises:
        AdapterError: A file is missing, or the card is malformed.
    """
    missing = [name for name in (CARD, CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise AdapterError(f"The adapter {folder} is incomplete: {', '.join(missing)} is missing.")
    try:
        return Adapter(folder, AdapterCard(**json.loads((folder / CARD).read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError, ValidationError) as error:
        raise AdapterError(f"The card of the adapter {folder} cannot be read: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return first_line(error)
