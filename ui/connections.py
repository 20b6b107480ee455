"""Limits on open connections: their number, and how long a client may keep one waiting.

uvicorn waits forever for the rest of a request, so a few hundred half-sent ones would take every socket that the
process may open.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, Literal

import h11
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

SLOWEST = 10_000
"""The lowest accepted rate of a body, in bytes per second."""
UNREAD_S = 60.0
"""Seconds that a client may leave a response unread."""
RESERVE = 16
"""Connections beyond the limit, on which the server answers only health checks."""
HEALTH = "/healthz"

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n"


class Connections:
    """The open connections of a server, oldest first.

    Args:
        limit: The maximum number; capped at half of the files that the process may open.
        request_s: Seconds that a client may take for the head of a request, and for its body in addition to the
            time that ``SLOWEST`` grants.
    """

    def __init__(self, limit: int, request_s: float) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.limit = limit if files == resource.RLIM_INFINITY else max(min(limit, files // 2), 1)
        self.request_s = request_s
        self._open: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection) -> Literal["yes", "in reserve", "no"]:
        """Admit a new connection; if there are too many, it replaces one that waits for its client.

        Returns:
            Whether it was admitted; the reserve is for health checks.
        """
        admitted: Literal["yes", "in reserve"] = "yes"
        if len(self._open) >= self.limit:
            waiting = next((candidate for candidate in self._open if candidate.waits_for_client), None)
            if waiting is not None:
                self.forget(waiting)
                waiting.end()
            elif len(self._open) >= self.limit + RESERVE:
                return "no"
            else:
                admitted = "in reserve"
        self._open[connection] = None
        return admitted

    def forget(self, connection: Connection) -> None:
        """Stop counting a connection."""
        self._open.pop(connection, None)

    def sweep(self, passed_s: float) -> None:
        """Close the connections of slow clients; call it every ``passed_s`` seconds."""
        for connection in tuple(self._open):
            connection.grow_older(passed_s)


class Connection(H11Protocol):
    """uvicorn's connection, with a limit on how long its client may take.

    Args:
        connections: The open connections of the server.
        given: The arguments of uvicorn's protocol.
    """

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._connections = connections
        self._waited = 0.0
        self._unread = 0.0
        self._received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection, or refuse it if there are too many."""
        super().connection_made(transport)
        admitted = self._connections.admit(self)
        if admitted == "in reserve":
            self.app = _only_health(self.app)
        elif admitted == "no":
            transport.write(_TOO_MANY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another."""
        self._connections.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive data, unless the connection was refused."""
        if self.transport.is_closing():
            return
        self._received += len(data)
        super().data_received(data)

    @property
    def waits_for_client(self) -> bool:
        """Whether the next step is the client's: the rest of a request, or a new one."""
        if self.conn.their_state is h11.IDLE:
            return self.cycle is None or self.cycle.response_complete
        return self.conn.their_state is h11.SEND_BODY and not self.flow.read_paused

    def grow_older(self, passed_s: float) -> None:
        """Count the time that passed, and close the connection if its client has taken too long."""
        self._unread = self._unread + passed_s if self.flow.write_paused else 0.0
        if self._unread > UNREAD_S:
            self.transport.abort()
            return
        if not self.waits_for_client:
            self._waited, self._received = 0.0, 0
            return
        self._waited += passed_s
        granted = self._received / SLOWEST if self.conn.their_state is h11.SEND_BODY else 0.0
        if self._waited > self._connections.request_s + granted:
            self.end()

    def end(self) -> None:
        """Close the connection, with a reason if the client has begun a request."""
        if self._received and (self.cycle is None or not self.cycle.response_started):
            self.transport.write(_TOO_SLOW)
        self.transport.close()


def _only_health(app: ASGIApp) -> Any:
    """Return an application that answers health checks and refuses everything else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == HEALTH:
            await app(scope, receive, send)
            return
        headers = {"connection": "close", "retry-after": "5"}
        await PlainTextResponse("Too many connections.\n", 503, headers)(scope, receive, send)

    return answer
