"""Fencing of untrusted text, so that it cannot imitate parts of the prompt it is inserted into.

A prompt consists of the lines of a template and, between them, passages, a question and earlier answers. A
document may contain a line such as ``[2] Official notice`` or ``Question: …``, or the tokens that separate roles
in a chat model. The fence is applied in code and not in templates, so that it protects every version of a prompt:

- every line of a passage starts with ``> ``, unlike any line of a template;
- title and headings above a passage are one line without numbers in brackets;
- further lines of a question or an earlier answer start with ``> `` as well;
- tokens of chat templates get a space after their first character: ``<|im_start|>`` becomes ``< |im_start|>``.
"""

from __future__ import annotations

import re

PREFIX = "> "
LONGEST_PLACE = 300
"""Maximum characters of title and headings above a passage, which no token budget includes."""

# Special tokens of common models. They contain no white space, so that an inserted space breaks them for good.
_NAMED = (
    r"s|bos|eos|pad|unk|mask|cls|sep|bot|eot|eop|sop|eod|eoh|eoa|eos_token|bos_token|pad_token|"
    r"start_of_turn|end_of_turn|start_of_image|end_of_image|begin_of_text|end_of_text|endoftext|"
    r"start_of_role|end_of_role|beginning_of_sentence|end_of_sentence|beginning_of_prompt|"
    r"think|thinking|thought|tool_call|tool_calls|tool_response|tool_responses|tools|"
    r"extra_id_\d{1,4}|unused_?\d{1,4}|reserved_?\d{1,4}"
)
_BRACKETED = (
    r"inst|sys|system_prompt|available_tools|tool_calls|tool_results|tool_content|think|img|img_break|img_end|"
    r"prefix|middle|suffix|gmask|smask|sep|cls|mask|pad|unk|bos|eos"
)
_TOKEN = re.compile(
    rf"[<＜](?=[|｜][^\s<>＜＞]{{1,80}}[|｜][>＞]|/?(?:{_NAMED})[>＞]|<?/?sys>>)"
    rf"|\[(?=/?(?:{_BRACKETED})\])"
    r"|◁(?=/?\w{1,40}▷)",
    re.IGNORECASE,
)
# Citations, with brackets of any width.
_NUMBER = re.compile(r"[\[［【]\s*(\d+(?:\s*[,;]\s*\d+)*)\s*[\]］】]")
# The beginning of one, which a text after it, or a cut, could complete.
_OPEN_NUMBER = re.compile(r"[\[［【](?=\s*\d)")
# Typical starts of template lines: a heading, a passage's number, a tag, or a label of one or two words.
_LIKE_A_TEMPLATE = re.compile(
    r"\W*(?:(?:last|earlier|next|new|standalone|current|user|final)[\s_-]{1,4})?"
    r"(?:questions?|answers?|passages?|sources?|documents?|context|conversation|history|system|user|assistant|human|"
    r"ai|bot|model|developer|tool|instructions?|input|output|response|prompt|refusal|schema|reason)\b[\W\d]*:"
    r"|\s*(?:[#<\[［【>|]|`{3}|-{3}|={3}|\*{3}|_{3})",
    re.IGNORECASE,
)


def without_tokens(text: str) -> str:
    """Break the special tokens of chat templates in a text; the function is idempotent."""
    return _TOKEN.sub(r"\g<0> ", text)


def quoted(text: str) -> str:
    """Return a text as a quotation, with ``> `` before every line.

    Lines are split as by ``str.splitlines``, which includes form feeds and Unicode separators.
    """
    return "\n".join(f"{PREFIX}{line}".rstrip() for line in without_tokens(text).splitlines())


def beside(text: str) -> str:
    """Fence a text that follows a label, such as a question: quote all lines but the first.

    A first line that looks like a line of a template is quoted too, because a template may place it at the start
    of a line.
    """
    first, *rest = without_tokens(text).splitlines() or [""]
    opening = f"{PREFIX}{first}" if _LIKE_A_TEMPLATE.match(first) else first
    return "\n".join((opening, *(f"{PREFIX}{line}".rstrip() for line in rest)))


def above(place: str) -> str:
    """Fence title and headings above a passage: one line of at most 300 characters without bracketed numbers."""
    line = " ".join(place.split())
    if len(line) > LONGEST_PLACE:
        line = f"{line[: LONGEST_PLACE - 1]}…"
    line = without_tokens(_OPEN_NUMBER.sub("(", _NUMBER.sub(r"(\1)", line)))
    return f"{PREFIX}{line}" if _LIKE_A_TEMPLATE.match(line) else line
