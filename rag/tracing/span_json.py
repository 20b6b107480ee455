"""Conversion of any object into JSON for traces, with masked secrets and truncated texts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from enum import Enum
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
_MAX_DEPTH = 20
_BITS = 64


def as_json(value: object) -> JSON:
    """Return any object as JSON, with masked secrets and truncated texts. Never raises.

    Dataclasses, pydantic models and messages become objects; fields of a dataclass without ``repr`` are left out.
    Strings are truncated to 4,000,000 characters and lists to 1,000 items, with a mark.
    """
    try:
        return _plain(value, _MAX_DEPTH)
    except Exception as error:  # noqa: BLE001 - __str__ and __iter__ of any object may raise
        return f"<{type(value).__name__}, not shown: {type(error).__name__}>"


def _plain(value: object, depth: int) -> JSON:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, depth)
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
        return _fields(_message(value), depth)
    if isinstance(value, PromptValue):
        return _plain(value.to_messages(), depth)
    if is_dataclass(value) and not isinstance(value, type):
        return _fields({field.name: getattr(value, field.name) for field in fields(value) if field.repr}, depth)
    if isinstance(value, BaseModel):
        return _fields({name: getattr(value, name) for name in type(value).model_fields}, depth)
    if isinstance(value, Mapping):
        return _fields(value, depth)
    if isinstance(value, Sequence | Set):
        return _items(value, depth)
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        return _array(value, depth)
    return kept_text(str(value), MAX_STRING)


def _fields(values: Mapping[Any, object], depth: int) -> JSON:
    shown: dict[str, JSON] = {}
    for count, (key, value) in enumerate(values.items()):
        if count == MAX_ITEMS:
            shown["…"] = f"{len(values) - MAX_ITEMS} more left out"
            break
        name = kept_text(str(key))
        secret = is_secret_key(name) and isinstance(value, str) and value
        shown[name] = MASK if secret else _plain(value, depth - 1)
    return shown


def _items(values: Sequence[object] | Set[object], depth: int) -> JSON:
    shown: list[JSON] = []
    for count, value in enumerate(values):
        if count == MAX_ITEMS:
            shown.append(f"… {len(values) - MAX_ITEMS} more left out")
            break
        shown.append(_plain(value, depth - 1))
    return shown


def _array(value: Any, depth: int) -> JSON:
    # The numbers of a vector are useless to people, so only its shape is shown.
    if value.shape == ():
        return _plain(value.tolist(), depth)
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


def kept_text(value: str, limit: int = MAX_TEXT) -> str:
    """Return a string with masked secrets, truncated, and without characters that databases refuse."""
    left_out = len(value) - limit
    if left_out > 0:
        # Masked before it is truncated, with a margin for a secret at the end.
        value = redact(value[: limit + 4_000])[:limit]
        value = f"{value}… [{left_out} characters left out]"
    else:
        value = redact(value)
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
