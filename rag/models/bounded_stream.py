"""A size limit for streamed responses.

Libraries that read an event stream buffer a line until it ends. An endless line would fill the memory, unnoticed
by time-outs and counts of pieces.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from rag.errors import ModelProtocolError

MOST_BYTES = 256_000_000
"""Maximum bytes of a response: half a million pieces of about five hundred bytes."""
LONGEST_EVENT = 4_000_000
"""Maximum bytes of an event; a complete reply with log-probabilities has about a hundred thousand."""

_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")
_LONGEST_END = max(map(len, _ENDS))


def bound(client: Any) -> None:
    """Limit the responses of an asynchronous httpx-like client; repeated calls have no effect."""
    hooks = client.event_hooks
    if _bound_response not in hooks["response"]:
        client.event_hooks = {
            "request": [*hooks["request"], _ask_plainly],
            "response": [*hooks["response"], _bound_response],
        }


async def _ask_plainly(request: Any) -> None:
    request.headers["accept-encoding"] = "identity"


async def _bound_response(response: Any) -> None:
    # The stream must be an instance of the client library's class, of which there are two.
    base = next(kind for kind in type(response.stream).__mro__ if kind.__name__ == "AsyncByteStream")
    packed = response.headers.get("content-encoding", "identity").strip().lower()
    response.stream = _bounded(base)(response.stream, packed)


@cache
def _bounded(base: type) -> type:
    """Return a subclass of a stream class that raises an error beyond the limits."""

    class Bounded(base):  # type: ignore[misc]
        def __init__(self, stream: Any, packed: str) -> None:
            self._stream = stream
            self._packed = packed

        async def __aiter__(self) -> AsyncIterator[bytes]:
            if self._packed not in ("", "identity"):
                # The decompressed size would be unbounded.
                raise ModelProtocolError(
                    f"The model server sends a compressed answer ({self._packed[:20]}), which was not asked for.",
                    fix="Turn off compression on the server, or on the proxy in front of it.",
                )
            size = event = 0
            tail = b""
            async for piece in self._stream:
                size += len(piece)
                joined = tail + piece
                end = max(at + len(mark) if (at := joined.rfind(mark)) >= 0 else 0 for mark in _ENDS)
                event = len(joined) - end if end else event + len(piece)
                if size > MOST_BYTES or event > LONGEST_EVENT:
                    raise ModelProtocolError(
                        "The model server sends more data than an answer may have.",
                        fix="Check that openai.base_url points at an OpenAI-compatible server.",
                    )
                tail = joined[1 - _LONGEST_END :]
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Bounded
