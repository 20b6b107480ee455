"""Pairs of replies to a conversation, of which one is better, from JSONL files.

A line is an object with ``chosen``, ``rejected`` and either ``messages`` or ``prompt``, as in
``finetune.data.chat_rows``; further keys are ignored:

    {"prompt": "…", "chosen": "…", "rejected": "…"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune.data.chat_rows import read_rows, text_of, turns_of
from finetune.rows import ChatRow, PreferenceRow
from prompts import Message

_FORM = 'Rows are {"messages": [{"role": …, "content": …}] or "prompt": …, "chosen": …, "rejected": …}.'


def read_preference_rows(data: Path, source: str, most: int | None = None) -> Iterator[PreferenceRow]:
    """Yield the pairs of a source; see ``finetune.data.chat_rows.read_rows``."""
    return read_rows(data, source, most, _row, _FORM)


def as_line(turns: Sequence[Message], chosen: str, rejected: str) -> str:
    """Return a pair as a line of such a file."""
    messages = [turn.model_dump() for turn in turns]
    return json.dumps({"messages": messages, "chosen": chosen, "rejected": rejected}, ensure_ascii=False)


def _row(row: dict[str, Any], where: str) -> PreferenceRow:
    turns = turns_of(row)
    chosen, rejected = text_of(row, "chosen"), text_of(row, "rejected")
    if chosen.strip() == rejected.strip():
        raise ValueError("chosen and rejected must differ")
    return PreferenceRow(ChatRow(turns, chosen, where), ChatRow(turns, rejected, where))
