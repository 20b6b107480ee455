"""Rendering of messages to token ids.

The model's chat template is used if it has one. Otherwise messages are rendered in this plain form, and the answer
ends where the model starts a turn of the user:

    System: You answer from passages.

    User: What is a release?

    Assistant:

Text of a message is never read as a special token: ``fencing`` breaks those of common models when prompts are
filled, and this module breaks all that the tokenizer knows, so that only the template contains any.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage

from rag.errors import ModelProtocolError
from rag.models.fencing import without_tokens

PLAIN_STOPS = ("\nUser:",)
_ROLES = {"system": "system", "human": "user", "ai": "assistant"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt.

    Attributes:
        ids: Token ids.
        stops: Texts that end the answer.
    """

    ids: tuple[int, ...]
    stops: tuple[str, ...] = ()


def render(tokenizer: Any, messages: Sequence[BaseMessage], template: str | None = None) -> Prompt:
    """Render messages to token ids, up to the start of the answer.

    Args:
        tokenizer: A tokenizer of transformers.
        messages: The messages, of which only text is used.
        template: A chat template to use instead of the tokenizer's own.

    Raises:
        ModelProtocolError: The template does not accept these messages.
    """
    turns = [
        {"role": _ROLES.get(message.type, "user"), "content": without_special(tokenizer, str(message.text))}
        for message in messages
    ]
    if template is None and not tokenizer.chat_template:
        return Prompt(tuple(tokenizer(_plain(turns))["input_ids"]), PLAIN_STOPS)
    from jinja2 import TemplateError

    try:
        return Prompt(_applied(tokenizer, turns, template))
    except TemplateError as error:
        merged = _without_system(turns)
        if merged == turns:
            raise _refused(error) from error
    # Some templates have no system role (Gemma's): put its text in front of the user's.
    try:
        return Prompt(_applied(tokenizer, merged, template))
    except TemplateError as error:
        raise _refused(error) from error


def without_special(tokenizer: Any, text: str) -> str:
    """Break all special tokens of a tokenizer in a text, as ``fencing.without_tokens`` does.

    Raises:
        ModelProtocolError: A special token cannot be broken.
    """
    text = without_tokens(text)
    names = _special_names(tokenizer)
    # A tokenizer may also match normalized characters, such as full-width ones, or ignore case.
    for flags, normalized in ((0, False), (0, True), (re.IGNORECASE, True)):
        if normalized:
            text = unicodedata.normalize("NFKC", text)
        # Breaking a token may reveal another, but each name only once.
        for _ in range(len(names) + 1):
            found = _special_in(tokenizer, text, names)
            if not found:
                return text
            pattern = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in found)
            broken = re.sub(pattern, r"\g<0> ", text, flags=flags)
            if broken == text:
                break
            text = broken
    raise ModelProtocolError(
        f"A text contains {', '.join(found)}, which the model reads as a special token.",
        fix="Remove it from the document or the question.",
    )


def _special_names(tokenizer: Any) -> dict[int, str]:
    """Return the special tokens of a tokenizer by id.

    Runs of white space and single characters are left out, since they are text, as is the unknown token, which
    stands for any character that the vocabulary lacks.
    """
    added = {number: str(token.content) for number, token in tokenizer.added_tokens_decoder.items()}
    special = dict(zip(tokenizer.all_special_ids, map(str, tokenizer.all_special_tokens), strict=True))
    return {
        number: name
        for number, name in (special | added).items()
        # U+2581 stands for a space in vocabularies of SentencePiece.
        if number != tokenizer.unk_token_id and len(name) > 1 and name.replace("\u2581", " ").strip()
    }


def _special_in(tokenizer: Any, text: str, names: Mapping[int, str]) -> list[str]:
    """Return the special tokens that the tokenizer finds in a text, longest first."""
    ids = names.keys() & set(tokenizer(text, add_special_tokens=False)["input_ids"])
    return sorted((names[number] for number in ids), key=len, reverse=True)


def _applied(tokenizer: Any, turns: list[dict[str, str]], template: str | None) -> tuple[int, ...]:
    encoded = tokenizer.apply_chat_template(
        turns,
        chat_template=template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        # For reasoning models: the answer is in the passages, and thinking would use up the tokens.
        enable_thinking=False,
    )
    return tuple(encoded["input_ids"])


def _plain(turns: Sequence[dict[str, str]]) -> str:
    text = "".join(f"{turn['role'].capitalize()}: {turn['content'].strip()}\n\n" for turn in turns)
    return f"{text}Assistant:"


def _without_system(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    others = [turn for turn in turns if turn["role"] != "system"]
    if not system or not others or others[0]["role"] != "user":
        return turns
    first = {"role": "user", "content": f"{system}\n\n{others[0]['content']}"}
    return [first, *others[1:]]


def _refused(error: Exception) -> ModelProtocolError:
    return ModelProtocolError(
        f"The model's chat template does not accept these messages: {error}.",
        fix="Choose a chat model, or fix its chat_template.jinja.",
    )
