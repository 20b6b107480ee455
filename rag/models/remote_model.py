"""Chat model on an OpenAI-compatible server, with its errors translated.

Answers are limited in time, pieces, characters and bytes, whatever the server does.

This module imports LangChain's OpenAI client; import it where a model is opened, not at the top of a module.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr, model_validator

from rag.errors import (
    ModelError,
    ModelLimited,
    ModelProtocolError,
    ModelTimeout,
    ModelUnavailable,
    NoAnswer,
    first_line,
)
from rag.models.bounded_stream import bound
from rag.models.reply_endings import REFUSAL, REPHRASE, THOUGHTS
from rag.models.request_retries import LONGEST_PAUSE_S, PACED, Refusal, without_refused
from rag.redaction import MASK, redact, without_password
from rag.tracing.cost import token_count
from rag.tracing.figures import format_seconds

# Maximum characters of a reply, because a server that ignores `max_tokens` may never stop.
LONGEST_REPLY = 1_000_000
# Maximum pieces of a reply, including those without text, such as thoughts; most servers send a token per piece.
MOST_PIECES = 500_000
_LONGEST_REASON = 300
# Names of input tokens that the server had read before.
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens")

_BROKEN_OFF = "The model server broke off in the middle of its answer."
_LOOK = "Ask again, and look into the server's log."
# Remedies by HTTP status; for any other status, see the server's log.
_FIXES = {
    400: "Check the model's name and the settings under decoding.",
    401: "Set openai.api_key, or OPENAI_API_KEY, to a key that this server takes.",
    403: "Set openai.api_key, or OPENAI_API_KEY, to a key that this server takes for this model.",
    404: "Check the model's name, and openai.base_url: most end in /v1.",
    429: "Raise the limit of your account, or choose another model.",
}


class RemoteModel(ChatOpenAI):
    """Streams replies, and raises only ``ModelError``.

    ``ModelUnavailable``: there is no connection, or the server refuses. ``ModelTimeout``: the server has not
    started to answer within the time-out, including retries, paused for longer, or has not finished within the
    total time-out. ``ModelProtocolError``: the response is not a complete chat completion, or does not end.

    A limit of the server is a ``ModelLimited``. A parameter that the user did not set is left out after the model
    has refused it.

    Attributes:
        total_timeout_s: Time limit of a whole answer in seconds, thinking included; None for no limit.
        retries: How often a request that may pass is repeated; the client itself repeats none.
        optional: Names of parameters that are left out, or renamed, after the model has refused them.
    """

    total_timeout_s: float | None = None
    retries: int = 0
    optional: frozenset[str] = frozenset()
    _refused: set[str] = PrivateAttr(default_factory=set)

    @model_validator(mode="before")
    @classmethod
    def validate_temperature(cls, values: dict[str, Any]) -> Any:
        """Leave the temperature as it is: the client's own check replaces or drops it in silence."""
        return values

    @model_validator(mode="after")
    def _bytes_have_an_end(self) -> RemoteModel:
        # Models of one server share a client, which is limited once.
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
        apart = _Apart()
        begun = time.monotonic()
        total = self.total_timeout_s
        try:
            async with aclosing(self._attempts(messages, stop, run_manager, **kwargs)) as chunks:
                limit = self.request_timeout if isinstance(self.request_timeout, float) else None
                while True:
                    # The client restarts its time-out for every retry, so the wait for the first piece is limited
                    # here. So are pauses, because the client's own limit may swallow a cancellation on Python
                    # 3.11. Both restart with every piece, so the total is limited separately.
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
                        # Pieces in rapid succession never let the time-out fire.
                        raise self._too_long(length, pieces)
                    apart.take(chunk.message)
                    # Empty pieces would only be stored by all callbacks.
                    if chunk.text or chunk.generation_info or _calls(chunk.message):
                        apart.give(chunk.message)
                        yield chunk
            if last := apart.last():
                yield ChatGenerationChunk(message=last)
            self._check_end(length, ending)
        except ModelError:
            raise
        except Exception as error:
            raise self._translated(error, begun=length > 0) from error

    async def _attempts(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: AsyncCallbackManagerForLLMRun | None,
        **kwargs: Any,
    ) -> AsyncGenerator[ChatGenerationChunk]:
        """Stream a reply. Until it begins, a request that may pass is repeated."""
        paced = bool(run_manager and run_manager.metadata.get(PACED))
        tried = 0
        while True:
            begun = False
            try:
                async with aclosing(super()._astream(messages, stop, run_manager, **kwargs)) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except Exception as error:
                refusal = Refusal.of(error)
                if begun:
                    raise
                if self._leaves_out(refusal):
                    continue
                pause = refusal.pause(tried)
                waits = refusal.may_pass and tried < self.retries and pause <= LONGEST_PAUSE_S
                if not waits or (refusal.is_limit and paced):
                    raise
            tried += 1
            await asyncio.sleep(pause)

    def _leaves_out(self, refusal: Refusal) -> bool:
        """Leave out a parameter from now on that the model refuses; whether there is one."""
        refused = {name for name in self.optional - self._refused if refusal.is_about(name)}
        self._refused |= refused
        return bool(refused)

    def _get_request_payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return without_refused(super()._get_request_payload(*args, **kwargs), self._refused)

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        # The client would read invalid counts as 1, or fail.
        counted = chunk | {"usage": _counts(chunk.get("usage"))}
        piece = super()._convert_chunk_to_generation_chunk(counted, default_chunk_class, base_generation_info)
        choices = chunk.get("choices")
        if piece is not None and choices:
            piece.message.additional_kwargs |= _sent_apart(choices[0].get("delta") or {})
        return piece

    def _too_long(self, length: int, pieces: int) -> ModelTimeout:
        """Return the error of an answer that exceeded its time, by the characters and pieces so far."""
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

    def _translated(self, error: Exception, *, begun: bool) -> ModelError:
        names = {
            kind.__name__
            for kind in type(error).__mro__
            if kind.__module__.partition(".")[0] in ("openai", "httpx", "builtins")
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
                fix="Start it, or correct openai.base_url; model = 'extractive' needs no server.",
            )
        if "APIStatusError" in names:
            return self._refusal(Refusal.of(error))
        if "APIError" in names:
            return ModelUnavailable(f"The model server{self._where} failed: {self._reason(error)}.", fix=_LOOK)
        return ModelProtocolError(
            f"The model server{self._where} sent something that is no chat completion: {self._reason(error)}.",
            fix="Check that openai.base_url points at an OpenAI-compatible server (most end in /v1).",
        )

    def _refusal(self, refusal: Refusal) -> ModelError:
        message = f"The model server{self._where} refuses: {self._reason(refusal.message)}."
        if refusal.filtered:
            return NoAnswer(message, fix=REPHRASE, filtered=True)
        if refusal.is_limit:
            wait = "a moment" if refusal.after_s is None else format_seconds(math.ceil(refusal.after_s))
            fix = f"Wait {wait} and ask again: the server's limit is reached."
            return ModelLimited(message, fix=fix, after_s=refusal.after_s)
        if refusal.is_about("stream_options"):
            return ModelUnavailable(message, fix="Set openai.stream_usage = false.")
        return ModelUnavailable(message, fix=_FIXES.get(refusal.status, _LOOK))

    @property
    def _where(self) -> str:
        return f" at {without_password(self.openai_api_base)}" if self.openai_api_base else ""

    def _reason(self, error: BaseException | str) -> str:
        """Return the first line of an error message, without the key, which some servers repeat."""
        reason = first_line(error if isinstance(error, BaseException) else ValueError(error))
        key = self.openai_api_key
        if key is not None and not callable(key) and len(key.get_secret_value()) >= 4:
            reason = reason.replace(key.get_secret_value(), MASK)
        return redact(reason)[:_LONGEST_REASON].rstrip(".: ")


class _Apart:
    """Collects what comes apart from the answer, since joining it piece by piece would take quadratic time.

    Of the token counts the last one counts: some servers send with every piece those of the reply so far.
    """

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {}
        self._usage: UsageMetadata | None = None

    def take(self, message: BaseMessage) -> None:
        """Take the thoughts, the refusal and the token counts out of a piece."""
        if isinstance(message, AIMessageChunk):
            self._usage, message.usage_metadata = message.usage_metadata or self._usage, None
        for name in (THOUGHTS, REFUSAL):
            if text := message.additional_kwargs.pop(name, None):
                self._pieces.setdefault(name, []).append(text)

    def give(self, message: BaseMessage) -> None:
        """Put the texts so far into a piece."""
        message.additional_kwargs |= {name: "".join(texts) for name, texts in self._pieces.items()}
        self._pieces.clear()

    def last(self) -> AIMessageChunk | None:
        """Return a last piece with the rest; None if there is nothing left."""
        if not self._pieces and self._usage is None:
            return None
        message = AIMessageChunk(content="", usage_metadata=self._usage)
        self.give(message)
        return message


def _calls(message: BaseMessage) -> bool:
    """Whether a piece calls a tool, or a function as earlier versions of the API do."""
    called = isinstance(message, AIMessageChunk) and message.tool_call_chunks
    return bool(called or message.additional_kwargs.get("function_call"))


def _sent_apart(delta: Mapping[str, Any]) -> dict[str, str]:
    """Return thoughts and refusal of a piece by the names of ``rag.models.reply_endings``."""
    sent = {THOUGHTS: delta.get("reasoning_content") or delta.get("reasoning"), REFUSAL: delta.get("refusal")}
    return {name: text for name, text in sent.items() if isinstance(text, str) and text}


def _shorter(limit: float | None, left: float | None) -> float | None:
    return min((seconds for seconds in (limit, left) if seconds is not None), default=None)


def _counts(usage: object) -> dict[str, Any] | None:
    """Return the token counts that the server reported; None unless both are plausible."""
    if not isinstance(usage, Mapping):
        return None
    read, written = token_count(usage.get("prompt_tokens")), token_count(usage.get("completion_tokens"))
    if read is None or written is None:
        return None
    details = usage.get("prompt_tokens_details")
    # Moonshot and DeepSeek count them beside the others.
    places = (details if isinstance(details, Mapping) else {}, usage)
    counted = (token_count(place.get(name)) for place in places for name in _CACHED)
    cached = next(filter(None, counted), None)
    counts: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written}
    return counts | ({"prompt_tokens_details": {"cached_tokens": min(cached, read)}} if cached else {})


def _root(error: BaseException) -> BaseException:
    """Return the root cause, because the client only reports "Connection error"."""
    return _root(error.__cause__) if error.__cause__ else error
