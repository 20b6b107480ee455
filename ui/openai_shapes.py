"""The requests and responses of OpenAI's API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from rag.types import Answer, Citation, Hit, Turn
from ui.app.claims import claims_of

MODEL = "ragsmith"


class TextPart(BaseModel):
    """A part of a message; ``text`` is empty unless the type is text."""

    model_config = ConfigDict(extra="ignore")
    type: str = "text"
    text: str = ""


class Message(BaseModel):
    """One message of the conversation."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The text of all parts."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class StreamOptions(BaseModel):
    """The options of a stream."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class CompletionRequest(BaseModel):
    """A request. Decoding parameters are ignored: they belong to the release."""

    model_config = ConfigDict(extra="ignore")
    model: str = MODEL
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None


class ApiError(Exception):
    """An error in OpenAI's shape.

    Args:
        retry_after: Seconds after which the client may ask again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self._retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """Return the error as JSON."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the error as a response."""
        headers = {} if self._retry_after is None else {"retry-after": str(self._retry_after)}
        return JSONResponse(self.body(), status_code=self.status, headers=headers)


def history_of(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """Return the earlier questions with their answers; system messages are ignored."""
    turns: list[Turn] = []
    question: str | None = None
    for message in messages:
        if message.role == "user":
            if question is not None:
                turns.append(Turn(question, ""))
            question = message.text
        elif message.role == "assistant" and question is not None:
            turns.append(Turn(question, message.text))
            question = None
    return (*turns, Turn(question, "")) if question is not None else tuple(turns)


class Reply:
    """Builds the objects of one completion."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def completion(self, answer: Answer) -> dict[str, Any]:
        """Return the whole answer."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ending(answer)}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage_of(answer),
            "ragsmith": extra(answer),
        }

    def chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        """Return a piece of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **more}

    def usage_chunk(self, answer: Answer) -> dict[str, Any]:
        """Return the last piece of a stream with usage: it has no choices."""
        return {
            **self._head,
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": usage_of(answer),
        }


def ending(answer: Answer) -> str:
    """Return OpenAI's reason for the end of an answer."""
    return "length" if answer.cut else "stop"


def usage_of(answer: Answer) -> dict[str, int] | None:
    """Return the tokens in OpenAI's shape; None if the model did not count them."""
    read, written = answer.usage.input_tokens, answer.usage.output_tokens
    if read is None or written is None:
        return None
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def extra(answer: Answer) -> dict[str, Any]:
    """Return the field ``ragsmith``."""
    cited = {citation.marker: citation for citation in answer.citations}
    sources = [_source(number, hit, cited.get(number)) for number, hit in enumerate(answer.hits, start=1)]
    return {
        "status": answer.status,
        "sources": sources,
        "support": answer.support,
        "claims": claims_of(answer),
        "question": answer.standalone,
        "trace_id": answer.trace_id,
        "latency_s": round(answer.latency_s, 4),
        "cost_usd": answer.cost_usd,
        "prompt": answer.prompt,
        "release": answer.release,
        "model": answer.model,
    }


def _source(marker: int, hit: Hit, citation: Citation | None) -> dict[str, Any]:
    passage = hit.passage
    return {
        "marker": marker,
        "cited": citation is not None,
        "source": passage.source,
        "name": passage.name,
        "title": passage.title,
        "page": passage.page,
        "document_id": passage.document_id,
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
        "score": hit.score,
        "quote": None
        if citation is None
        else {"start": citation.start, "end": citation.end, "support": citation.support},
    }
