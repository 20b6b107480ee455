"""Conversations with the reply to learn, from JSONL files.

A line is an object with ``completion`` and either ``messages`` or ``prompt``, which stands for one message of the
user; further keys are ignored:

    {"messages": [{"role": "system", "content": "…"}, {"role": "user", "content": "…"}], "completion": "…"}
    {"prompt": "…", "completion": "…"}

With ``"ends": false``, the words of the completion are learnt, but not that it ends there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_args

from finetune.rows import ChatRow
from prompts import Message
from prompts.template import Role
from rag.errors import TuningError

R = TypeVar("R")

SUFFIX = ".jsonl"
ROLES: tuple[Role, ...] = get_args(Role)
_FORM = 'Rows are {"messages": [{"role": …, "content": …}], "completion": …} or {"prompt": …, "completion": …}.'


def read_chat_rows(data: Path, source: str, most: int | None = None) -> Iterator[ChatRow]:
    """Yield the rows of a source; see ``read_rows``."""
    return read_rows(data, source, most, _row, _FORM)


def read_rows(
    data: Path, source: str, most: int | None, parse: Callable[[dict[str, Any], str], R], form: str
) -> Iterator[R]:
    """Yield the rows of a source; empty lines are skipped.

    Args:
        data: The folder of the training data.
        source: Name of the file below it, without ``.jsonl``.
        most: Maximum number of rows, from the beginning.
        parse: Checks an object, given with its file and line; raises ValueError with the reason.
        form: What rows look like, in one sentence.

    Raises:
        TuningError: The file is missing, or a line is malformed; the message names file and line.
    """
    path = data / f"{source}{SUFFIX}"
    if not path.resolve().is_relative_to(data.resolve()):
        raise TuningError(f"The source {source} must be a file below the data folder {data}.")
    return islice(_rows(path, parse, form), most)


def as_line(turns: Sequence[Message], completion: str, *, ends: bool = True) -> str:
    """Return a row as a line of such a file."""
    row: dict[str, Any] = {"messages": [turn.model_dump() for turn in turns], "completion": completion}
    return json.dumps(row if ends else row | {"ends": False}, ensure_ascii=False)


def _rows(path: Path, parse: Callable[[dict[str, Any], str], R], form: str) -> Iterator[R]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{path}, line {number}"
                    try:
                        row = parse(_object(line), where)
                    except ValueError as error:
                        raise TuningError(f"{where}: {error}.", fix=form) from error
                    yield row
    except FileNotFoundError as error:
        known = ", ".join(sorted(file.stem for file in path.parent.glob(f"*{SUFFIX}"))) or "none"
        raise TuningError(
            f"The file {path} of the source {path.stem} does not exist.",
            fix=f"Name the folder with the training data with --data; sources in it: {known}.",
        ) from error
    except OSError as error:
        raise TuningError(f"The file {path} cannot be read: {error.strerror or error}.") from error


def _object(line: bytes) -> dict[str, Any]:
    """Return the object of a line; raises ValueError with the reason."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"the line must be UTF-8, but byte {error.start + 1} is not") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"the line must be valid JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("the line is nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError("the line must be a JSON object")
    return row


def _row(row: dict[str, Any], where: str) -> ChatRow:
    ends = row.get("ends", True)
    if not isinstance(ends, bool):
        raise ValueError("ends must be true or false")
    return ChatRow(turns_of(row), text_of(row, "completion"), where, ends)


def turns_of(row: dict[str, Any]) -> tuple[Message, ...]:
    """Return the conversation of a row; raises ValueError with the reason."""
    if ("messages" in row) == ("prompt" in row):
        raise ValueError("the row must have either messages or prompt")
    if "prompt" in row:
        return (Message(role="user", content=text_of(row, "prompt")),)
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a list of at least one message")
    turns = tuple(_turn(number, message) for number, message in enumerate(messages, 1))
    if turns[-1].role == "assistant":
        raise ValueError("the last message must not be the assistant's: its reply is what is learnt")
    return turns


def _turn(number: int, message: Any) -> Message:
    where = f" of message {number}"
    if not isinstance(message, dict):
        raise ValueError(f"message {number} must be an object with role and content")
    role = text_of(message, "role", where)
    if role not in ROLES:
        raise ValueError(f"the role{where} must be {', '.join(ROLES[:-1])} or {ROLES[-1]}, not {role[:40]!r}")
    return Message(role=role, content=text_of(message, "content", where))


def text_of(found: dict[str, Any], key: str, where: str = "") -> str:
    """Return a text of a row; raises ValueError with the reason.

    Args:
        found: The row, or one of its messages.
        key: The name of the text.
        where: The place of the message, for the reason.
    """
    if key not in found:
        raise ValueError(f"the {key}{where} is missing")
    text = found[key]
    if not isinstance(text, str):
        raise ValueError(f"the {key}{where} must be a string")
    if not text.strip():
        raise ValueError(f"the {key}{where} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the {key}{where} contains half of a surrogate pair") from error
    return text
