"""The HTTP API in OpenAI's shape, so that other tools can ask.

``model`` is ``ragsmith`` for the corpus in the settings, or ``ragsmith/CORPUS``. The earlier messages are the
history. The field ``ragsmith`` has what OpenAI's shape lacks: sources, trace, cost, status.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from rag.answering.answer_stream import AnswerStream, PartialAnswer
from rag.errors import Busy, CorpusError, ModelTimeout, ModelUnavailable, QuestionTooLong, RagsmithError
from rag.retrieval.question_limit import check_question
from rag.types import Ask, Event, Token
from ui.openai_shapes import MODEL, ApiError, CompletionRequest, Reply, ending, extra, history_of

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.releases import Releases
    from ui.app.stores import Stores

log = logging.getLogger(__name__)

# Seconds between two checks whether the client is still connected.
_POLL_S = 0.25


def api_routes(settings: Settings, stores: Stores, releases: Releases) -> APIRouter:
    """Return the routes below ``/v1``."""
    router = APIRouter()

    @router.get("/v1/models")
    def models() -> Response:
        try:
            names = [MODEL, *(f"{MODEL}/{corpus}" for corpus in stores.corpus_names())]
        except Exception as error:  # noqa: BLE001 - every failure is reported in OpenAI's shape
            return _failure(error).response()
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "ragsmith"} for name in names]
        return JSONResponse({"object": "list", "data": data})

    @router.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        try:
            asked = await _read(request)
            ask = await asyncio.to_thread(_ask, settings, stores, asked)
            # Reserve a place before sending anything, so that the status can say if there is none.
            stream = releases.assistant(gate=releases.gate).start(ask)
        except Exception as error:  # noqa: BLE001 - every failure is reported in OpenAI's shape
            return _failure(error).response()
        reply = Reply(asked.model)
        if asked.stream:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            chunks = _stream(stream, reply, usage=usage)
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)
        return await _answer(stream, reply, request)

    return router


async def _read(request: Request) -> CompletionRequest:
    try:
        return CompletionRequest.model_validate_json(await request.body())
    except ClientDisconnect as error:
        raise _gone() from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise ApiError(400, f"{param or 'The request'}: {first['msg']}.", "invalid_request", param) from error


def _ask(settings: Settings, stores: Stores, asked: CompletionRequest) -> Ask:
    """Return the question and its history.

    Raises:
        ApiError: The model is unknown, or the last message is not a question.
        RagsmithError: The question is too long, or the corpora cannot be read.
    """
    name, _, corpus = asked.model.partition("/")
    if name != MODEL or (corpus and corpus not in stores.corpus_names()):
        raise ApiError(
            404, f"There is no model {asked.model!r}: `GET /v1/models` lists them.", "model_not_found", "model"
        )
    last = asked.messages[-1]
    if last.role != "user" or not last.text.strip():
        raise ApiError(400, "The last message must be a question from the user.", "no_question", "messages")
    question = last.text.strip()
    check_question(question, settings.limits.question_chars)
    return Ask(question, history_of(asked.messages[:-1]), corpus or settings.corpus)


async def _answer(stream: AnswerStream, reply: Reply, request: Request) -> Response:
    """Return the whole answer; the work stops if the client disconnects."""
    watcher = asyncio.create_task(_stop_when_gone(request, stream))
    try:
        answer = await stream.answer()
        if answer.status == "failed":
            return ApiError(502, answer.error, "answer_failed").response()
        return JSONResponse(reply.completion(answer))
    except asyncio.CancelledError:
        if not stream.stopped:
            raise
        return _gone().response()
    except Exception as error:  # noqa: BLE001 - every failure is reported in OpenAI's shape
        return _failure(error).response()
    finally:
        watcher.cancel()
        await stream.close()


async def _stop_when_gone(request: Request, stream: AnswerStream) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(_POLL_S)
    stream.stop()


async def _stream(stream: AnswerStream, reply: Reply, *, usage: bool) -> AsyncIterator[str]:
    """Yield the answer piece by piece; closing the stream stops the work."""
    draft = PartialAnswer()
    try:
        yield _sse(reply.chunk({"role": "assistant", "content": ""}))
        async for batch in stream.batches():
            draft = reduce(PartialAnswer.after, batch, draft)
            text = _written(batch)
            if text:
                yield _sse(reply.chunk({"content": text}))
        answer = draft.answer
        if answer is None or answer.status == "failed":
            message = answer.error if answer else "The answer ended before it was finished."
            yield _sse(ApiError(502, message, "answer_failed").body())
        else:
            rest = remainder(draft.text, answer.text)
            if rest:
                yield _sse(reply.chunk({"content": rest}))
            yield _sse(reply.chunk({}, ending(answer), ragsmith=extra(answer)))
            if usage:
                yield _sse(reply.usage_chunk(answer))
    except Exception as error:  # noqa: BLE001 - every failure is reported in OpenAI's shape
        yield _sse(_failure(error).body())
    finally:
        await stream.close()
    yield "data: [DONE]\n\n"


def _written(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def remainder(streamed: str, final: str) -> str:
    """Return the text that a client still needs to end with the checked answer.

    If the check changed what the model had written, the checked answer follows in a paragraph of its own.
    """
    if final.strip() == streamed.strip():
        return ""
    if final.startswith(streamed):
        return final[len(streamed) :]
    return f"\n\n{final}" if streamed else final


def _gone() -> ApiError:
    return ApiError(499, "The connection was closed, or the server was stopped.", "client_closed_request")


def _failure(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QuestionTooLong):
        return ApiError(400, str(error), "question_too_long", "messages")
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
    return ApiError(500, f"This is a bug in ragsmith: {type(error).__name__}.", "bug")


def _sse(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
