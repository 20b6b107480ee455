"""Text that others wrote, made safe to stand in HTML and in SVG."""

from __future__ import annotations

import re
from html import escape

from rag.redaction import redact

# Control characters, halves of characters, and those that turn the direction of the text around them.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """The text escaped, for content as well as for attributes; secrets are redacted, since a report is sent on."""
    return escape(_UNSEEN.sub("\ufffd", redact(text).replace("\r\n", "\n")))


def shortened(text: str, length: int) -> str:
    """The text on one line, at most so many characters; an ellipsis is the last where something is missing."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
