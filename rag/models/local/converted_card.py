"""The description of a causal language model in the folder of its conversion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rag.errors import ModelUnavailable

CARD = "converted.json"
REPAIR = "Delete that folder; it is created again at the next start."


@dataclass(frozen=True, slots=True)
class ConvertedCard:
    """Description of a converted model.

    Attributes:
        window: Maximum tokens of prompt and answer; None for no limit of the model's own.
        layers: Input and output size of every layer by its path; None for one that no adapter may change.
    """

    window: int | None
    layers: Mapping[str, tuple[int, int] | None]


def read_card(folder: Path) -> ConvertedCard:
    """Read the description in a converted folder.

    Raises:
        ModelUnavailable: It is missing or damaged.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        layers = {path: (int(size[0]), int(size[1])) if size else None for path, size in card["layers"].items()}
        return ConvertedCard(card["window"], layers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnavailable(f"The converted model in {folder} is damaged: {error}.", fix=REPAIR) from error
