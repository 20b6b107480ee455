"""Adapters as artifacts of W&B runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rag.encoders.adapters import SHIPPED, Adapter, read_adapter
from rag.errors import AdapterError
from rag.tracing.wandb_artifacts import folder_artifact


def adapter_artifact(adapter: Adapter) -> Any:
    """Return the artifact of an adapter: of one name for all that a recipe has made, with the card beside it."""
    card = adapter.card
    return folder_artifact("adapter", f"adapter-{card.name}", adapter.folder, card.model_dump(mode="json"))


def tracked_adapter(folder: Path) -> Adapter | None:
    """Return the adapter in a folder; None for one that ships with ragsmith or that no training of it has made."""
    if folder.resolve().is_relative_to(SHIPPED.resolve()):
        return None
    try:
        return read_adapter(folder)
    except AdapterError:
        # One of another program has no card.
        return None
