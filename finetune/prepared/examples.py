"""Training examples from raw rows: columns that are recognized or named, and conversations of other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.prepared.raw_tables import BadRow, RawRow, RawTable
from prompts import Message
from prompts.template import Role
from rag.errors import TuningError

CHATS = ("messages", "conversations", "conversation", "turns", "dialog")
PROMPTS = ("prompt", "instruction", "question", "input", "query", "user", "title", "source", "text")
COMPLETIONS = (
    *("completion", "response", "output", "answer", "answers", "reply", "chosen", "target", "assistant"),
    *("expected_output", "ground_truth", "summary", "label", "synopsis", "description"),
)
_ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "ai", "gpt", "model", "bot", "chatgpt"), "assistant"),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that examples are read from; ``chat`` excludes ``prompt``."""

    prompt: str = ""
    completion: str = ""
    chat: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation and the reply to learn.

    Attributes:
        number: Line or row of the file.
        turns: The conversation; its last message may be empty, which a step of the preparation drops.
        completion: The reply.
        fields: The other columns as text, for groups.
    """

    number: int
    turns: tuple[Message, ...]
    completion: str
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return self.turns[-1].content


@dataclass(frozen=True, slots=True)
class Examples:
    """The examples of a file.

    Attributes:
        problems: The rows that are none, and those that could not be read.
    """

    table: RawTable
    columns: Columns
    examples: tuple[Example, ...]
    problems: tuple[BadRow, ...]


def read_examples(table: RawTable, prompt: str = "", completion: str = "") -> Examples:
    """Turn the rows of a table into examples.

    Args:
        table: The table.
        prompt, completion: Names of columns; empty for those that are recognized by their names.

    Raises:
        TuningError: A column is missing or cannot be recognized; the message lists the columns.
    """
    columns = _columns(table, prompt, completion)
    examples: list[Example] = []
    problems = list(table.problems)
    for row in table.rows:
        try:
            examples.append(_example(row, columns))
        except ValueError as error:
            problems.append(BadRow(row.number, str(error)))
    problems.sort(key=lambda problem: problem.number)
    if not examples:
        raise TuningError(
            f"{table.path} has no example. The first problem is in {table.unit} {problems[0].number}: "
            f"{problems[0].reason}."
        )
    return Examples(table, columns, tuple(examples), tuple(problems))


def _columns(table: RawTable, prompt: str, completion: str) -> Columns:
    if not table.columns:
        raise TuningError(f"{table.path} has no columns: its rows are empty.")
    for name in (prompt, completion):
        if name and name not in table.columns:
            raise TuningError(
                f"{table.path} has no column {name}; its columns are {_listed(table.columns)}.",
                fix="Name one of them.",
            )
    plain = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in table.columns}
    chat = next((plain[name] for name in CHATS if name in plain), "") if not prompt else ""
    reply = completion or next((plain[name] for name in COMPLETIONS if name in plain), "")
    if chat:
        return Columns(completion=reply, chat=chat)
    asked = prompt or next((plain[name] for name in PROMPTS if name in plain and plain[name] != reply), "")
    missing = [what for what, name in (("prompts", asked), ("completions", reply)) if not name]
    if missing:
        options = " and ".join(f"--{what.removesuffix('s')}" for what in missing)
        raise TuningError(
            f"{table.path} has no column that is recognized as {' or as '.join(missing)}; its columns are "
            f"{_listed(table.columns)}.",
            fix=f"Name it with {options}.",
        )
    if asked == reply:
        raise TuningError(f"The prompts and the completions must be in different columns, not both in {asked}.")
    return Columns(asked, reply)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def _example(row: RawRow, columns: Columns) -> Example:
    """Return the example of a row; raises ValueError with the reason."""
    if columns.chat:
        turns, completion = _chat(row.values.get(columns.chat), _system_of(row.values))
        if columns.completion and not completion:
            completion = text_of(row.values.get(columns.completion))
    else:
        asked = text_of(row.values.get(columns.prompt))
        # The form of Alpaca: a task and, in some rows, what it is about.
        more = text_of(row.values.get("input")) if columns.prompt == "instruction" else ""
        content = f"{asked}\n\n{more}" if more.strip() else asked
        turns = (*_system_of(row.values), Message(role="user", content=content))
        completion = text_of(row.values.get(columns.completion))
    used = {columns.prompt, columns.completion, columns.chat}
    fields = {name: text_of(value) for name, value in row.values.items() if name not in used}
    return Example(row.number, turns, completion, fields)


def text_of(value: Any) -> str:
    """Return a cell as text: empty for a missing one, and the first text of a list."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return text_of(value[0]) if value else ""
    if isinstance(value, dict):
        return text_of(value.get("content", value.get("value", value.get("text"))))
    return str(value)


def _system_of(values: Mapping[str, Any]) -> tuple[Message, ...]:
    system = values.get("system") or values.get("system_prompt")
    is_text = isinstance(system, str) and system.strip()
    return (Message(role="system", content=str(system)),) if is_text else ()


def _chat(value: Any, system: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    """Return the turns before the last reply, and that reply; empty if there is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError("the conversation is not a JSON list of messages") from error
    if not isinstance(value, list) or not value:
        raise ValueError("the conversation has no messages")
    turns = [_turn(number, message) for number, message in enumerate(value, 1)]
    if turns[0].role != "system":
        turns = [*system, *turns]
    replied = max((at for at, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
    asks = any(turn.role == "user" for turn in turns[: replied if replied >= 0 else len(turns)])
    if not asks:
        raise ValueError("the conversation has no message of the user before the reply")
    if turns[-1].role == "user":
        # Its reply is in another column, or missing.
        return tuple(turns), ""
    return tuple(turns[:replied]), turns[replied].content


def _turn(number: int, message: Any) -> Message:
    if not isinstance(message, dict):
        raise ValueError(f"message {number} is not an object")
    name = next((str(message[key]) for key in ("role", "from", "type") if message.get(key)), "")
    role = _ROLES.get(name.lower())
    if role is None:
        raise ValueError(f"the role of message {number} is {name[:40]!r}, not one of system, user and assistant")
    content = message.get("content", message.get("value", message.get("text")))
    if isinstance(content, list):
        # The parts of a message in the form of OpenAI, of which only text can be learnt.
        content = "\n".join(text_of(part) for part in content)
    return Message(role=role, content=text_of(content))


def of_group(examples: Iterable[Example], column: str) -> dict[str, int]:
    """Count the examples by the value of a column, the largest group first."""
    counts: dict[str, int] = {}
    for example in examples:
        name = example.fields.get(column, "")
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
