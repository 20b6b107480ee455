"""The HTTP API in OpenAI's shape, so that other tools can ask.

``model`` is ``ragsmith`` for the corpus in the settings, or ``ragsmith/CORPUS``. The earlier messages are the
history. The field ``ragsmith`` has what OpenAI's shape lacks: sources, trace, cost, status. Every parameter is
honoured, refused, or named in its list ``ignored``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from prompts.validation import plain_reason
from rag.answering.answer_stream import AnswerStream, PartialAnswer
from rag.errors import (
    BudgetSpent,
    Busy,
    CorpusError,
    ModelTimeout,
    ModelUnavailable,
    QuestionTooLong,
    RagsmithError,
)
from rag.retrieval.question_limit import check_question
from rag.types import Answer, Ask
from ui.answer_options import AnswerOptions, options_of
from ui.app.log_file import SHOWN
from ui.openai_requests import CompletionRequest, asked_in
from ui.openai_shapes import MODEL, ApiError, Ending, Reply

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.releases import Releases
    from ui.app.stores import Stores

log = logging.getLogger(__name__)

_READ = ["GET", "HEAD"]
_ANY = [*_READ, "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# Some editors and shells begin a file with it.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Seconds between two checks whether the client is still connected.
_POLL_S = 0.25


def api_routes(settings: Settings, stores: Stores, releases: Releases) -> APIRouter:
    """Return the routes below ``/v1``."""
    router = APIRouter()

    @router.api_route("/v1/models", methods=_READ)
    @router.api_route("/v1/models/", methods=_READ)
    def models() -> Response:
        try:
            data = [_model(name) for name in _models(stores)]
        except Exception as error:  # noqa: BLE001 - every failure is reported in OpenAI's shape
            return _failure(error).response()
        return JSONResponse({"object": "list", "data": data})

    @router.api_route("/v1/models/{name:path}", methods=_READ)
    def model(name: str) -> Response:
        try:
            if name not in _models(stores):
                raise _no_model(name)
        except Exception as error:  # noqa: BLE001 - every failure is reported in OpenAI's shape
            return _failure(error).response()
        return JSONResponse(_model(name))

    @router.post("/v1/chat/completions")
    @router.post("/v1/chat/completions/")
    async def complete(request: Request) -> Response:
        try:
            asked = await _read(request)
            ask, options = await asyncio.to_thread(_prepare, settings, stores, releases, asked)
            # Reserve a place before sending anything, so that the status can say if there is none.
            stream = releases.assistant(options.variant, gate=releases.gate).start(ask)
        except Exception as error:  # noqa: BLE001 - every failure is reported in OpenAI's shape
            refused = _failure(error)
            log.info("A request was refused with %d (%s): %s", refused.status, refused.code, refused)
            return refused.response()
        completion = _Completion(stream, Reply(asked.model), options)
        if asked.stream:
            chunks = completion.streamed(usage=asked.stream_options.include_usage)
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)
        return await completion.whole(request)

    @router.api_route("/v1", methods=_ANY)
    @router.api_route("/v1/{rest:path}", methods=_ANY)
    def unknown(request: Request) -> Response:
        called = f"{request.method} {request.url.path}"
        offered = "GET /v1/models, GET /v1/models/MODEL, POST /v1/chat/completions and POST /v1/traces"
        return ApiError(404, f"There is no {called}; ragsmith offers {offered}.", "unknown_url").response()

    # Where clients end whose address lacks its end, or has a slash too many.
    @router.api_route("/models", methods=_ANY)
    @router.api_route("/chat/completions", methods=_ANY)
    @router.api_route("//v1/{rest:path}", methods=_ANY)
    def elsewhere(request: Request) -> Response:
        own = f"{request.url.scheme}://{request.url.netloc}/v1"
        message = f"There is no {request.method} {request.url.path}: set the client's base_url to {own}."
        return ApiError(404, message, "unknown_url").response()

    return router


def _models(stores: Stores) -> list[str]:
    return [MODEL, *(f"{MODEL}/{corpus}" for corpus in stores.corpus_names())]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "ragsmith"}


def _no_model(name: str) -> ApiError:
    return ApiError(404, f"There is no model {name!r}: `GET /v1/models` lists them.", "model_not_found", "model")


async def _read(request: Request) -> CompletionRequest:
    try:
        body = await request.body()
        return CompletionRequest.model_validate_json(body.removeprefix(_BYTE_ORDER_MARK))
    except ClientDisconnect as error:
        raise _gone() from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        reason = plain_reason(first["msg"])
        raise ApiError(400, f"{param or 'The request'}: {reason}.", "invalid_request", param) from error


def _prepare(
    settings: Settings, stores: Stores, releases: Releases, asked: CompletionRequest
) -> tuple[Ask, AnswerOptions]:
    """Return the question with its history, and the options of its answer.

    Raises:
        ApiError: The model is unknown, the last message is not a question, or a parameter cannot be honoured.
        RagsmithError: The question is too long, the budget is spent, or the corpora or the prompt cannot be read.
    """
    corpus = asked.model.partition("/")[2]
    if asked.model != MODEL and asked.model not in _models(stores):
        raise _no_model(asked.model)
    question, history = asked_in(asked.messages)
    check_question(question, settings.limits.question_chars)
    releases.budget.check()
    options = options_of(asked, releases.resolve().settings, lambda text: stores.encoder.tokens.starts(text))
    return Ask(question, history, corpus or settings.corpus, purpose="api", user=asked.user), options


@dataclass(frozen=True, slots=True)
class _Completion:
    """One answer, and the ways to send it."""

    stream: AnswerStream
    reply: Reply
    options: AnswerOptions

    async def whole(self, request: Request) -> Response:
        """Return the whole answer; the work stops if the client disconnects."""
        watcher = asyncio.create_task(_stop_when_gone(request, self.stream))
        try:
            answer = await self.stream.answer()
            if _is_failure(answer):
                return _failed(answer).response()
            return JSONResponse(self.reply.completion(self._end(answer)))
        except asyncio.CancelledError:
            if not self.stream.stopped:
                raise
            return _gone().response()
        except Exception as error:  # noqa: BLE001 - every failure is reported in OpenAI's shape
            return _failure(error).response()
        finally:
            watcher.cancel()
            await self.stream.close()

    async def streamed(self, *, usage: bool) -> AsyncIterator[str]:
        """Yield the answer piece by piece; closing the stream stops the work."""
        reply, draft, sent = self.reply, PartialAnswer(), ""
        try:
            yield _sse(reply.chunk({"role": "assistant", "content": ""}))
            async for batch in self.stream.batches():
                draft = reduce(PartialAnswer.after, batch, draft)
                # JSON may be repaired, and a refusal has a place of its own.
                shown = "" if self.options.is_json else self.options.clip.begun(draft.text)
                if len(shown) > len(sent):
                    yield _sse(reply.chunk({"content": shown[len(sent) :]}))
                    sent = shown
            answer = draft.answer
            if answer is None or _is_failure(answer):
                yield _sse(_failed(answer).body())
            else:
                end = self._end(answer)
                for delta in _rest(sent, end):
                    yield _sse(reply.chunk(delta))
                yield _sse(reply.chunk({}, end.reason, ragsmith=end.extra))
                if usage:
                    yield _sse(reply.usage_chunk(end))
        except Exception as error:  # noqa: BLE001 - every failure is reported in OpenAI's shape
            yield _sse(_failure(error).body())
        finally:
            await self.stream.close()
        yield "data: [DONE]\n\n"

    def _end(self, answer: Answer) -> Ending:
        options = self.options
        return Ending.of(answer, options.clip, is_json=options.is_json, ignored=options.ignored)


async def _stop_when_gone(request: Request, stream: AnswerStream) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(_POLL_S)
    stream.stop()


def _is_failure(answer: Answer) -> bool:
    """Whether an answer is an error to a client; one that a filter withheld ends as OpenAI's do."""
    return answer.status == "failed" and not answer.filtered


def _failed(answer: Answer | None) -> ApiError:
    """Return the error of an answer that failed, or that has no end."""
    if answer is None:
        return ApiError(502, "The answer ended before it was finished.", "answer_failed")
    if answer.limited:
        later = None if answer.limited_s is None else math.ceil(answer.limited_s)
        return ApiError(503, answer.error, "model_limited", retry_after=later)
    return ApiError(502, answer.error, "answer_failed")


def _rest(sent: str, end: Ending) -> Iterator[dict[str, str]]:
    if end.refusal is not None:
        yield {"refusal": end.refusal}
    elif rest := remainder(sent, end.text):
        yield {"content": rest}


def remainder(streamed: str, final: str) -> str:
    """Return the text that a client still needs to end with the checked answer.

    If the check changed what the model had written, the checked answer follows in a paragraph of its own.
    """
    if final.strip() == streamed.strip():
        return ""
    if final.startswith(streamed):
        return final[len(streamed) :]
    return f"\n\n{final}" if streamed and final else final


def _gone() -> ApiError:
    return ApiError(499, "The connection was closed, or the server was stopped.", "client_closed_request")


def _failure(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QuestionTooLong):
        return ApiError(400, str(error), "question_too_long", "messages")
    if isinstance(error, BudgetSpent):
        return ApiError(429, str(error), "insufficient_quota")
    if isinstance(error, Busy):
        return ApiError(503, str(error), "busy", retry_after=error.retry_after)
    if isinstance(error, CorpusError):
        return ApiError(404, str(error), "corpus_not_ready", "model")
    if isinstance(error, ModelTimeout):
        return ApiError(504, str(error), "model_timeout")
    if isinstance(error, ModelUnavailable):
        return ApiError(503, str(error), "model_unavailable")
    if isinstance(error, RagsmithError):
        return ApiError(500, str(error), "failed")
    log.error("A request failed", exc_info=error)
    return ApiError(500, f"This is a bug in ragsmith: {type(error).__name__}; its traceback is in {SHOWN}.", "bug")


def _sse(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
