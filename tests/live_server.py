"""A real server in a thread, on the loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ui.server import Server, create_web_app, listen


class LiveServer:
    """Serves an app in a thread of its own."""

    def __init__(self, app: Any, port: int = 0) -> None:
        self._app = app
        self._listener = listen("127.0.0.1", port)
        self._ready = threading.Event()
        self._server: Server | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Return when it listens."""
        self._thread.start()
        assert self._ready.wait(60), "the server did not start"

    def stop(self) -> None:
        """Return when it has ended."""
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(15)
        self._listener.close()
        assert not self._thread.is_alive(), "the server did not stop"

    async def _serve(self) -> None:
        # Made inside the loop: outside of one Gradio makes a loop for each of its locks and closes none.
        self._server = Server(create_web_app(self._app), self._ready.set, self._app.settings.limits)
        await self._server.serve(sockets=[self._listener])


@contextmanager
def running(app: Any, port: int = 0) -> Iterator[str]:
    """The address of a server that answers with ``app``."""
    server = LiveServer(app, port)
    server.start()
    try:
        yield server.address
    finally:
        server.stop()
