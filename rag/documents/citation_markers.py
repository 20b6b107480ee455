"""Citation markers such as ``[1]``: find them in a text, and remove them."""

from __future__ import annotations

import re

# In code, brackets are an index and not a citation.
CODE = r"```.*?```|`[^`\n]*`"
# White space only matches from its start: trying every position in a long run would take quadratic time.
SPACED = re.compile(rf"(?P<code>{CODE})|(?:(?<!\s)\s+)?\[(?P<number>\d{{1,3}})\]_?", re.DOTALL)
RUNS = re.compile(rf"(?P<code>{CODE})|(?:(?<!\s)\s+)?\[\d{{1,3}}\]_?(?:\s*\[\d{{1,3}}\]_?)*", re.DOTALL)
# Characters that could form a new marker or code when the text between them is removed.
_JOINING = frozenset("[]`0123456789")
_SPACE = re.compile(r"\s+")


def without_markers(text: str) -> str:
    """Remove everything that reads like a citation, such as the footnote marks of a quoted source."""
    return RUNS.sub(lambda found: found["code"] or left_of(found), text)


def on_one_line(text: str) -> str:
    """Return a text on one line, without markers that would read as citations of the answer that quotes it."""
    return _SPACE.sub(" ", without_markers(text)).strip()


def left_of(run: re.Match[str]) -> str:
    """Return the replacement of a run of markers: empty, or white space to keep its neighbours from joining."""
    if "`" in run.string and "\n" in run[0]:
        return "\n"
    sides = (run.string[max(run.start() - 1, 0) : run.start()], run.string[run.end() : run.end() + 1])
    return " " if all(side in _JOINING for side in sides) else ""
