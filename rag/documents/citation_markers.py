"""The markers of citations in a text, such as ``[1]``: where they stand, and a text without them."""

from __future__ import annotations

import re

# In code brackets are an index and no citation.
CODE = r"```.*?```|`[^`\n]*`"
# White space is looked at from its beginning only: from each place in it, a long stretch would take hours.
SPACED = re.compile(rf"(?P<code>{CODE})|(?:(?<!\s)\s+)?\[(?P<number>\d{{1,3}})\]_?", re.DOTALL)
RUNS = re.compile(rf"(?P<code>{CODE})|(?:(?<!\s)\s+)?\[\d{{1,3}}\]_?(?:\s*\[\d{{1,3}}\]_?)*", re.DOTALL)
# What could become a marker, or code, when what stands between two of them goes away.
_JOINING = frozenset("[]`0123456789")


def without_markers(text: str) -> str:
    """A text without what would be read as a citation, such as the footnote marks of a quoted source."""
    return RUNS.sub(lambda found: found["code"] or left_of(found), text)


def left_of(run: re.Match[str]) -> str:
    """What stays of a run of markers: nothing, or what keeps its two sides from becoming a marker or code."""
    if "`" in run.string and "\n" in run[0]:
        return "\n"
    sides = (run.string[max(run.start() - 1, 0) : run.start()], run.string[run.end() : run.end() + 1])
    return " " if all(side in _JOINING for side in sides) else ""
