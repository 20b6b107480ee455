"""``POST /v1/traces``: spans of other programs, which export them over OTLP/HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from rag.errors import RagsmithError, SpansRefused

if TYPE_CHECKING:
    from rag.tracing.external_traces import Added
    from ui.app.stores import Stores

AT_ONCE = 2
"""Requests that are read at the same time, because each may take hundreds of megabytes."""
RETRY_S = 5

log = logging.getLogger(__name__)


def otlp_routes(stores: Stores) -> APIRouter:
    """Return the route, which needs a session or the key where the server has a password."""
    router = APIRouter()
    turns = asyncio.Semaphore(AT_ONCE)

    @router.post("/v1/traces")
    @router.post("/v1/traces/")
    async def receive(request: Request) -> Response:
        from rag.tracing.otlp_requests import JSON_TYPE, PROTOBUF, media_type, refusal_of, response_of

        sent_as = request.headers.get("content-type", "")
        encoding = request.headers.get("content-encoding", "")
        answered_as = PROTOBUF if media_type(sent_as) == PROTOBUF else JSON_TYPE
        try:
            body = await request.body()
            async with turns:
                added = await asyncio.to_thread(_store, stores, body, sent_as, encoding)
        except ClientDisconnect:
            return Response(status_code=499)
        except SpansRefused as error:
            log.info("Spans were refused with %d: %s", error.status, error)
            return Response(refusal_of(str(error), answered_as), error.status, media_type=answered_as)
        except RagsmithError as error:
            log.warning("Spans cannot be stored now: %s", error)
            content = refusal_of(str(error), answered_as, later=True)
            return Response(content, 503, {"retry-after": str(RETRY_S)}, media_type=answered_as)
        if added.rejected:
            log.info("%d spans were rejected: %s", added.rejected, added.reason)
        return Response(response_of(added.rejected, added.reason, answered_as), media_type=answered_as)

    return router


def _store(stores: Stores, body: bytes, content_type: str, encoding: str) -> Added:
    """Decode a request and store its spans.

    Raises:
        SpansRefused: It cannot be understood.
        RagsmithError: The spans cannot be stored now.
    """
    from rag.tracing.external_spans import received_spans
    from rag.tracing.external_traces import Added
    from rag.tracing.otlp_requests import read_request

    received, invalid = received_spans(read_request(body, content_type, encoding), stores.prices)
    reason = "The id of a trace must have 16 bytes and that of a span 8, not all of them zero." if invalid else ""
    return stores.external_traces.add(received) + Added(rejected=invalid, reason=reason)
