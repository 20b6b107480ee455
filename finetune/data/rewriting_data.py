"""The training data of the condenser and of the questioner, made in a folder within seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from finetune.data.asked_sentences import question_rows, read_asked
from finetune.data.chat_rows import as_line
from finetune.data.follow_ups import CANARD, condense_rows, read_follow_ups
from finetune.rows import ChatRow
from prompts.files import atomic_write
from rag.workspace import disk_errors

Name = Literal["condenser", "questioner"]
ROWS, VALIDATION = "rows.jsonl", "validation.jsonl"
SEED = 1


def make_rewriting_data(name: Name, data: Path, folder: Path) -> Mapping[Path, int]:
    """Write the rows of a recipe, in a random order, and those to validate on.

    Args:
        name: The recipe.
        data: The folder of the training data that is read.
        folder: The folder to write; its earlier rows are replaced.

    Returns:
        The number of rows of each file.

    Raises:
        TuningError, EvaluationError: The data are missing or malformed.
        StorageFull, WorkspaceError: The folder cannot be written.
    """
    rows = _MAKERS[name]
    made = {ROWS: list(rows(data, False)), VALIDATION: list(rows(data, True))}
    with disk_errors(f"write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    for file, found in made.items():
        _write(folder / file, random.Random(SEED).sample(found, len(found)))
    return {folder / file: len(found) for file, found in made.items()}


def _condense(data: Path, validation: bool) -> Iterator[ChatRow]:
    return condense_rows(read_follow_ups(data / CANARD, "choosing" if validation else "training"), SEED)


def _questions(data: Path, validation: bool) -> Iterator[ChatRow]:
    return question_rows(read_asked(data, validation=validation), SEED)


_MAKERS: Mapping[Name, Callable[[Path, bool], Iterator[ChatRow]]] = {
    "condenser": _condense,
    "questioner": _questions,
}


def _write(path: Path, rows: Sequence[ChatRow]) -> None:
    content = "".join(f"{as_line(row.turns, row.completion)}\n" for row in rows)
    with disk_errors(f"write {path}"), atomic_write(path) as file:
        file.write(content.encode())
