"""The responses of OpenAI's API, and its errors."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from rag.types import Answer, Citation, Hit
from ui.answer_clip import Clip
from ui.app.claims import claims_of

MODEL = "ragsmith"


def refusal_of(
    path: str, message: str, status: int, *, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a refusal before a request is read: in OpenAI's shape for the API, else as text."""
    if path.startswith("/v1/"):
        return ApiError(status, message, code).response(headers)
    return PlainTextResponse(f"{message}\n", status, headers)


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
        if self.code == "insufficient_quota":
            kind = self.code
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """Return the error as a response."""
        later = {} if self._retry_after is None else {"retry-after": str(self._retry_after)}
        return JSONResponse(self.body(), status_code=self.status, headers={**later, **(headers or {})})


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of an answer as a client gets it.

    Attributes:
        text: The text; empty if the answer is a refusal where JSON was asked for.
        refusal: That refusal.
        reason: OpenAI's reason for the end.
        usage: The tokens in OpenAI's shape; None if the model did not count them.
        extra: The field ``ragsmith``.
    """

    text: str
    refusal: str | None
    reason: str
    usage: dict[str, int] | None
    extra: dict[str, Any]

    @classmethod
    def of(cls, answer: Answer, clip: Clip, *, is_json: bool = False, ignored: Sequence[str] = ()) -> Ending:
        """Return the end of an answer.

        Args:
            clip: Where the client ends it.
            is_json: Whether its text must be JSON.
            ignored: The parameters of the request without an effect.
        """
        too_long = clip.is_too_long(answer.text)
        refuses = is_json and answer.status == "abstained"
        return cls(
            "" if refuses else clip(answer.text),
            answer.text if refuses else None,
            "length" if too_long else ending(answer),
            usage_of(answer, clip.tokens if too_long else None),
            extra(answer) | {"ignored": list(ignored)},
        )


class Reply:
    """Builds the objects of one completion."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def completion(self, end: Ending) -> dict[str, Any]:
        """Return the whole answer."""
        content = None if end.refusal is not None else end.text
        message = {"role": "assistant", "content": content, "refusal": end.refusal}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end.reason}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": end.usage,
            "ragsmith": end.extra,
        }

    def chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        """Return a piece of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **more}

    def usage_chunk(self, end: Ending) -> dict[str, Any]:
        """Return the last piece of a stream with usage: it has no choices."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": end.usage}


def ending(answer: Answer) -> str:
    """Return OpenAI's reason for the end of an answer."""
    if answer.filtered:
        return "content_filter"
    return "length" if answer.cut else "stop"


def usage_of(answer: Answer, most: int | None = None) -> dict[str, int] | None:
    """Return the tokens in OpenAI's shape; None if the model did not count them.

    Args:
        most: Number of tokens that the answer was shortened to.
    """
    read, written = answer.usage.input_tokens, answer.usage.output_tokens
    if read is None or written is None:
        return None
    written = written if most is None else min(written, most)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def extra(answer: Answer) -> dict[str, Any]:
    """Return the field ``ragsmith``."""
    cited = {citation.marker: citation for citation in answer.citations}
    sources = [_source(number, hit, cited.get(number)) for number, hit in enumerate(answer.hits, start=1)]
    return {
        "status": answer.status,
        "error": answer.error or None,
        "sources": sources,
        "support": answer.support,
        "claims": claims_of(answer),
        "question": answer.standalone,
        "trace_id": answer.trace_id,
        "latency_s": round(answer.latency_s, 4),
        "cost_usd": answer.cost_usd,
        "budget": answer.budget or None,
        "prompt": answer.prompt,
        "release": answer.release,
        "model": answer.model,
        "unsupported": list(answer.unsupported),
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
