"""What the events of every page share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import gradio as gr

from rag.errors import RagsmithError

P = ParamSpec("P")

log = logging.getLogger(__name__)

# What the script of the page hands over stands in place of the first input.
BRIDGED = "(_value, ...rest) => [window.ragsmith.value, ...rest]"

# A hidden text is what the address of the page says from then on.
ADDRESSED = "(query) => window.ragsmith.address(query)"

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of every event: no spinner over what is already there, and no entry in Gradio's own API."""


def warn(error: Exception) -> None:
    """Tell the person what went wrong, in one sentence."""
    gr.Warning(told(error), title="")


def told(error: Exception) -> str:
    """What went wrong, in one sentence; the log has the rest where it is a fault of ours."""
    if isinstance(error, RagsmithError):
        return str(error)
    log.error("An event of the page failed", exc_info=error)
    return f"This is a bug in ragsmith ({type(error).__name__}); its log says more."


def telling(handler: Callable[P, Any]) -> Callable[P, Any]:
    """A handler that shows an error as a warning and leaves the page as it is."""

    @wraps(handler)
    def told_handler(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever fails here must not reach the page as it is
            warn(error)
            return gr.skip()

    return told_handler


async def in_thread(work: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
    """Run what touches the database outside the loop: a locked one would hold up every other answer."""
    return await asyncio.to_thread(work, *args, **kwargs)
