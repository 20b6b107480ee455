"""A chat model behind an OpenAI-compatible server, with its failures told in our words.

An answer of a server has an end, whatever the server does: in time, in pieces, in characters and in bytes.

It imports LangChain's OpenAI client; import it where a model is opened, not above.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import model_validator

from rag.errors import ModelError, ModelProtocolError, ModelTimeout, ModelUnavailable, first_line
from rag.models.bounded_stream import bound
from rag.redaction import MASK, redact, without_password
from rag.tracing.cost import token_count

# No answer is as long as a book. A server that ignores `max_tokens` may never come to an end.
LONGEST_REPLY = 1_000_000
# Pieces of one answer, those without text among them, such as thoughts. Most servers send a token in each, and no
# answer is asked for that has as many.
MOST_PIECES = 500_000
_LONGEST_REASON = 300

_BROKEN_OFF = "The model server broke off in the middle of its answer."
_LOOK = "Ask again, and look into the server's log."
# What to do about a status; any other one is a matter for the server's log.
_FIXES = {
    400: "Check the model's name and the settings under decoding.",
    401: "Set openai.api_key, or OPENAI_API_KEY, to a key that this server takes.",
    403: "Set openai.api_key, or OPENAI_API_KEY, to a key that this server takes for this model.",
    404: "Check the model's name, and openai.base_url: most end in /v1.",
    429: "Wait a moment and ask again: the server's limit is reached.",
}


class RemoteModel(ChatOpenAI):
    """Streams a reply, and raises nothing but ``ModelError``.

    ``ModelUnavailable``: there is no connection, or the server refuses. ``ModelTimeout``: it has not begun to
    answer within the time-out, retries included, or paused for longer, or has not finished within the total
    time-out. ``ModelProtocolError``: what came back is no chat completion, only a part of one, or has no end.

    Attributes:
        total_timeout_s: Seconds for a whole answer, thoughts included; None for no limit.
    """

    total_timeout_s: float | None = None

    @model_validator(mode="after")
    def _bytes_have_an_end(self) -> RemoteModel:
        # The client is shared by all models of one server, and is bound once.
        bound(self.root_async_client._client)
        return self

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        length = pieces = 0
        ending = ""
        begun = time.monotonic()
        total = self.total_timeout_s
        try:
            async with aclosing(super()._astream(messages, stop, run_manager, **kwargs)) as chunks:  # type: ignore[type-var]
                limit = self.request_timeout if isinstance(self.request_timeout, float) else None
                while True:
                    # The client counts its time-out anew for every retry; a person waits only once. A pause
                    # is limited here too: the client's own limit may swallow a cancellation on Python 3.11.
                    # Neither limits the whole: a piece that comes in time begins both anew.
                    left = None if total is None else total - (time.monotonic() - begun)
                    try:
                        async with asyncio.timeout(_shorter(limit, left)):
                            chunk = await anext(chunks, None)
                    except TimeoutError:
                        if left is None or (limit is not None and limit < left):
                            raise
                        raise self._too_long(length, pieces) from None
                    if chunk is None:
                        break
                    pieces += 1
                    length += len(chunk.text)
                    ending = (chunk.generation_info or {}).get("finish_reason") or ending
                    if length > LONGEST_REPLY or pieces > MOST_PIECES:
                        raise ModelProtocolError(
                            "The model server does not stop writing.",
                            fix="Check that it honours max_tokens, and that the model knows its own end.",
                        )
                    if left is not None and left <= 0:
                        # Pieces that come at full speed leave a time-out no moment to fire.
                        raise self._too_long(length, pieces)
                    # What says nothing would only be kept, a hundred thousand times, by all that listen.
                    if chunk.text or chunk.generation_info or getattr(chunk.message, "usage_metadata", None):
                        yield chunk
            self._check_end(length, ending)
        except ModelError:
            raise
        except Exception as error:
            raise self._translated(error, begun=length > 0) from error

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        # Counts that are none would be read as 1, or break the answer.
        counted = chunk | {"usage": _counts(chunk.get("usage"))}
        return super()._convert_chunk_to_generation_chunk(counted, default_chunk_class, base_generation_info)

    def _too_long(self, length: int, pieces: int) -> ModelTimeout:
        """The error of an answer that has used up its time; ``length`` is of what it had written."""
        seconds = f"{self.total_timeout_s:g} s"
        fix = "Raise openai.total_timeout_s, or lower decoding.max_tokens."
        if length:
            return ModelTimeout(f"The model server{self._where} did not finish its answer in {seconds}.", fix=fix)
        if pieces:
            return ModelTimeout(
                f"The model server{self._where} thought for {seconds} without writing an answer.",
                fix="Raise openai.total_timeout_s, or choose a model that thinks less.",
            )
        return ModelTimeout(f"The model server{self._where} did not answer in time.", fix=fix)

    def _check_end(self, length: int, ending: str) -> None:
        if length and not ending:
            raise ModelProtocolError(_BROKEN_OFF, fix=_LOOK)
        if not length and not ending:
            raise self._translated(ValueError("the stream is empty"), begun=False)
        if not length and ending == "length":
            raise ModelProtocolError(
                "The model used up its tokens before it wrote an answer.",
                fix="Raise decoding.max_tokens, or choose a model that thinks less.",
            )

    def _translated(self, error: Exception, *, begun: bool) -> ModelError:
        names = {
            each.__name__
            for each in type(error).__mro__
            if each.__module__.partition(".")[0] in ("openai", "httpx", "builtins")
        }
        if names & {"APITimeoutError", "TimeoutException", "TimeoutError"}:
            return ModelTimeout(
                f"The model server{self._where} did not answer in time.",
                fix="Ask again, or raise openai.timeout_s.",
            )
        if names & {"APIConnectionError", "TransportError"}:
            if begun:
                return ModelProtocolError(_BROKEN_OFF, fix=_LOOK)
            return ModelUnavailable(
                f"The model server{self._where} cannot be reached: {self._reason(_root(error))}.",
                fix="Start it, or correct openai.base_url; model = 'embedded' needs no server.",
            )
        if "APIStatusError" in names:
            status = int(getattr(error, "status_code", 0))
            return ModelUnavailable(
                f"The model server{self._where} refuses: {self._reason(error)}.", fix=_FIXES.get(status, _LOOK)
            )
        if "APIError" in names:
            return ModelUnavailable(f"The model server{self._where} failed: {self._reason(error)}.", fix=_LOOK)
        return ModelProtocolError(
            f"The model server{self._where} sent something that is no chat completion: {self._reason(error)}.",
            fix="Check that openai.base_url points at an OpenAI-compatible server (most end in /v1).",
        )

    @property
    def _where(self) -> str:
        return f" at {without_password(self.openai_api_base)}" if self.openai_api_base else ""

    def _reason(self, error: BaseException) -> str:
        """The first line of what an error says, without the key: some servers repeat it."""
        reason = first_line(error)
        key = self.openai_api_key
        if key is not None and not callable(key) and len(key.get_secret_value()) >= 4:
            reason = reason.replace(key.get_secret_value(), MASK)
        return redact(reason)[:_LONGEST_REASON].rstrip(".: ")


def _shorter(limit: float | None, left: float | None) -> float | None:
    return min((each for each in (limit, left) if each is not None), default=None)


def _counts(usage: object) -> dict[str, int] | None:
    """The two counts of a reply as its server reports them; None unless both can be believed."""
    if not isinstance(usage, Mapping):
        return None
    read, written = token_count(usage.get("prompt_tokens")), token_count(usage.get("completion_tokens"))
    return None if read is None or written is None else {"prompt_tokens": read, "completion_tokens": written}


def _root(error: BaseException) -> BaseException:
    """What a failure began with: the client says no more of it than "Connection error"."""
    return _root(error.__cause__) if error.__cause__ else error
