"""From messages to the token ids that a model reads.

A model's chat template is used where it has one. A model without one is given this plain form, and its answer ends
where it begins to speak for the user:

    System: You answer from passages.

    User: What is a release?

    Assistant:
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage

from rag.errors import ModelProtocolError

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
    turns = [{"role": _ROLES.get(message.type, "user"), "content": str(message.text)} for message in messages]
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
        fix="Choose a model for chats, or mend its chat_template.jinja.",
    )
