"""Tracing: recording of every step with its input, output, time and cost, and delivery to trackers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler

__all__ = ["trace_langchain"]


def trace_langchain(home: str | Path | None = None) -> BaseCallbackHandler:
    """Return a callback handler that stores the traces of any LangChain code in a workspace.

    Pass it in the configuration of a call: ``chain.invoke(x, config={"callbacks": [trace_langchain()]})``. The
    metadata ``session_id`` (or ``thread_id``) and ``user`` of that configuration are stored, too. Failures of
    storing never reach the chain.

    Args:
        home: The folder of the workspace; by default, the one in the settings.

    Raises:
        SettingsError: The settings or the price list cannot be read.
        WorkspaceError: The workspace cannot be used.
        DatabaseError: Its database cannot be used.
    """
    from rag.tracing.external_tracer import open_tracer

    return open_tracer(home)
