"""What the events of every page share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import wraps
from typing import Any, ParamSpec

import gradio as gr

from rag.errors import RagsmithError
from rag.redaction import redact

P = ParamSpec("P")

log = logging.getLogger(__name__)

# What the script of the page hands over stands in place of the first input.
BRIDGED = "(_value, ...rest) => [window.ragsmith.value, ...rest]"

# A hidden text is what the address of the page says from then on.
ADDRESSED = "(query) => window.ragsmith.address(query)"

QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
"""Of every event: no spinner over what is already there, and no entry in Gradio's own API.

Hidden progress is reported all the same, at each event to every component that any earlier event wrote to: a page
of hundreds spends more on that than on the event. Progress on no component is reported to none.
"""


Updates = AsyncIterator[dict[Any, Any]]
"""What a handler yields that works for a while.

One that yields nothing empties what it was to write to: where nothing is to change it yields a skip. The browser
writes what differs from one update to the next into the earlier one, which a slow page may not have shown yet: a
property that is to stay is said again in each of them.
"""


def warn(error: Exception) -> None:
    """Tell the person what went wrong, in one sentence."""
    gr.Warning(told(error), title="")


def told(error: Exception) -> str:
    """What went wrong, in one sentence; the log has the rest where it is a fault of ours."""
    if isinstance(error, RagsmithError):
        return redact(str(error))
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
