"""Rows as other programs write them: names in other spellings, nested fields, messages of a chat."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rag.evaluation.case_rows import ALIASES, is_known

# Names under which programs such as LangSmith, Langfuse and promptfoo nest the fields of a case.
_NESTING = frozenset(
    "input inputs output outputs expected expected_output reference_output reference_outputs vars".split()
)
_CHATS = frozenset({"input", "inputs", "messages", "prompt"})
# Names under which files have their rows.
_LISTS = ("cases", "data", "examples", "questions", "items", "rows", "records", "tests", "samples")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ASKS, _REPLIES = frozenset({"user", "human"}), frozenset({"assistant", "ai"})


def field_name(name: str) -> str:
    """Return a name in the spelling of a case: ``expectedOutput``, ``Question``, ``inputs.question``."""
    plain = re.sub(r"[\s-]+", "_", _WORD_START.sub("_", name.strip())).lower()
    head, _, tail = plain.partition(".")
    return tail if head in _NESTING and tail else plain


def flattened(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parsed JSON object with the names of a case; what a case does not have keeps its name."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        for inner, item in _parts(name, value).items():
            plain = field_name(inner)
            # Of two spellings of a name, the second one is reported as unknown.
            found[plain if is_known(plain) and plain not in found else inner] = item
    return found


def rows_in(data: Mapping[str, Any]) -> list[Any] | None:
    """Return the rows of an object around them, or the object if it is a row; None if it is neither.

    SQuAD's format is neither, because it has other levels in between.
    """
    for name in _LISTS:
        rows = data.get(name)
        if (
            isinstance(rows, list)
            and rows
            and not any(isinstance(row, dict) and "paragraphs" in row for row in rows)
        ):
            return rows
    flat = flattened(data)
    return [data] if any(ALIASES.get(name, name) == "question" for name in flat) else None


def _parts(name: str, value: Any) -> dict[str, Any]:
    """Return the fields that a field stands for."""
    plain = field_name(name)
    if plain in _CHATS and (chat := _conversation(value)):
        return chat
    if isinstance(value, dict):
        if plain in _NESTING:
            return value
        texts = value.get("text")
        if ALIASES.get(plain, plain) == "answers" and isinstance(texts, list):
            # SQuAD's answers in the datasets of Hugging Face: without one, there is nothing to answer.
            return {name: texts} if texts else {"must_refuse": True}
    return {name: value}


def _conversation(value: Any) -> dict[str, Any]:
    """Return the last question of a chat with the answer and the turns before it; empty if it is no chat."""
    if not isinstance(value, list) or not all(isinstance(one, dict) and "role" in one for one in value):
        return {}
    turns = [(str(one["role"]), one.get("content")) for one in value]
    asked = [at for at, (role, _) in enumerate(turns) if role in _ASKS]
    if not asked:
        return {}
    last = asked[-1]
    history = [
        {"question": turns[at][1], "answer": reply}
        for at in asked[:-1]
        if (reply := _reply(turns, at)) is not None
    ]
    answer = _reply(turns, last)
    found = {
        "question": turns[last][1],
        "history": history or None,
        "answers": None if answer is None else [answer],
    }
    return {name: part for name, part in found.items() if part is not None}


def _reply(turns: Sequence[tuple[str, Any]], at: int) -> Any:
    """Return the reply to a turn; None without one."""
    after = turns[at + 1 : at + 2]
    return after[0][1] if after and after[0][0] in _REPLIES else None
