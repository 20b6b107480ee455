"""Text that looks like a variable but is sent as it stands, as other programs write theirs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from prompts.template import PLACE, PromptTemplate

# {{userName}}, {{ text | upper }}, {{#if text}}, {{$json.text}}, {% if text %}; braces around JSON or LaTeX begin
# otherwise.
_DOUBLE = re.compile(r"\{\{\s*[#/^&!>~$@=]?\s*\w[^{}\n]{0,60}\}\}|\{%[^{}\n]{1,60}%\}")
# {{{text}}}, which other programs fill without escapes; here the outer braces stay. Not \textbf{{{text}}}.
_TRIPLE = re.compile(r"(?<![\w{}])\{\s*(?P<variable>\{\{\s*\w+\s*\}\})\s*\}(?!\})")
_SINGLE = re.compile(r"(?<![\w{}\\])\{(?P<name>[A-Za-z_]\w*)\}(?!\})")
_SHOWN = 5


def lookalikes(prompt: PromptTemplate) -> tuple[str, ...]:
    """Return the distinct texts of a prompt that look like variables without being ones, in order.

    A name in single braces counts if the prompt has a variable of that name, or none at all.
    """
    texts = (*(one.content for one in (*prompt.messages, *prompt.example)), *prompt.fragments.values())
    names = frozenset(prompt.variables)
    return tuple(dict.fromkeys(found for text in texts for found in _found(text, names)))


def _found(text: str, names: Collection[str]) -> Iterator[str]:
    yield from (found[0] for found in _TRIPLE.finditer(text) if PLACE.fullmatch(found["variable"]))
    rest = PLACE.sub("\0", text)
    yield from (found[0] for found in _DOUBLE.finditer(rest))
    yield from (found[0] for found in _SINGLE.finditer(rest) if found["name"] in names or not names)


def warning_of(found: Sequence[str]) -> str:
    """Describe lookalikes in one sentence; empty if there are none."""
    if not found:
        return ""
    shown = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    verb = "look like variables but are" if len(found) > 1 else "looks like a variable but is"
    return f"{shown} {verb} sent as written: a variable is {{{{name}}}}, of lower-case letters, digits and _."
