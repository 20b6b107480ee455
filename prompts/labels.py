"""Labels: movable names of versions. A file records every move; the last move of a label is its current target.

``NAME/labels.jsonl``      one move per line, oldest first
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from prompts.parts import Part
from prompts.template import NAME, PromptTemplateError

# The label that the chat uses.
PRODUCTION = "production"
# Always the newest version; it cannot be moved.
LATEST = "latest"
FILE = "labels.jsonl"


class Move(Part):
    """One move of a label.

    Attributes:
        version: The new target; None removes the label.
        by: The person who moved it.
        at: The time of the move.
        message: The reason.
    """

    label: str = Field(pattern=rf"^{NAME}$")
    version: int | None = Field(ge=1)
    by: str
    at: datetime = Field(strict=False)
    message: str


def read_moves(folder: Path) -> tuple[Move, ...]:
    """Read the moves of one prompt, oldest first.

    Raises:
        PromptTemplateError: The file cannot be read, or a line of it is malformed.
    """
    path = folder / FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise PromptTemplateError(f"The labels in {path} cannot be read: {error.strerror}.") from error
    # Text after the last line end is an incomplete write.
    moves = []
    for number, line in enumerate(lines[:-1], 1):
        if not line.strip():
            continue
        try:
            moves.append(Move.model_validate_json(line))
        except ValidationError as error:
            raise PromptTemplateError(
                f"The labels in {path} are damaged at line {number}: remove that line."
            ) from error
    return tuple(moves)


def add_move(folder: Path, move: Move) -> None:
    """Append a move; the caller must hold the library's lock. Raises OSError if it cannot be written."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        before = path.read_bytes()
        # Drop an incomplete line left by a crash, as reading does.
        file.truncate(before.rfind(b"\n") + 1)
        file.write(move.model_dump_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def labels_of(moves: tuple[Move, ...]) -> dict[str, int]:
    """Return the current version of every label."""
    last = {move.label: move.version for move in moves}
    # Earlier versions of ragsmith could move `latest`.
    return {label: version for label, version in sorted(last.items()) if version is not None and label != LATEST}


def check_label(label: str) -> None:
    """Raise PromptTemplateError unless the text is a label that can be moved."""
    if not re.fullmatch(NAME, label):
        raise PromptTemplateError(
            f"The label {label!r} is invalid: use lower-case letters, digits and dashes, a letter first."
        )
    if label == LATEST:
        raise PromptTemplateError(
            f"The label {LATEST} is reserved: NAME@{LATEST} is always the newest version. Choose another name."
        )
