"""Checks of every request (host, origin, size, route), and headers of every response."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.openai_shapes import refusal_of

# Gradio writes its configuration into inline scripts and evaluates the scripts of events. Nothing may be fetched
# from another origin.
PAGE_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "media-src 'self' data: blob:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-src 'self'",
        "frame-ancestors 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)

_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


# Ends a streamed answer of the API, which a client would otherwise take for a whole one.
_STOPPED = (
    b'data: {"error": {"message": "The server was stopped.", "type": "server_error", "code": "stopped"}}\n\n'
)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a host."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class SecurityHeaders:
    """Adds missing security headers, and drops those that let pages of other sites read a response.

    A route may set stricter ones. Gradio would allow other origins, even with credentials.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.lower().startswith("access-control-")]:
                    del headers[name]
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Farewell:
    """Ends every open response when the server is asked to stop.

    A page keeps a stream open for as long as it is shown. To the application the end looks like a disconnected
    client: a running answer is stopped and stored, and the server does not wait for pages that stay open.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._over = asyncio.Event()

    def say(self) -> None:
        """End the open responses; call it in the event loop of the server."""
        self._over.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and end it when the server stops."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        last = _STOPPED if scope.get("path", "").startswith("/v1/") else b""
        async with _Ending(receive, send, self._over, last) as ending:
            await self._app(scope, ending.receive, ending.send)


class _Ending:
    """A request that the server may end, and the last bytes of the response in that case."""

    def __init__(self, receive: Receive, send: Send, over: asyncio.Event, last: bytes) -> None:
        self._receive = receive
        self._send = send
        self._over = over
        self._last = last
        self._coming: asyncio.Future[Message] | None = None
        self._open = False

    async def __aenter__(self) -> _Ending:
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._coming is not None:
            self._coming.cancel()
        if self._open and self._over.is_set():
            # Completes the response for the server, which would log an incomplete one.
            await self._send({"type": "http.response.body", "body": self._last, "more_body": False})

    async def receive(self) -> Message:
        """Return the next message of the client, or that it has disconnected."""
        # Kept when the caller is cancelled: checking for a disconnect cancels at once, and the message must not be
        # lost.
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._receive())
        coming = self._coming
        # Starlette cancels this call at its first wait, so it must learn of the end without one.
        if not coming.done() and not self._over.is_set():
            over = asyncio.ensure_future(self._over.wait())
            try:
                await asyncio.wait((coming, over), return_when=asyncio.FIRST_COMPLETED)
            finally:
                over.cancel()
        if not coming.done():
            return {"type": "http.disconnect"}
        # Two callers may wait at the same time; both must learn of the disconnect.
        if self._coming is coming:
            self._coming = None
        return coming.result()

    async def send(self, message: Message) -> None:
        """Pass a message on to the client."""
        if message["type"] == "http.response.start":
            self._open = True
        elif message["type"] == "http.response.body":
            self._open = message.get("more_body", False)
        await self._send(message)


class OwnOrigin:
    """Refuses requests for another host name, and requests from pages of other sites.

    Another site could make its own name resolve to this address and then read everything (DNS rebinding);
    ``Host`` is the name that the browser used. ``Origin`` and ``Sec-Fetch-Site`` identify the page that sends a
    request; programs other than browsers send neither.

    Args:
        host: The address that the server listens on.
        allowed_hosts: Names that a proxy forwards, with the port unless it is the default one.
    """

    def __init__(self, app: ASGIApp, host: str, allowed_hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._allowed = frozenset(name.strip().lower() for name in allowed_hosts)
        names = {host, "localhost", *(_host_and_port(f"//{name}")[0] or name for name in self._allowed)}
        # An address is reached without resolving a name, so it is safe from DNS rebinding.
        self._any_address = not is_loopback(host)
        if self._any_address:
            names.add(socket.gethostname())
        self._names = frozenset(name.strip("[]").lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            # Gradio builds addresses of the page from it.
            if not self._is_ours(headers.get("x-forwarded-host", headers.get("host", ""))):
                scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower() != b"x-forwarded-host"]
            reason = self._objection(scope["method"], headers)
            if reason:
                await refusal_of(scope["path"], reason, 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _objection(self, method: str, headers: Headers) -> str:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return (
                "The host name is not one of this server. If a proxy forwards it, add the name to "
                "access.allowed_hosts."
            )
        site = headers.get("sec-fetch-site", "none")
        if method not in _SAFE_METHODS and site not in ("same-origin", "none"):
            return "Only ragsmith's own page may change anything here."
        origin = headers.get("origin")
        if origin is not None and not self._is_own_origin(origin, host):
            return (
                "Only ragsmith's own page may call this server. If a proxy changes the Host header, add the "
                "name that browsers use to access.allowed_hosts."
            )
        return ""

    def _is_ours(self, host: str) -> bool:
        name, _ = _host_and_port(f"//{host}")
        if name is None:
            return False
        return name in self._names or is_loopback(name) or (self._any_address and _is_address(name))

    def _is_own_origin(self, origin: str, host: str) -> bool:
        name, port = _host_and_port(origin)
        if name is None:
            return False
        default = _DEFAULT_PORTS.get(urlsplit(origin).scheme)
        own_name, own_port = _host_and_port(f"//{host}")
        if name == own_name and (port or default) == (own_port or default):
            return True
        return (f"{name}:{port}" if port not in (None, default) else name) in self._allowed


_SAFE_METHODS = frozenset({"GET", "HEAD"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _host_and_port(url: str) -> tuple[str | None, int | None]:
    """Return the host and port of a URL; no host if the URL is invalid or has anything besides these two."""
    try:
        parts = urlsplit(url)
        if "@" in parts.netloc or parts.path or parts.query or parts.fragment:
            return None, None
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


MAX_BODY = 4_000_000
"""Bytes of a request that is not an upload: about a hundred pages of history."""
MAX_SPANS = 20_000_000
"""Bytes of a request with spans of another program."""
MAX_DRAINED = 64_000_000
"""Bytes of a refused body that are read."""


class BodyLimit:
    """Refuses bodies that are too large, by their stated and by their actual length.

    Args:
        uploads: The maximum bytes of one upload with all its files.
    """

    def __init__(self, app: ASGIApp, uploads: int) -> None:
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 413."""
        if scope["type"] != "http" or scope["method"] in _SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        limits = {UPLOAD: self._uploads, SPANS: MAX_SPANS}
        limit = limits.get(scope["path"].rstrip("/"), MAX_BODY)
        refusal = refusal_of(
            scope["path"],
            f"The request is larger than {limit:,} bytes.",
            413,
            code="request_too_large",
            headers={"connection": "close"},
        )
        stated = Headers(scope=scope).get("content-length", "0")
        if not stated.isdecimal() or int(stated[:20]) > limit:
            await _drain(receive)
            await refusal(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            if received > limit:
                return {"type": "http.disconnect"}
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                if message.get("more_body"):
                    await _drain(receive)
                await refusal(scope, receive, send)
                return {"type": "http.disconnect"}
            return message

        async def unless_refused(message: Message) -> None:
            if received <= limit:
                await send(message)

        try:
            await self._app(scope, counted, unless_refused)
        except ClientDisconnect:
            # To the application a refused client looks like a disconnected one.
            if received <= limit:
                raise


async def _drain(receive: Receive) -> None:
    """Read the rest of a body, up to a limit, because a client that still sends would not see the refusal."""
    left = MAX_DRAINED
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


GRADIO = "/gradio_api/"
UPLOAD = "/gradio_api/upload"
SPANS = "/v1/traces"
# The routes that the page uses. Others would fetch any address, record, or edit code.
_GRADIO_ROUTES = frozenset(
    {
        "app_id", "cancel", "heartbeat", "info", "login_check", "queue", "reset", "run", "startup-events",
        "theme.css", "token", "upload", "upload_progress", "user",
    }
)  # fmt: skip
_ELSEWHERE = frozenset({"monitoring", "runs", "svelte", "deep_link"})


class KnownRoutes:
    """Hides the routes of Gradio that the page does not use."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 404."""
        if scope["type"] == "http" and not _is_used(scope["path"]):
            await PlainTextResponse("Not found.\n", 404)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_used(path: str) -> bool:
    if not path.startswith(GRADIO):
        return path.strip("/").partition("/")[0] not in _ELSEWHERE
    route = path.removeprefix(GRADIO)
    if route.startswith("file="):
        return "://" not in route
    return route.partition("/")[0] in _GRADIO_ROUTES
