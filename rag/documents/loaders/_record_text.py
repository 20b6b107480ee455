"""The text of a JSON record: its field ``text``, or else its other fields as lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rag.documents.loaders._blocks import Builder, finished, paragraphs
from rag.documents.loaders._text import clean, refused
from rag.types import Block

_DEEPEST = 100
"""Maximum levels of nesting."""

_LONGEST_RECORD = 300
"""Maximum characters of a record without ``text``, or of an object in a list, that is quoted as a whole."""

_QUESTION_MARKS = ("?", "？", "؟")


def fields_of(value: object) -> dict[str, object]:
    """Return the fields of an object; any other value becomes the field ``text``."""
    if isinstance(value, dict):
        return value
    return {"text": _lines(value) if isinstance(value, list) else written(value)}


def has_text(fields: dict[str, object]) -> bool:
    """Whether a record has one field ``text`` that says something."""
    text = fields.get("text")
    return isinstance(text, str) and bool(text.strip()) and "text (2)" not in fields


def is_cell(value: object) -> bool:
    """Whether a value is neither a list nor an object."""
    return not isinstance(value, list | dict)


def _lines(values: list[object]) -> str:
    """Return a list as a row, such as a code and its meaning, or as rows if it holds lists or objects alone."""
    if values and all(isinstance(value, list | dict) for value in values):
        return "\n".join(_lines(value) if isinstance(value, list) else written(value) for value in values)
    texts = [written(value) for value in values]
    while texts and not texts[-1]:
        texts.pop()
    if texts and texts[0].endswith(_QUESTION_MARKS):
        return "\n\n".join(texts)  # A question stands alone.
    return ": ".join(texts) if len(texts) == 2 else "; ".join(texts)


def written(value: object) -> str:
    """Return a value on one line, empty without anything to read."""
    if isinstance(value, dict):
        found = ((name, written(item)) for name, item in value.items())
        return "; ".join(f"{name}: {text}" for name, text in found if text)
    if isinstance(value, list):
        return ", ".join(text for text in map(written, value) if text)
    return "" if value is None else str(value)


def text_of(path: Path, fields: dict[str, object]) -> tuple[str, tuple[Block, ...]]:
    """Return the stored text of a record and its blocks.

    Raises:
        LoadError: The record contains nothing readable.
    """
    if has_text(fields):
        text = clean(str(fields["text"]))
        return text, finished(path, text, (Block(start, end) for start, end in paragraphs(text)))
    builder = Builder()
    values = list(_flat(path, fields))
    # A mapping of many names is a list, of which one line answers; a few fields belong together.
    apart = sum(len(name) + len(item) for name, item, _ in values) > _LONGEST_RECORD
    heading = ""
    for name, item, is_row in values:
        if is_row:
            if name != heading:
                builder.add(name, "heading", (name,))
            builder.add(item, "row", (name,))
        else:
            # A question as the name of its answer stands on a line of its own.
            asks = name.endswith(_QUESTION_MARKS)
            gap = "\n\n" if asks or apart or heading else "\n"
            builder.add(f"{name}\n{item}" if asks else f"{name}: {item}", gap=gap)
        heading = name if is_row else ""
    return builder.text, finished(path, builder.text, builder.blocks)


def _flat(path: Path, fields: dict[str, object]) -> Iterator[tuple[str, str, bool]]:
    """Yield every scalar with its key path (``paragraphs.0.context``), in order, without recursion.

    The objects of a list that fit on a line are rows, with the path of the list.
    """
    waiting: list[tuple[str, object, int]] = [("", fields, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise refused(path, f"is nested more than {_DEEPEST} levels deep", "Flatten it.")
        if isinstance(value, dict):
            items = [(f"{name}.{key}" if name else str(key), item, depth + 1) for key, item in value.items()]
            waiting.extend(reversed(items))
        elif isinstance(value, list):
            if all(isinstance(item, str | int | float) for item in value):
                if value:
                    yield name, ", ".join(map(str, value)), False
            elif all(map(_is_flat, value)):
                yield from ((name, written(item), True) for item in value)
            else:
                waiting.extend((f"{name}.{i}", value[i], depth + 1) for i in reversed(range(len(value))))
        elif value is not None and value != "":
            yield name, str(value), False


def _is_flat(value: object) -> bool:
    """Whether a value is an object that fits on a line."""
    if not isinstance(value, dict) or not all(map(is_cell, value.values())):
        return False
    return sum(len(key) + len(str(item)) for key, item in value.items()) <= _LONGEST_RECORD
