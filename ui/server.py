"""The server: chat page, stored documents and HTTP API on one port."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI, Request

from rag.errors import SettingsError
from rag.settings import LimitSettings
from ui.access import Credentials, SignedIn, check_access
from ui.app.alert_timer import AlertTimer
from ui.app.pruning import DailyPruning
from ui.connections import Connection, Connections
from ui.guard import BodyLimit, Farewell, KnownRoutes, OwnOrigin, SecurityHeaders, is_loopback

if TYPE_CHECKING:
    from ui.app.app import App
    from ui.app.health import Health

log = logging.getLogger(__name__)

GRACE_S = 2
"""Seconds that running answers get to finish; an open page would keep its stream forever."""
FILES_PER_UPLOAD = 10
"""An upload may be so many times as large as the largest allowed file."""
MEGABYTE = 1_000_000
TICKS = 10
"""uvicorn's ticks per second."""


def create_web_app(app: App) -> FastAPI:
    """Build everything that browsers and other programs can reach.

    The caller closes the app.

    Raises:
        SettingsError: Other machines could reach it without a password.
    """
    settings, stores = app.settings, app.stores
    check_access(settings)
    from ui.api import api_routes
    from ui.app.metrics import ServerMetrics
    from ui.metrics_route import metrics_routes
    from ui.otlp_route import otlp_routes
    from ui.pages.documents.sources import source_routes
    from ui.pages.evaluate.reports import report_routes
    from ui.pages.traces.raw_traces import trace_routes

    # Swagger's page loads scripts from another origin, which the content policy blocks.
    web = FastAPI(title="ragsmith", docs_url=None, redoc_url=None, openapi_url=None)
    credentials = Credentials(settings.access) if settings.access.password is not None else None

    @web.get("/healthz")
    def healthz(request: Request) -> dict[str, Any]:
        now = health_report(app.health.check())
        trusted = credentials is None or getattr(request.state, "signed_in", False)
        return now if trusted else {"status": now["status"]}

    # Before the API, which answers every other address below /v1.
    web.include_router(otlp_routes(stores))
    web.include_router(api_routes(settings, stores, app.releases))
    web.include_router(source_routes(settings.ingest, stores))
    web.include_router(report_routes(app.evaluations))
    app.metrics = metrics = ServerMetrics(stores, settings.cost)
    web.include_router(metrics_routes(metrics))
    web.include_router(trace_routes(stores))
    _mount_page(web, app, credentials)
    # The middleware added last runs first.
    if credentials is not None:
        page = web.routes[-1].app  # type: ignore[attr-defined]
        web.add_middleware(SignedIn, credentials=credentials, is_session=partial(_is_session, page))
    web.add_middleware(BodyLimit, uploads=FILES_PER_UPLOAD * settings.ingest.max_file_mb * MEGABYTE)
    web.add_middleware(KnownRoutes)
    web.add_middleware(OwnOrigin, host=settings.host, allowed_hosts=settings.access.allowed_hosts)
    web.add_middleware(SecurityHeaders)
    return web


def _is_session(page: Any, name: str, value: str) -> bool:
    """Whether this is the cookie of a user signed in to Gradio."""
    return name in (f"access-token-{page.cookie_id}", f"access-token-unsecure-{page.cookie_id}") and (
        value in page.tokens
    )


def health_report(now: Health) -> dict[str, Any]:
    """Return the state for a monitor; ``status`` is ``ok`` if questions can be answered."""
    ready = now.model_ok and now.index_ok
    return {
        "status": "ok" if ready else "degraded",
        "model": {"ok": now.model_ok, "detail": now.model},
        "index": {"ok": now.index_ok, "detail": now.index},
        "wandb": {"ok": now.wandb_ok, "mode": now.wandb, "detail": now.wandb_detail},
        "otlp": {"ok": now.otlp_ok, "mode": now.otlp},
        "notices": list(now.notices),
    }


def _mount_page(web: FastAPI, app: App, credentials: Credentials | None) -> None:
    # Uploads belong in the workspace, not in the system's temporary folder; Gradio reads this only from the
    # environment.
    os.environ["GRADIO_TEMP_DIR"] = str(app.workspace.root / "tmp")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # After every event Gradio would count all earlier ones, for a dashboard that is not used.
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = "1000000000"
    import gradio

    from ui.pages.page import build_page
    from ui.pages.theme import FAVICON, head, theme

    # Hides the log lines of Gradio's own requests.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    page = build_page(app)
    gradio.mount_gradio_app(
        web,
        page,
        path="/",
        auth=credentials.signs_in if credentials else None,
        auth_message=f"Sign in to ragsmith as {app.settings.access.user}.",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=f"{app.settings.ingest.max_file_mb}mb",
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        favicon_path=str(FAVICON),
        theme=theme(),
        head=head(),
    )
    # `launch` sets it and the mount does not; without it Gradio does not check the paths that clients name.
    page.has_launched = True


class Server(uvicorn.Server):
    """A uvicorn server that reports when it listens, and does not wait for pages that stay open.

    Args:
        on_listening: Called once, in the event loop of the server.
        limits: The maximum number of connections, and the time limit of a request.
    """

    def __init__(
        self,
        web: FastAPI,
        on_listening: Callable[[], None] = lambda: None,
        limits: LimitSettings = LimitSettings(),
    ) -> None:
        self._farewell = Farewell(web)
        self._on_listening = on_listening
        self._connections = Connections(limits.connections, limits.request_s)
        super().__init__(
            uvicorn.Config(
                self._farewell,
                # What it logs goes where everything else goes.
                log_config=None,
                log_level="warning",
                timeout_graceful_shutdown=GRACE_S,
                server_header=False,
                ws="none",
                http=partial(Connection, self._connections),  # type: ignore[arg-type]
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then call ``on_listening``."""
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    async def on_tick(self, counter: int) -> bool:
        """Check the connections once a second."""
        if counter % TICKS == 0:
            self._connections.sweep(1.0)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the open responses, then stop."""
        # Delivering the last traces to W&B may take seconds.
        print("\nStopping…", flush=True)  # noqa: T201 - the command's output
        log.info("Stopping")
        self._farewell.say()
        await super().shutdown(sockets)


def serve(app: App, open_browser: bool) -> None:
    """Serve until SIGTERM or Ctrl-C, then close the app.

    Args:
        open_browser: Whether to open the page in the browser.

    Raises:
        SettingsError: The port is taken, the address is not one of this machine, or other machines could reach
            it without a password.
    """
    settings = app.settings
    # A server has a log of its own, and not only of what goes wrong.
    logging.getLogger("ui").setLevel(logging.INFO)
    check_access(settings)
    listener = listen(settings.host, settings.port)
    # uvicorn raises the signal again after its shutdown; the default handler would end the process before the
    # app is closed and the last traces are delivered.
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    pruning = DailyPruning(settings.tracing, app.stores)
    timer = AlertTimer(app.alerting)
    try:
        # Ctrl-C is the normal end.
        with suppress(KeyboardInterrupt):
            address = _address(settings.host, listener.getsockname()[1])
            web = create_web_app(app)
            server = Server(web, lambda: _announce(app, address, open_browser), settings.limits)
            pruning.start()
            timer.start()
            server.run(sockets=[listener])
    finally:
        listener.close()
        pruning.close()
        timer.close()
        app.close()
        signal.signal(signal.SIGTERM, before)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; port 0 takes any free one.

    Raises:
        SettingsError: The port is taken, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(
            f"The host {host} cannot be resolved: {error}.", fix="Set host to 127.0.0.1."
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"Port {port} on {host} is taken; perhaps ragsmith is already running.",
                fix="Open its page, or take any free port: `ragsmith serve --port 0`.",
            ) from error
        if error.errno == errno.EACCES:
            raise SettingsError(
                f"Port {port} needs administrator rights.", fix="Choose a port above 1023."
            ) from error
        raise SettingsError(
            f"Cannot listen on {host}:{port}: {error.strerror}.", fix="Set host to 127.0.0.1."
        ) from error
    return listener


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{shown}]' if ':' in shown and not shown.startswith('[') else shown}:{port}"


def _announce(app: App, address: str, open_browser: bool) -> None:
    """Print the address of the page, and start the work that can wait until then."""
    print(f"ragsmith is at {address}  (Ctrl-C stops it)", flush=True)  # noqa: T201 - the command's output
    log.info("Serving %s at %s", app.settings.model, address)
    settings, access = app.settings, app.settings.access
    if not is_loopback(settings.host):
        port = address.rpartition(":")[2]
        print(f"Other machines reach it at http://{socket.gethostname()}:{port}", flush=True)  # noqa: T201
    if access.no_auth and access.password is None and not is_loopback(settings.host):
        print(  # noqa: T201
            f"Warning: host is {settings.host} and access.no_auth is set, so everybody on this network can "
            "read all corpora and conversations, unless a proxy in front signs users in.",
            file=sys.stderr,
            flush=True,
        )
    threading.Thread(target=app.tracking.start, name="tracking", daemon=True).start()
    threading.Thread(target=app.health.warm, name="warm", daemon=True).start()
    if open_browser:
        import webbrowser

        threading.Thread(target=webbrowser.open, args=(address,), name="browser", daemon=True).start()
