"""Differences between two versions of a prompt: part by part, and word by word within a part."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from prompts.template import PromptTemplate

Kind = Literal["same", "removed", "added"]
_WORD = re.compile(r"\s+|\w+|[^\w\s]")
# Fields that are not compared.
_ASIDE = frozenset({"name", "version", "saved"})


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of words that are the same, removed or added."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """A part that differs.

    Attributes:
        where: Path of the part, such as ``messages 1 content``.
        old, new: Text of the part; None if the version lacks it.
        pieces: The word-by-word difference.
    """

    where: str
    old: str | None
    new: str | None
    pieces: tuple[Piece, ...]


def diff(old: PromptTemplate, new: PromptTemplate) -> tuple[Change, ...]:
    """Return the parts that differ, in file order; name, version and save record are not compared."""
    before, after = parts(old), parts(new)
    order = [*before, *(where for where in after if where not in before)]
    return tuple(
        Change(where, before.get(where), after.get(where), words(before.get(where, ""), after.get(where, "")))
        for where in sorted(order, key=_file_order)
        if before.get(where) != after.get(where)
    )


def apply(old: PromptTemplate, changes: Sequence[Change]) -> dict[str, str]:
    """Apply changes to a version and return the parts of the newer one.

    Raises:
        ValueError: The changes belong to another version.
    """
    found = parts(old)
    for change in changes:
        kept = "".join(piece.text for piece in change.pieces if piece.kind != "added")
        if kept != found.get(change.where, ""):
            raise ValueError(f"The change of {change.where} does not apply to {old.label}.")
        if change.new is None:
            found.pop(change.where)
        else:
            found[change.where] = "".join(piece.text for piece in change.pieces if piece.kind != "removed")
    return found


def words(old: str, new: str) -> tuple[Piece, ...]:
    """Diff two texts by words, spaces and punctuation marks."""
    before, after = _WORD.findall(old), _WORD.findall(new)
    pieces: list[Piece] = []
    for kind, first, last, begin, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(Piece("same", "".join(before[first:last])))
            continue
        if last > first:
            pieces.append(Piece("removed", "".join(before[first:last])))
        if end > begin:
            pieces.append(Piece("added", "".join(after[begin:end])))
    return tuple(pieces)


def parts(prompt: PromptTemplate) -> dict[str, str]:
    """Return the parts of a version as texts by path; values other than text as JSON."""
    found: dict[str, str] = {}
    for name, value in prompt.model_dump(mode="json", exclude={"settings"}).items():
        if name not in _ASIDE:
            _spread(name, value, found)
    # A setting is one part, even if it is a whole schema.
    given = prompt.settings.given
    return found | {f"settings {name}": json.dumps(item, ensure_ascii=False) for name, item in given.items()}


def _spread(where: str, value: Any, found: dict[str, str]) -> None:
    if isinstance(value, str):
        found[where] = value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _spread(f"{where} {name}", item, found)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for number, item in enumerate(value, 1):
            _spread(f"{where} {number}", item, found)
    elif value not in (None, []):
        found[where] = json.dumps(value, ensure_ascii=False)


def _file_order(where: str) -> tuple[int, list[int]]:
    """Return a sort key: the order of the fields, then the numbers within a path."""
    first, *rest = where.split(" ")
    return list(PromptTemplate.model_fields).index(first), [int(step) for step in rest if step.isdecimal()]
