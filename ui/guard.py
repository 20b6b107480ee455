"""What every response must carry and every request must be: headers, and the name it was sent to."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio writes its configuration into inline scripts and evaluates the scripts that events name; nothing may
# be fetched from anywhere else.
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


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a host."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class SecurityHeaders:
    """Adds the headers that are missing; a route may set stricter ones of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its response back with the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Farewell:
    """Ends every open response when the server is asked to stop.

    A page holds a stream open for as long as it is shown. To the application the end looks as if the client had
    gone: what is being answered is broken off and stored, and nobody waits for a page that is never closed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._over = asyncio.Event()

    def say(self) -> None:
        """End what is open; call it in the loop of the server."""
        self._over.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with an end that may come from us."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with _Ending(receive, send, self._over) as ending:
            await self._app(scope, ending.receive, ending.send)


class _Ending:
    """One request whose end may come from us."""

    def __init__(self, receive: Receive, send: Send, over: asyncio.Event) -> None:
        self._receive = receive
        self._send = send
        self._over = over
        self._coming: asyncio.Future[Message] | None = None
        self._open = False

    async def __aenter__(self) -> _Ending:
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._coming is not None:
            self._coming.cancel()
        if self._open and self._over.is_set():
            # What was broken off by us is whole for the server, which else would complain of it.
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def receive(self) -> Message:
        """The next message of the client, or that it has gone."""
        # Kept when the caller gives up waiting: whoever looks whether the client is still there does so by
        # cancelling at once, and the message must not be lost with it.
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._receive())
        coming = self._coming
        if not coming.done():
            over = asyncio.ensure_future(self._over.wait())
            try:
                await asyncio.wait((coming, over), return_when=asyncio.FIRST_COMPLETED)
            finally:
                over.cancel()
        if not coming.done():
            return {"type": "http.disconnect"}
        # Whoever writes and whoever looks may wait at the same time; both hear that the client has gone.
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


class KnownHosts:
    """Refuses requests that were sent to another name, and changes that a page of another site asks for.

    A page somewhere may let its own name point to 127.0.0.1 and then read what it likes (DNS rebinding); the
    browser tells us the name that it believes in. ``Sec-Fetch-Site`` is the browser's word too, and it stays
    true behind a proxy, where ``Origin`` does not fit our address.

    Args:
        hosts: Names and addresses that are ours, without ports.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.strip("[]").lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and not self._welcome(scope["method"], Headers(scope=scope)):
            refusal = PlainTextResponse("This server answers to its own name only.\n", status_code=403)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _welcome(self, method: str, headers: Headers) -> bool:
        foreign = headers.get("sec-fetch-site") == "cross-site" and method not in ("GET", "HEAD")
        return not foreign and self._knows(headers.get("host", ""))

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return name is not None and (name in self._hosts or is_loopback(name))
