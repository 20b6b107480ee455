"""The card of an exported model: what is in its folder, and whether all of it is there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rag.errors import ModelUnavailable

CARD = "card.json"
FORMAT: Literal["ragsmith-ctranslate2"] = "ragsmith-ctranslate2"


class ExportedFile(BaseModel):
    """A file as it was when the export was finished."""

    model_config = ConfigDict(frozen=True)
    bytes: int
    sha256: str


class ExportCard(BaseModel):
    """What an export says of itself. It is written last: a folder without one was broken off.

    Attributes:
        base: The model as it was named, and ``adapters`` what was merged into it, in this order.
        window: Tokens that the model reads at most; None where it has no limit.
        end_tokens: Tokens with which it ends an answer.
        made: The day, as in 2026-03-21.
        files: By name, every file of the folder but the card.
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
    """Size and hash of each file of a folder, the card left out."""
    return {
        path.name: ExportedFile(bytes=path.stat().st_size, sha256=_sha256(path))
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != CARD
    }


def read_card(folder: Path) -> ExportCard:
    """The card of an exported model.

    Raises:
        ModelUnavailable: There is none, or it is not one of ours.
    """
    try:
        return ExportCard.model_validate_json((folder / CARD).read_bytes())
    except FileNotFoundError as error:
        raise _damaged(folder, f"it has no {CARD}") from error
    except (OSError, ValidationError) as error:
        raise _damaged(folder, f"its {CARD} cannot be read") from error


def check_export(folder: Path, *, thoroughly: bool) -> ExportCard:
    """Compare an exported model with its card.

    Args:
        folder: Of the export.
        thoroughly: Hash every file too, which takes about a second a gigabyte.

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
            raise _damaged(folder, f"{name} has {size:,} bytes, and {file.bytes:,} were written")
        if thoroughly and _sha256(path) != file.sha256:
            raise _damaged(folder, f"{name} is not what was written")
    return card


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(folder: Path, what: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The exported model in {folder} is not whole: {what}.",
        fix="Make it again with `ragsmith tune export MODEL --to FOLDER`.",
    )
