"""What differs between two versions: part by part, and word by word inside a part."""

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
# Not part of what a person compares.
_ASIDE = frozenset({"name", "version", "saved"})


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of words."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """A part that differs.

    Attributes:
        where: Its place, such as ``messages 1 content``.
        old, new: Its text; None where a version has no such part.
        pieces: The way from one to the other.
    """

    where: str
    old: str | None
    new: str | None
    pieces: tuple[Piece, ...]


def diff(old: PromptTemplate, new: PromptTemplate) -> tuple[Change, ...]:
    """The parts that differ, in the order of the file; name, version and who saved it are left out."""
    before, after = parts(old), parts(new)
    order = [*before, *(where for where in after if where not in before)]
    return tuple(
        Change(where, before.get(where), after.get(where), words(before.get(where, ""), after.get(where, "")))
        for where in sorted(order, key=_place)
        if before.get(where) != after.get(where)
    )


def apply(old: PromptTemplate, changes: Sequence[Change]) -> dict[str, str]:
    """The parts of the newer version, made of the older one and the pieces of the changes.

    Raises:
        ValueError: The changes are of another version.
    """
    found = parts(old)
    for change in changes:
        kept = "".join(each.text for each in change.pieces if each.kind != "added")
        if kept != found.get(change.where, ""):
            raise ValueError(f"The change of {change.where} is none of {old.label}.")
        if change.new is None:
            found.pop(change.where)
        else:
            found[change.where] = "".join(each.text for each in change.pieces if each.kind != "removed")
    return found


def words(old: str, new: str) -> tuple[Piece, ...]:
    """The way from one text to another, words, spaces and signs taken whole."""
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
    """A version as texts by their place; what is no text is written as JSON."""
    found: dict[str, str] = {}
    for name, value in prompt.model_dump(mode="json", exclude={"settings"}).items():
        if name not in _ASIDE:
            _spread(name, value, found)
    # Each setting is one part, also where it is a whole schema.
    given = prompt.settings.given
    return found | {f"settings {name}": json.dumps(each, ensure_ascii=False) for name, each in given.items()}


def _spread(where: str, value: Any, found: dict[str, str]) -> None:
    if isinstance(value, str):
        found[where] = value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            _spread(f"{where} {name}", each, found)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for number, each in enumerate(value, 1):
            _spread(f"{where} {number}", each, found)
    elif value not in (None, []):
        found[where] = json.dumps(value, ensure_ascii=False)


def _place(where: str) -> tuple[int, list[int]]:
    """The order of the fields, and of what is numbered in them; sorting leaves the rest as it was."""
    first, *rest = where.split(" ")
    return list(PromptTemplate.model_fields).index(first), [int(each) for each in rest if each.isdecimal()]
