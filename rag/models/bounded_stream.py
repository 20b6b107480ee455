"""A limit on the bytes of a response that is streamed.

Libraries that read a stream of events gather a line until it ends. One line without an end would take all memory,
and no time-out and no count of pieces would see it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from rag.errors import ModelProtocolError

MOST_BYTES = 256_000_000
"""Bytes of one response: half a million pieces of some five hundred bytes each."""
LONGEST_EVENT = 4_000_000
"""Bytes of one event. The largest in use, a whole reply with its log-probabilities, has some hundred thousand."""

_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")
_LONGEST_END = max(map(len, _ENDS))


def bound(client: Any) -> None:
    """Limit the responses of an asynchronous client of httpx, or of a library with its interface, once."""
    hooks = client.event_hooks
    if _bound_response not in hooks["response"]:
        client.event_hooks = {
            "request": [*hooks["request"], _ask_plainly],
            "response": [*hooks["response"], _bound_response],
        }


async def _ask_plainly(request: Any) -> None:
    request.headers["accept-encoding"] = "identity"


async def _bound_response(response: Any) -> None:
    # The stream has to be one of its library, of which there are two.
    base = next(each for each in type(response.stream).__mro__ if each.__name__ == "AsyncByteStream")
    packed = response.headers.get("content-encoding", "identity").strip().lower()
    response.stream = _bounded(base)(response.stream, packed)


@cache
def _bounded(base: type) -> type:
    """A stream that ends in an error where it holds too much."""

    class Bounded(base):  # type: ignore[misc]
        def __init__(self, stream: Any, packed: str) -> None:
            self._stream = stream
            self._packed = packed

        async def __aiter__(self) -> AsyncIterator[bytes]:
            if self._packed not in ("", "identity"):
                # A thousandth of its size may be what is sent of it.
                raise ModelProtocolError(
                    f"The model server sends a compressed answer ({self._packed[:20]}), which was not asked for.",
                    fix="Turn compression off on the server, or on the proxy before it.",
                )
            size = event = 0
            tail = b""
            async for piece in self._stream:
                size += len(piece)
                seen = tail + piece
                end = max(at + len(mark) if (at := seen.rfind(mark)) >= 0 else 0 for mark in _ENDS)
                event = len(seen) - end if end else event + len(piece)
                if size > MOST_BYTES or event > LONGEST_EVENT:
                    raise ModelProtocolError(
                        "The model server sends more than an answer can hold.",
                        fix="Check that openai.base_url points at an OpenAI-compatible server.",
                    )
                tail = seen[1 - _LONGEST_END :]
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Bounded
