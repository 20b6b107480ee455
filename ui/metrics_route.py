"""``GET /metrics``: the metrics of the server for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from rag.errors import RagsmithError
from ui.app.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from ui.app.metrics import ServerMetrics


def metrics_routes(metrics: ServerMetrics) -> APIRouter:
    """Return the route, which needs a session or the key where the server has a password."""
    router = APIRouter()

    @router.get("/metrics")
    def metrics_text() -> Response:
        try:
            return Response(metrics.text(), media_type=CONTENT_TYPE)
        except RagsmithError as error:
            return PlainTextResponse(f"{error}\n", 503)

    return router
