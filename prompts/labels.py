"""Labels: movable names of versions. Every move is a line of a file, and a label points where its last move says.

``NAME/labels.jsonl``      one move a line, oldest first
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from prompts.parts import Part
from prompts.template import NAME, PromptTemplateError

# What the chat runs.
PRODUCTION = "production"
FILE = "labels.jsonl"


class Move(Part):
    """A label that was moved.

    Attributes:
        version: Where to; None takes the label away.
        message: Why.
    """

    label: str = Field(pattern=rf"^{NAME}$")
    version: int | None = Field(ge=1)
    by: str
    at: datetime = Field(strict=False)
    message: str


def read_moves(folder: Path) -> tuple[Move, ...]:
    """The moves of one prompt, oldest first.

    Raises:
        PromptTemplateError: The file cannot be read, or a line of it is no move.
    """
    path = folder / FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise PromptTemplateError(f"The labels in {path} cannot be read: {error.strerror}.") from error
    # What stands behind the last line end was not finished.
    moves = []
    for number, line in enumerate(lines[:-1], 1):
        if not line.strip():
            continue
        try:
            moves.append(Move.model_validate_json(line))
        except ValidationError as error:
            raise PromptTemplateError(
                f"The labels in {path} are damaged at line {number}: take the line out."
            ) from error
    return tuple(moves)


def add_move(folder: Path, move: Move) -> None:
    """Write a move behind the others; whoever calls it holds the library's lock.

    Raises:
        OSError: It cannot be written.
    """
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        before = path.read_bytes()
        # A crash in the middle of a line: it is cut off, as reading does.
        file.truncate(before.rfind(b"\n") + 1)
        file.write(move.model_dump_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def labels_of(moves: tuple[Move, ...]) -> dict[str, int]:
    """Where each label points now."""
    last = {move.label: move.version for move in moves}
    return {label: version for label, version in sorted(last.items()) if version is not None}


def check_label(label: str) -> None:
    """Refuse what is no label.

    Raises:
        PromptTemplateError: It is none.
    """
    if not re.fullmatch(NAME, label):
        raise PromptTemplateError(f"{label!r} is no label: lower-case letters, digits and dashes, a letter first.")
