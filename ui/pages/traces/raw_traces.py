"""Stored traces, and the values of their steps, as JSON in whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from rag.errors import RagsmithError, TraceNotFound

if TYPE_CHECKING:
    from rag.tracing.trace_store import Trace
    from ui.app.stores import Stores

PARTS = ("input", "output", "attributes")
_HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


def trace_routes(stores: Stores) -> APIRouter:
    """The routes below ``/traces``."""
    router = APIRouter(include_in_schema=False)

    @router.get("/traces/{trace_id}")
    def whole(trace_id: str) -> Response:
        return _answered(lambda: asdict(stores.traces.get(trace_id)))

    @router.get("/traces/{trace_id}/{position}/{part}")
    def value(trace_id: str, position: str, part: str) -> Response:
        return _answered(lambda: _value(stores.traces.get(trace_id), position, part))

    return router


def _value(trace: Trace, position: str, part: str) -> object:
    span = next((span for span in trace.spans if str(span.position) == position), None)
    if span is None or part not in PARTS:
        raise TraceNotFound(f"The trace {trace.id} has no {part} of a step {position}.")
    found = getattr(span, part)
    return dict(found) if part == "attributes" else found


def _answered(read: Callable[[], object]) -> Response:
    try:
        text, status = json.dumps(read(), indent=2, ensure_ascii=False, default=str), 200
    except TraceNotFound as error:
        text, status = str(error), 404
    except RagsmithError as error:
        text, status = str(error), 503
    return PlainTextResponse(text.encode("utf-8", "replace"), status, headers=_HEADERS)
