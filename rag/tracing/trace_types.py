"""A trace, its spans, and what is stored beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rag.redaction import JSON
from rag.tracing.processes import process_identity
from rag.types import Purpose

Status = Literal["running", "ok", "error", "cancelled", "interrupted", "abstained", "filtered"]
Rating = Literal["up", "down"]
Review = Literal["", "pending", "accepted", "rejected"]
"""Whether a person agrees with a thumbs-down and its correction; empty for a thumbs-up, which needs no review."""


@dataclass(frozen=True, slots=True)
class Span:
    """One step of an answer.

    Attributes:
        parent_id: None for the root.
        position: Position among the spans of the trace in order of their start, from 0.
        kind: LangChain's run type: ``chain``, ``llm``, ``retriever``, ``tool`` …
        started, ended: Seconds since the epoch; ``ended`` is None if the step did not end.
        input, output: JSON with masked secrets.
        error: Type and message; empty without an error.
        input_tokens, output_tokens: None if the model did not report them.
        cost_usd: None means unknown.
        first_token_s: Seconds until a model wrote its first token; None if it wrote none or is no model.
        cached_tokens: Those of the input tokens that the server had read before; None if it does not say.
        saved_usd: What the answer of a cache had cost when it was asked; None for other steps.
    """

    id: str
    parent_id: str | None
    position: int
    name: str
    kind: str
    status: Status
    started: float
    ended: float | None = None
    input: JSON = None
    output: JSON = None
    error: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    attributes: Mapping[str, JSON] = field(default_factory=dict)
    first_token_s: float | None = None
    cached_tokens: int | None = None
    saved_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """A rating of an answer.

    Attributes:
        at: Seconds since the epoch.
        correction: The answer as it should have been; empty if nobody wrote it.
        review: Whether the correction was accepted; see ``rag.tracing.reviews``.
        reviewer: The person who decided; empty while nobody has.
    """

    rating: Rating
    comment: str
    at: float
    correction: str = ""
    review: Review = ""
    reviewer: str = ""


@dataclass(frozen=True, slots=True)
class UsedPassage:
    """A passage in the prompt of an answer.

    Attributes:
        passage_id: Its id in the database, where it may have been replaced since.
        rank: Its marker in the answer, from 1.
        cited: Whether the answer cites it.
    """

    passage_id: int
    rank: int
    cited: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """One answered question.

    Attributes:
        started: Seconds since the epoch.
        latency_s: None while it runs.
        question, answer, error: Texts with masked secrets.
        input_tokens, output_tokens: Sums over all model calls; None if a model did not report them.
        cost_usd: None means unknown, and is never shown as 0.
        prompt: ``NAME@VERSION``.
        process: ``process_identity`` of the answering process.
        purpose: What the question was asked for.
        user_name: The user who asked, if known.
        first_token_s: Seconds from the question to the first token of the answer; None without one.
        cached_tokens, saved_usd: Sums over all model calls, as in ``Span``; None if no call has one.
        prices: The day of the price list, ``YYYY-MM-DD``; empty if unknown.
        code: The version of ragsmith; empty for traces of older versions.
        replay_of: Id of the replayed trace, if any.
        tracked: The tracker's run with the trace, or ``off``; None until it was delivered.
        spans: Spans in order of their start; empty in lists.
        passages: The passages in the prompt of a finished answer, by rank; empty in lists.
    """

    id: str
    started: float
    status: Status
    question: str = ""
    answer: str = ""
    error: str = ""
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    corpus: str = ""
    model: str = ""
    prompt: str = ""
    release: str = ""
    conversation_id: str = ""
    process: str = field(default_factory=process_identity)
    purpose: Purpose = "chat"
    user_name: str = ""
    first_token_s: float | None = None
    cached_tokens: int | None = None
    saved_usd: float | None = None
    prices: str = ""
    code: str = ""
    replay_of: str | None = None
    tracked: str | None = None
    spans: tuple[Span, ...] = ()
    passages: tuple[UsedPassage, ...] = ()
    feedback: Feedback | None = None


def rooted_spans(trace: Trace) -> tuple[Span, ...]:
    """Return the spans of a trace, the root first; an interrupted trace has only the steps that were finished."""
    if trace.spans and trace.spans[0].parent_id is None:
        return trace.spans
    root = Span(trace.id, None, 0, "answer", "chain", trace.status, trace.started, input=trace.question)
    return (root, *trace.spans)


@dataclass(frozen=True, slots=True)
class TracePage:
    """A page of a list, newest first; ``total`` counts all matching traces."""

    traces: tuple[Trace, ...]
    total: int
