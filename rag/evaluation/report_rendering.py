"""Templates of a report, which escape and redact all texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rag.redaction import redact
from rag.tracing.figures import counted, format_cost, format_seconds

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")

# Control characters, lone surrogates, and characters that change the direction of the text around them.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@cache
def report_templates() -> Environment:
    """Return the templates next to this module, which redact and escape every value."""
    environment = escaping_templates(TEMPLATES, _redacted)
    environment.keep_trailing_newline = True
    return environment


def escaping_templates(folder: Path, finalize: Callable[[object], object]) -> Environment:
    """Return the templates of a folder, which escape every value after ``finalize`` and refuse missing ones."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.globals |= {"counted": counted, "format_cost": format_cost, "format_seconds": format_seconds}
    return environment


def printable(value: object) -> object:
    """Replace invisible characters in a text; markup and other values stay unchanged."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def visible(text: str) -> str:
    """Replace the characters of a text that hide or reorder others, and lone surrogates."""
    return _INVISIBLE.sub("\ufffd", text.replace("\r\n", "\n"))


def shortened(text: str, length: int) -> str:
    """Return a text on one line, truncated to ``length`` characters with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _redacted(value: object) -> object:
    return printable(redact(value)) if isinstance(value, str) and not hasattr(value, "__html__") else value
