"""Masking of personal data and secrets in what is written: every value becomes a mark of its kind.

``Masker`` masks texts and JSON. What is recognised only by a word before it, such as a password or a local phone
number, may be repeated without that word; ``Masker.values`` returns it, to be masked wherever it occurs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rag.personal_data import REACH, personal_data
from rag.redaction import JSON, MASK, redact, secrets_in
from rag.types import MaskedKind

MARKS: Mapping[MaskedKind, str] = {
    "email": "[email]",
    "phone": "[phone]",
    "card": "[card]",
    "iban": "[iban]",
    "ip": "[ip]",
    "secret": MASK,
}
"""What is written in place of a value, by kind."""

EVERY_KIND: tuple[MaskedKind, ...] = tuple(MARKS)

# Values that are kept for the log, which repeats what was asked a moment ago.
_RECENT = 1_000

Values = Mapping[str, str]
"""Values that were recognised, with their marks."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A part of a text that became a mark, from ``start`` to before ``end``."""

    start: int
    end: int
    mark: str


class Masker:
    """Masks the given kinds of data; without any, every text stays as it is.

    Masking a masked text changes nothing, and no text raises an exception.
    """

    def __init__(self, kinds: Collection[MaskedKind] = ()) -> None:
        self.kinds: Final = frozenset(kinds)
        self._finds = bool(self.kinds - {"secret"})
        self._recent: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.kinds)

    def text(self, text: str, known: Values | None = None) -> str:
        """Mask a text.

        Args:
            text: Any text.
            known: Values to mask wherever they occur as whole words.
        """
        if not self.kinds or not text:
            return text
        if known:
            text = _without(text, known)
        if "secret" in self.kinds:
            text = redact(text)
        return _edited(text, self.edits(text)) if self._finds else text

    def json(self, value: JSON, known: Values | None = None) -> JSON:
        """Mask all strings of a JSON value, and the names of its fields."""
        if not self.kinds:
            return value
        if isinstance(value, str):
            return self.text(value, known)
        if isinstance(value, list):
            return [self.json(item, known) for item in value]
        if isinstance(value, dict):
            return {self.text(key, known): self.json(item, known) for key, item in value.items()}
        return value

    def log_text(self, text: str) -> str:
        """Mask a text about anything, such as the message of an error, also what was recognised lately."""
        return self.text(text, self._recent.copy())

    def values(self, *parts: JSON) -> dict[str, str]:
        """Return the values in texts or JSON whose repetition may not be recognised, with their marks."""
        found: dict[str, str] = {}
        for text in _strings(parts) if self.kinds else ():
            # All other kinds are recognised by themselves.
            edits = self.edits(text) if self.kinds & {"phone", "ip"} else ()
            again = (edit for edit in edits if edit.mark in (MARKS["phone"], MARKS["ip"]))
            found |= {text[edit.start : edit.end]: edit.mark for edit in again}
            if "secret" in self.kinds:
                found |= dict.fromkeys(secrets_in(text), MASK)
        self._recent |= found
        for value in list(self._recent)[:-_RECENT]:
            self._recent.pop(value, None)
        return found

    def edits(self, text: str) -> list[Edit]:
        """Return the personal data of the kinds to mask in a text, in order."""
        found, words = personal_data(text)
        edits: list[Edit] = []
        # The distance from a word is measured in the masked text, so that masking it again finds nothing more.
        shift, waiting, last = 0, 0, -REACH - 1
        for one in found:
            while waiting < len(words) and words[waiting] <= one.start:
                last = words[waiting] + shift
                waiting += 1
            if one.kind not in self.kinds or (one.near and one.start + shift - last > REACH):
                continue
            edits.append(Edit(one.start, one.end, MARKS[one.kind]))
            shift += len(edits[-1].mark) - (one.end - one.start)
        return edits


def _edited(text: str, edits: Sequence[Edit]) -> str:
    parts, at = [], 0
    for edit in edits:
        parts += [text[at : edit.start], edit.mark]
        at = edit.end
    return "".join([*parts, text[at:]])


def _without(text: str, known: Values) -> str:
    here = sorted((value for value in known if value and value in text), key=len, reverse=True)
    if not here:
        return text
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, here))})(?!\w)")
    return pattern.sub(lambda match: known[match[0]], text)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
