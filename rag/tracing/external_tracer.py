"""The tracer of LangChain code that is not ragsmith's.

This module imports LangChain; import it where a chain is called, not at the top of a module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.tracers.schemas import Run

from rag.database import open_database
from rag.masking import Masker
from rag.redaction import secrets_in
from rag.settings import load_settings
from rag.tracing.cost import PriceList, load_prices, read_usage
from rag.tracing.external_spans import MAX_ASKED, short_id
from rag.tracing.external_texts import answer_in, question_in
from rag.tracing.span_json import kept_text
from rag.tracing.trace_masking import masked
from rag.tracing.trace_store import TraceStore
from rag.tracing.trace_types import Status, Trace
from rag.tracing.tracer import TraceTracer, is_cached, reported, unwrap, walk
from rag.types import MaskedKind
from rag.workspace import open_workspace

_DEEPEST = 20
# What frameworks call a conversation.
_SESSIONS = ("session_id", "conversation_id", "thread_id")


class ExternalTracer(TraceTracer):
    """Stores the traces of other chains, of which only the calls of models have a cost."""

    def _frame(self, root: Run, status: Status, error: str = "") -> Trace:
        frame = super()._frame(root, status, error)
        metadata = root.extra.get("metadata") or {}
        models = [_model(run) for run in walk(root) if run.run_type == "llm"]
        return replace(
            frame,
            purpose="external",
            question=frame.question or kept_text(_asked(root)),
            model=frame.model or kept_text(next(filter(None, models), ""), 200),
            conversation_id=next((short_id(str(metadata[name])) for name in _SESSIONS if metadata.get(name)), ""),
            release="",
            prompt="",
            replay_of=None,
        )

    def _trace(self, root: Run) -> Trace:
        trace = super()._trace(root)
        if not trace.answer:
            trace = replace(trace, answer=kept_text(answer_in(trace.spans[0].output)))
        return masked(trace, secrets_in(_asked(root)[:MAX_ASKED]))

    def _costs(self, top: Run, root: Run) -> dict[UUID, float | None]:
        """Compute dollars of the calls of models, and their sums; None if a price or a count is unknown."""
        costs: dict[UUID, float | None] = {}
        asks: set[UUID] = set()
        for run in reversed(list(walk(top))):
            below = [child for child in run.child_runs if child.id in asks]
            if run.run_type == "llm":
                costs[run.id] = _call_usd(run, self._prices)
            else:
                parts = [costs[child.id] for child in below]
                known = [part for part in parts if part is not None]
                costs[run.id] = sum(known) if parts and len(known) == len(parts) else None
            if run.run_type == "llm" or below:
                asks.add(run.id)
        return costs


def open_tracer(home: str | Path | None) -> ExternalTracer:
    """Return a tracer that stores in a workspace; see ``rag.tracing.trace_langchain``."""
    settings = load_settings({"home": None if home is None else str(home)})
    url = settings.database_url
    store = _store(settings.home.resolve(), url.get_secret_value() if url else None, settings.tracing.mask)
    return ExternalTracer(store.finish, load_prices(settings.cost))


@lru_cache(maxsize=8)
def _store(home: Path, url: str | None, mask: tuple[MaskedKind, ...]) -> TraceStore:
    # A program may ask for a handler with every call.
    return TraceStore(open_database(open_workspace(home), url), Masker(mask))


def _call_usd(run: Run, prices: PriceList) -> float | None:
    return 0.0 if is_cached(run) else prices.tokens_usd(_model(run), read_usage(reported(run)))


def _model(run: Run) -> str:
    return str((run.extra.get("metadata") or {}).get("ls_model_name") or "")


def _asked(root: Run) -> str:
    """Return the question with its secrets."""
    return question_in(_plain(unwrap(root.inputs, "input")))


def _plain(value: object, depth: int = _DEEPEST) -> object:
    """Return messages within a value as objects with ``role`` and ``content``."""
    if isinstance(value, BaseMessage):
        return {"role": value.type, "content": value.content}
    if isinstance(value, PromptValue):
        return _plain(value.to_messages(), depth - 1)
    if depth and isinstance(value, Mapping):
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item, depth - 1) for item in value]
    return value
