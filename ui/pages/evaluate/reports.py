"""Reports of evaluation runs as separate pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from rag.errors import RagsmithError
from ui.pages.safe_markup import note

if TYPE_CHECKING:
    from ui.app.evaluations import Evaluations

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
_HEADERS = {"content-security-policy": POLICY, "cache-control": "no-store"}


def report_routes(evaluations: Evaluations) -> APIRouter:
    """The routes below ``/evaluations``."""
    router = APIRouter()

    @router.get("/evaluations/{run_id}.html", response_class=HTMLResponse)
    def show_report(run_id: str) -> Response:
        try:
            path = evaluations.report(evaluations.runs.get(run_id))
            html = path.read_text(encoding="utf-8")
        except RagsmithError as error:
            return HTMLResponse(note(str(error), "rs-error"), 404, _HEADERS)
        return HTMLResponse(html, headers=_HEADERS)

    return router
