"""Completions that only hold a place, such as "Coming soon": stock phrases, and short texts that are repeated.

Whether a short text is a placeholder depends on the others: "none" among long replies is one, and among labels it
is an answer. So the rule compares a completion with the typical one of its data.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence

# What people write where the text is still missing, without punctuation and in lower case.
_ALWAYS = frozenset(
    (
        "coming soon|to be announced|to be confirmed|to be determined|to be added|to be written|"
        "to be completed|tba|tbd|tbc|todo|to do|fixme|placeholder|under construction|work in progress|"
        "wip|lorem ipsum|insert text here|add text here|text goes here|your text here|no description|"
        "no description available|no synopsis|no synopsis available|no summary available|no text|"
        "no content|no data|not available|not yet available|currently unavailable|"
        "information not available|description to follow|more to come|details to follow|"
        "details to be announced|watch this space|null|nan|undefined|n/a"
    ).split("|")
)
# Answers in data of short labels, and placeholders among sentences.
_AMONG_LONG = frozenset(
    "none na unknown missing empty pending test testing xxx asdf foo bar blank nil no yes".split()
)
_LOREM = re.compile(r"^lorem ipsum\b")
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")

# Different prompts that share a short completion before it counts as repeated.
REPEATED = 3
# A completion with less than this share of the typical length is short.
SHORT_SHARE = 0.2
# Where typical completions are shorter, in characters, or fewer of them are distinct, they are labels.
LABEL_CHARS = 30
LABEL_SHARE = 0.3


def placeholder_reasons(completions: Sequence[str]) -> list[str]:
    """Return why each completion is a placeholder; empty for those that are none, and for empty ones."""
    plain = [normalized(text) for text in completions]
    counts = Counter(plain)
    filled = [len(text) for text in completions if text.strip()]
    typical = statistics.median(filled) if filled else 0.0
    labels = typical < LABEL_CHARS or len(counts) < LABEL_SHARE * len(plain)
    return [
        _reason(text, name, counts[name], typical, labels) for text, name in zip(completions, plain, strict=True)
    ]


def _reason(text: str, name: str, count: int, typical: float, labels: bool) -> str:
    if not text.strip():
        return ""
    if not name:
        return "only punctuation"
    if name in _ALWAYS or _LOREM.match(name):
        return "stock phrase"
    if labels:
        return ""
    if name in _AMONG_LONG:
        return "stock phrase"
    if count >= REPEATED and len(text) < SHORT_SHARE * typical:
        return f"short and repeated {count} times"
    return ""


def normalized(text: str) -> str:
    """Return a text in lower case with single spaces, without punctuation at its ends."""
    return _EDGES.sub("", " ".join(text.casefold().split()))
