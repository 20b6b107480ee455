"""Safe output for a terminal: text without control characters, and JSON that any reader accepts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

# Control characters move the cursor, change colours and titles, or make the terminal type; embeddings and
# overrides of the text's direction reorder what follows them; a lone surrogate cannot be encoded.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_DIRECTIONS = "\u202a-\u202e\u2066-\u2069"
_UNSAFE = re.compile(f"[{_CONTROLS}{_DIRECTIONS}\u2028\u2029\ud800-\udfff]")
# In JSON the same characters become escapes, so that nothing is lost; line separators too, because some readers
# of JSON lines would end a line there.
_ESCAPED = re.compile(f"[\x7f-\x9f{_DIRECTIONS}\u2028\u2029\ud800-\udfff]")
_PICTURES = 0x2400


def visible(text: str) -> str:
    """Replace everything that a terminal would obey by visible characters; tabs and line ends stay."""
    return _UNSAFE.sub(_picture, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return the visible text on one line."""
    return visible(" ".join(text.split()))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(_PICTURES + code)
    return "␡" if code == 0x7F else "\ufffd"


def unpaired(text: str) -> str:
    """Replace lone surrogates, which arguments that are not UTF-8 contain and no encoder accepts."""
    return text.encode("utf-8", "replace").decode("utf-8")


def print_json(value: Any, indent: int | None = None) -> None:
    """Print JSON on stdout and flush it: on one line, unless indented."""
    readable = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=not readable, indent=indent)
    click.echo(_ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
    sys.stdout.flush()


def print_names(names: Sequence[str], as_json: bool) -> None:
    """Print names, one a line, or as a JSON list."""
    if as_json:
        print_json(list(names), indent=2)
        return
    for name in names:
        click.echo(one_line(name))


def moment(seconds: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """Format seconds since the epoch in the local time zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime(form)


def note(text: str) -> None:
    """Print a line on stderr that is not part of the result."""
    click.echo(visible(text), err=True)
