"""Conversations and replies as token ids: the prompt exactly as it is served, then the reply and its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from finetune.features import Feature
from finetune.prepared.text_rendering import Rendering
from finetune.rows import ChatRow
from prompts import Message
from rag.errors import ModelProtocolError, TuningError
from rag.models.local.chat_template import render, without_special
from rag.models.local.end_tokens import stored_end_tokens
from rag.models.local.local_files import LocalFiles

_PLACE = "(the text of the message)"
_MESSAGES = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


class ChatEncoder:
    """Turns rows into features whose ``second`` is the first token of the reply.

    Args:
        files: The files of the model.
        tokenizer: Its tokenizer.
        template: A chat template to use instead of the tokenizer's own.
        mask: Whether only the reply is learnt; otherwise ``second`` is the first token that has one before it, and
            ``target`` has the first token of the reply.

    Attributes:
        ends: The tokens that end a reply.
    """

    def __init__(
        self, files: LocalFiles, tokenizer: Any, template: str | None = None, *, mask: bool = True
    ) -> None:
        self._mask = mask
        self._tokenizer = tokenizer
        self._template = template
        self._plain = template is None and not tokenizer.chat_template
        self.ends = stored_end_tokens(files.folder, tokenizer)
        self._end = self._end_of_reply(self.ends)

    def feature(self, row: ChatRow) -> Feature:
        """Return the tokens of a row.

        Raises:
            TuningError: The model's template does not accept the conversation.
        """
        # The plain form goes on after "Assistant:".
        completion = f" {row.completion.strip()}" if self._plain else row.completion
        try:
            prompt = render(self._tokenizer, messages_of(row.turns), self._template).ids
            reply = self._ids(without_special(self._tokenizer, completion))
        except ModelProtocolError as error:
            raise TuningError(f"{row.where}: {error.message}", fix=error.fix) from error
        end = self._end if row.ends else ()
        ids = (*prompt, *reply, *end)
        return Feature(ids, len(prompt), ()) if self._mask else Feature(ids, 1, (len(prompt),))

    def frame(self, rendering: Rendering | None) -> tuple[str, str]:
        """Return what stands before and after the text of a conversation of one message, as the model reads it."""
        turns = (Rendering() if rendering is None else rendering).turns((Message(role="user", content=_PLACE),))
        text = self.text_of(render(self._tokenizer, messages_of(turns), self._template).ids)
        before, _, after = text.partition(_PLACE)
        return before, after

    def text_of(self, ids: Sequence[int], *, special: bool = True) -> str:
        """Return tokens as text, with or without the special ones."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _end_of_reply(self, ends: frozenset[int]) -> list[int]:
        """Return the tokens that end a reply: the end token with which the template ends a turn."""
        if not ends:
            # Serving then stops at the next turn of the user.
            return self._ids("\n\nUser:")
        own = self._tokenizer.eos_token_id
        fallback = own if own in ends else min(ends)
        if self._plain:
            return [fallback]
        turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
        encoded = self._tokenizer.apply_chat_template(
            turns, chat_template=self._template, tokenize=True, return_dict=True
        )
        return [next((token for token in reversed(encoded["input_ids"]) if token in ends), fallback)]


def messages_of(turns: Sequence[Message]) -> list[BaseMessage]:
    """Return a conversation in the form in which a chat model receives it."""
    return [_MESSAGES[turn.role](turn.content) for turn in turns]
