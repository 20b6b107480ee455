"""What may go to a terminal: text of others made harmless, and JSON that any reader takes."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from typing import Any

import click

# Control characters move the cursor, change colours and titles, or answer back as if typed; embeddings and
# overrides of the text's direction turn round what follows them; a lone surrogate cannot be written at all.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_DIRECTIONS = "\u202a-\u202e\u2066-\u2069"
_UNSAFE = re.compile(f"[{_CONTROLS}{_DIRECTIONS}\u2028\u2029\ud800-\udfff]")
# Inside JSON the same characters are written as escapes, so that nothing is lost; line separators are among
# them, since some readers of JSON lines would end a line there.
_ESCAPED = re.compile(f"[\x7f-\x9f{_DIRECTIONS}\u2028\u2029\ud800-\udfff]")
_PICTURES = 0x2400


def visible(text: str) -> str:
    """The text with everything a terminal would obey made visible; tabs and line ends stay."""
    return _UNSAFE.sub(_picture, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same on one line."""
    return visible(" ".join(text.split()))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(_PICTURES + code)
    return "␡" if code == 0x7F else "\ufffd"


def unpaired(text: str) -> str:
    """The text without lone surrogates, which arguments that are no UTF-8 carry and no encoder takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def print_json(value: Any, indent: int | None = None) -> None:
    """Print JSON on stdout at once: one line, unless indented."""
    readable = (sys.stdout.encoding or "").lower().startswith("utf")
    told = json.dumps(value, ensure_ascii=not readable, indent=indent)
    click.echo(_ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", told))
    sys.stdout.flush()


def moment(seconds: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """Seconds since the epoch in the time of this machine's zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime(form)


def note(line: str) -> None:
    """Say something on stderr that is not the result."""
    click.echo(visible(line), err=True)


def counted(number: int, thing: str) -> str:
    """``1 file``, ``1,200 files``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
