"""Rows as other programs write them: names in other spellings, nested fields, messages of a chat."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rag.evaluation.case_rows import ALIASES, is_known

# Names under which programs such as LangSmith, Langfuse, promptfoo and OpenAI's evals nest the fields of a case.
_INPUTS = frozenset({"input", "inputs"})
_OUTPUTS = frozenset("output outputs expected expected_output reference_output reference_outputs".split())
NESTING = _INPUTS | _OUTPUTS | {"vars", "item"}
CHATS = frozenset({"input", "inputs", "messages", "prompt", "conversation", "conversations"})
# Checks of promptfoo whose value is the answer.
_ASSERTED = frozenset("equals contains icontains contains-any icontains-any similar factuality".split())
# Names under which files have their rows.
_LISTS = ("cases", "data", "examples", "questions", "items", "rows", "records", "tests", "samples")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ASKS, _REPLIES = frozenset({"user", "human"}), frozenset({"assistant", "ai", "gpt", "model"})


def field_name(name: str) -> str:
    """Return a name in the spelling of a case: ``expectedOutput``, ``Question``, ``inputs.question``."""
    plain = re.sub(r"[\s-]+", "_", _WORD_START.sub("_", name.strip())).lower()
    head, _, tail = plain.partition(".")
    return tail if head in NESTING and tail else plain


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
    if rows := _transposed(data):
        return rows
    flat = flattened(data)
    return [data] if any(ALIASES.get(name, name) == "question" for name in flat) else None


def _transposed(data: Mapping[str, Any]) -> list[Any]:
    """Return the rows of a table that is stored by columns, as pandas does; empty if it is none."""
    columns = {name: [*part.values()] if isinstance(part, dict) else part for name, part in data.items()}
    asked = next((part for name, part in columns.items() if field_name(name) == "question"), None)
    if not isinstance(asked, list) or not all(
        isinstance(part, list) and len(part) == len(asked) for part in columns.values()
    ):
        return []
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _parts(name: str, value: Any) -> dict[str, Any]:
    """Return the fields that a field stands for."""
    plain = field_name(name)
    if plain in CHATS and (chat := _conversation(value)):
        return chat
    if plain == "assert" and (answers := _asserted(value)):
        return {"answers": answers}
    answers_here = ALIASES.get(plain, plain) == "answers"
    if isinstance(value, dict):
        texts = value.get("text")
        if answers_here and isinstance(texts, list):
            # SQuAD's answers in the datasets of Hugging Face: without one, there is nothing to answer.
            return {name: texts} if texts else {"must_refuse": True}
        if plain in NESTING:
            return _inside(plain, value)
    if answers_here and isinstance(value, list):
        return {name: [_text(item) for item in value]}
    return {name: value}


def _inside(plain: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a nested object; a single text in it is the question, or the answer."""
    inner = next(iter(value), "")
    text = value[inner] if len(value) == 1 else None
    if isinstance(text, str) and not is_known(field_name(inner)):
        if plain in _INPUTS:
            return {"question": text}
        if plain in _OUTPUTS:
            return {"answers": [text]}
    return {part: item for name, one in value.items() for part, item in _parts(name, one).items()}


def _asserted(value: Any) -> list[str]:
    """Return the answers that promptfoo's checks of a test expect."""
    checks = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    values = [one.get("value") for one in checks if one.get("type") in _ASSERTED]
    several = [item for one in values for item in (one if isinstance(one, list) else [one])]
    return [str(item) for item in several if isinstance(item, str | int | float)]


def _conversation(value: Any) -> dict[str, Any]:
    """Return the last question of a chat with the answer and the turns before it; empty if it is no chat."""
    if not isinstance(value, list) or not all(isinstance(one, dict) and _role(one) for one in value):
        return {}
    turns = [(_role(one), _text(one.get("content", one.get("value")))) for one in value]
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


def _role(message: Mapping[str, Any]) -> str:
    """Return the role of a message, also of LangChain's and of ShareGPT's; empty without one."""
    return next((str(message[name]) for name in ("role", "type", "from") if message.get(name)), "")


def _text(item: Any) -> Any:
    """Return the text of an object with a text, or of a list of them; anything else as it is."""
    if isinstance(item, dict) and isinstance(item.get("text"), str):
        return item["text"]
    if isinstance(item, list) and item and all(isinstance(_text(part), str) for part in item):
        return "\n".join(_text(part) for part in item)
    return item


def _reply(turns: Sequence[tuple[str, Any]], at: int) -> Any:
    """Return the reply to a turn; None without one."""
    after = turns[at + 1 : at + 2]
    return after[0][1] if after and after[0][0] in _REPLIES else None
