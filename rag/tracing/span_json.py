"""Conversion of any object into JSON for traces, with masked secrets and truncated texts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

from rag.redaction import JSON, MASK, is_secret_key, redact

MAX_STRING = 4_000_000
"""Maximum characters of a string in the data of a span."""
MAX_TEXT = 20_000
"""Maximum characters of the texts of a trace itself, which lists read."""
MAX_ITEMS = 1_000
"""Maximum items of a list or mapping."""
_TRUNCATED = re.compile(r"… \[\d+ characters left out\]$|^(?:… )?\d+ more left out$")
_LEFT_OUT = re.compile(r"… \[(\d+) characters left out\]$")
_MAX_DEPTH = 20
_SHORT_KEY = 100
_BITS = 64


Known = dict[int, tuple[object, JSON]]
"""The JSON of frozen dataclasses that were converted already, with the objects themselves, by their identity."""


def as_json(value: object, known: Known | None = None) -> JSON:
    """Return any object as JSON, with masked secrets and truncated texts. Never raises.

    Dataclasses, pydantic models and messages become objects; fields of a dataclass without ``repr`` are left out.
    Strings are truncated to 4,000,000 characters and lists to 1,000 items, with a mark.

    Args:
        value: Any object.
        known: Lets calls share the frozen dataclasses that they have in common, such as the passages of an answer,
            which then occur as one object in the returned values.
    """
    try:
        return _plain(value, _MAX_DEPTH, {} if known is None else known)
    except Exception as error:  # noqa: BLE001 - __str__ and __iter__ of any object may raise
        return f"<{type(value).__name__}, not shown: {type(error).__name__}>"


def _plain(value: object, depth: int, known: Known) -> JSON:
    # Most values are plain strings.
    if type(value) is str:
        return kept_text(value, MAX_STRING)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, depth, known)
    if isinstance(value, str):
        return kept_text(value, MAX_STRING)
    if isinstance(value, int):
        # Readers of traces expect 64 bits, and Python formats no number with more than 4,300 digits.
        return int(value) if value.bit_length() < _BITS else f"<a number of {value.bit_length():,} bits>"
    if isinstance(value, float):
        # JSON has no infinity, and PostgreSQL refuses it.
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Path | UUID):
        return kept_text(str(value), MAX_STRING)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth == 0:
        return f"<{type(value).__name__}, too deep to show>"
    if isinstance(value, BaseMessage):
        return _fields(_message(value), depth, known)
    if isinstance(value, PromptValue):
        return _plain(value.to_messages(), depth, known)
    if is_dataclass(value) and not isinstance(value, type):
        return _dataclass(value, depth, known)
    if isinstance(value, BaseModel):
        return _fields({name: getattr(value, name) for name in type(value).model_fields}, depth, known)
    if isinstance(value, Mapping):
        return _fields(value, depth, known)
    if isinstance(value, Sequence | Set):
        return _items(value, depth, known)
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        return _array(value, depth, known)
    return kept_text(str(value), MAX_STRING)


def _dataclass(value: Any, depth: int, known: Known) -> JSON:
    if id(value) in known:
        return known[id(value)][1]
    kind: Any = type(value)
    shown = _fields({name: getattr(value, name) for name in _shown_fields(kind)}, depth, known)
    if kind.__dataclass_params__.frozen:
        # Kept, so that no other object gets its identity.
        known[id(value)] = (value, shown)
    return shown


@lru_cache(maxsize=256)
def _shown_fields(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.repr)


def _fields(values: Mapping[Any, object], depth: int, known: Known) -> JSON:
    shown: dict[str, JSON] = {}
    for count, (key, value) in enumerate(values.items()):
        if count == MAX_ITEMS:
            shown["…"] = f"{len(values) - MAX_ITEMS} more left out"
            break
        name, is_secret = _key(key) if type(key) is str and len(key) < _SHORT_KEY else _key.__wrapped__(str(key))
        shown[name] = MASK if is_secret and isinstance(value, str) and value else _plain(value, depth - 1, known)
    return shown


@lru_cache(maxsize=1_024)
def _key(name: str) -> tuple[str, bool]:
    """Return the name of a field as it is stored, and whether its value is a secret."""
    kept = kept_text(name)
    return kept, is_secret_key(kept)


def _items(values: Sequence[object] | Set[object], depth: int, known: Known) -> JSON:
    shown: list[JSON] = []
    for count, value in enumerate(values):
        if count == MAX_ITEMS:
            shown.append(f"… {len(values) - MAX_ITEMS} more left out")
            break
        shown.append(_plain(value, depth - 1, known))
    return shown


def _array(value: Any, depth: int, known: Known) -> JSON:
    # The numbers of a vector are useless to people, so only its shape is shown.
    if value.shape == ():
        return _plain(value.tolist(), depth, known)
    return f"<{type(value).__name__} {'×'.join(str(size) for size in value.shape)} {value.dtype}>"


def _message(message: BaseMessage) -> dict[str, object]:
    shown: dict[str, object] = {"role": message.type, "content": message.content}
    for name in ("name", "tool_calls", "usage_metadata"):
        if value := getattr(message, name, None):
            shown[name] = value
    return shown


def is_truncated(text: str) -> bool:
    """Whether a string of a trace has the mark of something that was left out."""
    return bool(_TRUNCATED.search(text))


def shortened(text: str, count: int) -> str:
    """Return a truncated string without the last characters before its mark, which counts them."""
    match = _LEFT_OUT.search(text)
    if match is None:
        return text
    kept = text[: max(match.start() - count, 0)]
    return f"{kept}… [{int(match[1]) + match.start() - len(kept)} characters left out]"


def kept_text(value: str, limit: int = MAX_TEXT) -> str:
    """Return a string with masked secrets, truncated, and without characters that databases refuse."""
    left_out = len(value) - limit
    if left_out > 0:
        # Masked before it is truncated, with a margin for a secret at the end.
        value = redact(value[: limit + 4_000])[:limit]
        value = f"{value}… [{left_out} characters left out]"
    else:
        value = redact(value)
    if value.isascii() and "\x00" not in value:
        return value
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
