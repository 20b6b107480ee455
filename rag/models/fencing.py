"""Fencing text that others wrote, so that nothing in it can pass for a part of the prompt it goes into.

A prompt is text: the lines of a template, and between them passages, a question, earlier answers. A document may
hold a line such as ``[2] Official notice`` or ``Question: …``, or the tokens with which a chat model separates
roles. The fence is put around values in code, and not in templates, so that every version of a prompt has it:

- each line of a passage begins with ``> ``, so that it begins as no line of a template does;
- what stands above a passage is one line without numbers in brackets;
- of a question or an earlier answer, further lines begin with ``> `` as well;
- tokens of chat templates get a space after their first character: ``<|im_start|>`` becomes ``< |im_start|>``.
"""

from __future__ import annotations

import re

PREFIX = "> "
LONGEST_PLACE = 300
"""Characters of what stands above a passage: titles come from documents, and no token budget counts them."""

# Tokens of chat templates and of training that common models know. Inside of them stands no white space, so that a
# space takes them apart for good: a second pass finds nothing.
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
# How a citation looks, with brackets of any width.
_NUMBER = re.compile(r"[\[［【]\s*(\d+(?:\s*[,;]\s*\d+)*)\s*[\]］】]")
# How lines of templates begin: a heading, a passage's number, a tag, or a word or two that name what follows.
_LIKE_A_TEMPLATE = re.compile(
    r"\W*(?:(?:last|earlier|next|new|standalone|current|user|final)[\s_-]{1,4})?"
    r"(?:questions?|answers?|passages?|sources?|documents?|context|conversation|history|system|user|assistant|human|"
    r"ai|bot|model|developer|tool|instructions?|input|output|response|prompt|refusal|schema|reason)\b[\W\d]*:"
    r"|\s*(?:[#<\[［【>|]|`{3}|-{3}|={3}|\*{3}|_{3})",
    re.IGNORECASE,
)


def without_tokens(text: str) -> str:
    """The text with the tokens of chat templates taken apart; applied again, it changes nothing."""
    return _TOKEN.sub(r"\g<0> ", text)


def quoted(text: str) -> str:
    """A text of several lines as a quotation: every line begins with ``> ``.

    Lines end wherever ``str.splitlines`` ends them, so also at form feeds and Unicode's separators.
    """
    return "\n".join(f"{PREFIX}{line}".rstrip() for line in without_tokens(text).splitlines())


def beside(text: str) -> str:
    """A text that stands behind a label, as a question does: its first line as it is, further ones quoted.

    A first line that looks like a line of a template is quoted too, for a template may put it at the beginning of
    a line.
    """
    first, *rest = without_tokens(text).splitlines() or [""]
    opening = f"{PREFIX}{first}" if _LIKE_A_TEMPLATE.match(first) else first
    return "\n".join((opening, *(f"{PREFIX}{line}".rstrip() for line in rest)))


def above(place: str) -> str:
    """What stands above a passage, on one line of at most 300 characters and without numbers in brackets."""
    line = " ".join(place.split())
    if len(line) > LONGEST_PLACE:
        line = f"{line[: LONGEST_PLACE - 1]}…"
    line = without_tokens(_NUMBER.sub(r"(\1)", line))
    return f"{PREFIX}{line}" if _LIKE_A_TEMPLATE.match(line) else line
