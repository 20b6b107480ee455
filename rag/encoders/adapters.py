"""Adapters: folders that training makes and answering uses.

An adapter folder holds ``adapter_config.json`` and ``adapter_model.safetensors`` (peft's format), the head's
``head.safetensors`` where the task has one, and ``card.json``.
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
    """What is known of an adapter without running it.

    Attributes:
        task: What its head does: ``reader`` and so on.
        base: Name of the base model, and ``base_sha256`` of its weights.
        recipe: The training's recipe, whole.
        data: Rows, tokens and sha256 of the features of each stage.
        licences: Of the data.
        calibration: Of a reader.
        rank_weight: Of a reranker: what the place before the reranking adds to its score, see
            ``rag.retrieval.reranking``.
        figures: What was measured, each with its command.
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
        """Name and weights, as ``reader@1a2b3c4d``: two adapters of one name may differ."""
        digest = hashlib.sha256()
        for name in (WEIGHTS, HEAD):
            if (self.folder / name).is_file():
                digest.update((self.folder / name).read_bytes())
        return f"{self.card.name}@{digest.hexdigest()[:8]}"

    def check_task(self, task: str) -> None:
        """Refuse an adapter that does something else.

        Raises:
            AdapterError: It was trained for another task.
        """
        if self.card.task != task:
            raise AdapterError(f"The adapter {self.folder} is no {task}, but a {self.card.task}.")


def places_of(name: str, adapters: Path) -> tuple[Path, Path]:
    """Where an adapter may lie that a person names: in a folder, or below the workspace's ``models/adapters``."""
    # `Path.expanduser` raises where there is no such user.
    return Path(os.path.expanduser(name)), adapters / name


def find_adapter(name: str, workspace: Workspace) -> Adapter:
    """The adapter of that name: a folder, one of the workspace's, or one that ships.

    Raises:
        AdapterError: There is none, or it is damaged.
    """
    places = (*places_of(name, workspace.adapters), SHIPPED / name)
    # `Path.is_file` raises where a name is too long for a file.
    folder = next((place for place in places if os.path.isfile(place / CARD)), None)
    if folder is None:
        roots = (workspace.adapters, SHIPPED)
        known = sorted({path.parent.name for root in roots for path in root.glob(f"*/{CARD}")})
        raise AdapterError(
            f"There is no adapter {name}.",
            fix=f"Give a folder with a card.json, or one of: {', '.join(known) or 'none yet'}.",
        )
    return read_adapter(folder)


def read_adapter(folder: Path) -> Adapter:
    """Check a folder and read its card.

    Raises:
        AdapterError: A file is missing, or the card is malformed.
    """
    missing = [name for name in (CARD, CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise AdapterError(f"The adapter {folder} is not whole: {', '.join(missing)} is missing.")
    try:
        return Adapter(folder, AdapterCard(**json.loads((folder / CARD).read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError, ValidationError) as error:
        raise AdapterError(f"The card of the adapter {folder} cannot be read: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return first_line(error)
