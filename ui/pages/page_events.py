"""Options, errors and threads of the events of all tabs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from functools import wraps
from html import escape
from typing import Any, ParamSpec

import gradio as gr

from rag.errors import RagsmithError
from rag.redaction import redact
from ui.app.log_file import SHOWN

P = ParamSpec("P")

log = logging.getLogger(__name__)

# The script of the page puts what was clicked in place of the first input.
BRIDGED = "(_value, ...rest) => [window.ragsmith.value, ...rest]"


def addressed(view: str) -> str:
    """Return the script that makes the text of a hidden component the address of a view.

    Args:
        view: Id of the innermost tab.
    """
    return f"(query) => window.ragsmith.address({json.dumps(view)}, query)"


QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
"""Options of every event: no spinner over what is shown already, and no entry in Gradio's own API.

Gradio reports hidden progress all the same, for each event to every component that an earlier event wrote to. With
hundreds of components that takes longer than the event itself; an empty ``show_progress_on`` avoids it.
"""


Updates = AsyncIterator[dict[Any, Any]]
"""Yielded by handlers that work for a while.

A handler that yields nothing empties its outputs, so it yields a skip where nothing changes. The browser merges
the difference between two updates into the earlier one, which a slow page may not have shown yet: every update
repeats the properties that stay.
"""


def as_text(message: str) -> str:
    """Return a message for Gradio, which would render the HTML of a link or a file's name that it quotes."""
    return escape(message, quote=False)


def show_info(message: str, seconds: float = 10) -> None:
    """Show a message that something has been done."""
    gr.Info(as_text(message), title="", duration=seconds)


def show_warning(message: str) -> None:
    """Show a message that something is wrong or was not done."""
    gr.Warning(as_text(message), title="")


def warn(error: Exception) -> None:
    """Show an error as a warning of one sentence."""
    show_warning(error_message(error))


def error_message(error: Exception) -> str:
    """Describe an error in one sentence; the traceback of a bug of ours goes to the log."""
    if isinstance(error, RagsmithError):
        return redact(str(error))
    log.error("An event of the page failed", exc_info=error)
    return f"This is a bug in ragsmith ({type(error).__name__}); its traceback is in {SHOWN}."


def show_errors(handler: Callable[P, Any]) -> Callable[P, Any]:
    """Decorate a handler so that an error becomes a warning and leaves the page as it is."""

    @wraps(handler)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - no traceback may reach the page
            warn(error)
            return gr.skip()

    return guarded


async def in_thread(work: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
    """Run what touches the database outside the loop: a locked database would block every other answer."""
    return await asyncio.to_thread(work, *args, **kwargs)
