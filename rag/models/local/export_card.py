"""The card of an exported model, and the check of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rag.errors import ModelUnavailable

CARD = "card.json"
FORMAT: Literal["ragsmith-ctranslate2"] = "ragsmith-ctranslate2"


class ExportedFile(BaseModel):
    """Size and hash of an exported file."""

    model_config = ConfigDict(frozen=True)
    bytes: int
    sha256: str


class ExportCard(BaseModel):
    """Description of an export. It is written last: a folder without a card is incomplete.

    Attributes:
        base: Name of the base model; ``adapters`` are those merged into it, in order.
        window: Context window in tokens; None for no limit.
        end_tokens: Tokens that end an answer.
        made: Date of the export, such as 2026-03-21.
        files: All files of the folder but the card, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["ragsmith-ctranslate2"] = FORMAT
    version: Literal[1] = 1
    base: str
    adapters: tuple[str, ...] = ()
    quantization: str
    window: int | None
    end_tokens: tuple[int, ...]
    made: str
    ctranslate2: str
    files: dict[str, ExportedFile]


def describe_files(folder: Path) -> dict[str, ExportedFile]:
    """Return size and hash of all files of a folder but the card."""
    return {
        path.name: ExportedFile(bytes=path.stat().st_size, sha256=_sha256(path))
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != CARD
    }


def read_card(folder: Path) -> ExportCard:
    """Read the card of an exported model.

    Raises:
        ModelUnavailable: The card is missing or not one of ours.
    """
    try:
        return ExportCard.model_validate_json((folder / CARD).read_bytes())
    except FileNotFoundError as error:
        raise _damaged(folder, f"it has no {CARD}") from error
    except (OSError, ValidationError) as error:
        raise _damaged(folder, f"its {CARD} cannot be read") from error


def check_export(folder: Path, *, thoroughly: bool) -> ExportCard:
    """Check an exported model against its card.

    Args:
        folder: Folder of the export.
        thoroughly: Whether to hash every file too, which takes about a second per gigabyte.

    Raises:
        ModelUnavailable: A file is missing or altered.
    """
    card = read_card(folder)
    for name, file in card.files.items():
        path = folder / name
        if not path.is_file():
            raise _damaged(folder, f"{name} is missing")
        size = path.stat().st_size
        if size != file.bytes:
            raise _damaged(folder, f"{name} has {size:,} bytes instead of {file.bytes:,}")
        if thoroughly and _sha256(path) != file.sha256:
            raise _damaged(folder, f"{name} has changed")
    return card


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(folder: Path, what: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The exported model in {folder} is damaged: {what}.",
        fix="Export it again with `ragsmith tune export MODEL --to FOLDER`.",
    )
