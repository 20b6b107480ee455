"""From messages to the token ids that a model reads.

A model's chat template is used where it has one. A model without one is given this plain form, and its answer ends
where it begins to speak for the user:

    System: You answer from passages.

    User: What is a release?

    Assistant:

What a message says is never read as a special token: those of common models are taken apart by ``fencing``
where prompts are filled, and here all that this tokenizer knows, so that only the template writes any.
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
    """What the model reads.

    Attributes:
        ids: Token ids.
        stops: Texts before which an answer to it ends.
    """

    ids: tuple[int, ...]
    stops: tuple[str, ...] = ()


def render(tokenizer: Any, messages: Sequence[BaseMessage], template: str | None = None) -> Prompt:
    """Turn messages into token ids, ready for an answer.

    Args:
        tokenizer: Of transformers.
        messages: Their text parts are used.
        template: A chat template in the place of the tokenizer's own.

    Raises:
        ModelProtocolError: The template does not take these messages.
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
    # Some templates know no system role (Gemma's): its words go before those of the user.
    try:
        return Prompt(_applied(tokenizer, merged, template))
    except TemplateError as error:
        raise _refused(error) from error


def without_special(tokenizer: Any, text: str) -> str:
    """The text with each special token of a tokenizer taken apart, as ``fencing.without_tokens`` does it.

    Raises:
        ModelProtocolError: One is left in it all the same.
    """
    text = without_tokens(text)
    names = _special_names(tokenizer)
    # Beside the names as they are, a tokenizer may know them in other characters, such as those of double width,
    # or in another case.
    for flags, normalized in ((0, False), (0, True), (re.IGNORECASE, True)):
        if normalized:
            text = unicodedata.normalize("NFKC", text)
        # What is taken apart may uncover another, but each name once.
        for _ in range(len(names) + 1):
            found = _special_in(tokenizer, text, names)
            if not found:
                return text
            pattern = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in found)
            apart = re.sub(pattern, r"\g<0> ", text, flags=flags)
            if apart == text:
                break
            text = apart
    raise ModelProtocolError(
        f"A text holds {', '.join(found)}, which the model takes for a token of its own.",
        fix="Remove it from the document or the question.",
    )


def _special_names(tokenizer: Any) -> dict[int, str]:
    """The tokens that a tokenizer takes out of a text before it reads it, by their ids.

    Left out are runs of white space and single characters, which are text, and the unknown token, which stands for
    any character that the vocabulary lacks.
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
    """The names of the special tokens that are read in a text, longest first."""
    ids = names.keys() & set(tokenizer(text, add_special_tokens=False)["input_ids"])
    return sorted((names[number] for number in ids), key=len, reverse=True)


def _applied(tokenizer: Any, turns: list[dict[str, str]], template: str | None) -> tuple[int, ...]:
    encoded = tokenizer.apply_chat_template(
        turns,
        chat_template=template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        # Known to templates of models that may think first: the answer stands in the passages, and thoughts
        # would use up the tokens.
        enable_thinking=False,
    )
    return tuple(encoded["input_ids"])


def _plain(turns: Sequence[dict[str, str]]) -> str:
    told = "".join(f"{turn['role'].capitalize()}: {turn['content'].strip()}\n\n" for turn in turns)
    return f"{told}Assistant:"


def _without_system(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    others = [turn for turn in turns if turn["role"] != "system"]
    if not system or not others or others[0]["role"] != "user":
        return turns
    first = {"role": "user", "content": f"{system}\n\n{others[0]['content']}"}
    return [first, *others[1:]]


def _refused(error: Exception) -> ModelProtocolError:
    return ModelProtocolError(
        f"The model's chat template does not take these messages: {error}.",
        fix="Choose a model for chats, or correct its chat_template.jinja.",
    )
