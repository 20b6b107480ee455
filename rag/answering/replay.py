"""What a stored trace says of its question, its passages and its settings, to ask it again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from rag.answering.release import Release
from rag.errors import ReplayError
from rag.masking import MARKS
from rag.redaction import JSON
from rag.tracing.span_json import is_truncated
from rag.tracing.trace_store import Span, Trace
from rag.types import STEPS, Answer, Ask, Hit

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# The sections of a release whose fields a variant changes by their dotted names.
_SECTIONS = ("retrieval", "decoding", "answer", "grounding")
# Fields of outputs that differ between equal answers, or that only name a part of the release.
_ASIDE = frozenset("id document_id source trace_id latency_s usage cost_usd prompt release model".split())
# Scores are computed in parallel, so their last digits may differ.
_DIGITS = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplayedQuestion:
    """The question of a trace, ready to be asked again.

    Attributes:
        ask: The question with its history, filters and fixed passages.
        notes: Sentences about parts of it that the trace does not have as they were.
    """

    ask: Ask
    notes: tuple[str, ...] = ()


def question_of(trace: Trace) -> ReplayedQuestion:
    """Rebuild the question of a trace.

    Raises:
        ReplayError: It was truncated, or the trace is none of a question to documents.
    """
    asked = _root_of(trace)
    steps = {span.name for span in trace.spans}
    if "prompt" in steps and "condense" not in steps:
        raise ReplayError(
            f"The trace {trace.id} cannot be replayed: its prompt was filled by hand and sent without a search.",
            fix="Fill the prompt again in the lab.",
        )
    notes: list[str] = []
    given: Mapping[str, JSON] = asked.input if asked and isinstance(asked.input, dict) else {}
    if not given:
        given = {"question": trace.question}
        notes.append("The trace has no first step, so earlier turns and filters are unknown.")
    ask = _read_ask(trace, given)
    if not ask.question.strip() or is_truncated(ask.question):
        why = "was truncated" if ask.question.strip() else "was not stored"
        raise ReplayError(f"The trace {trace.id} cannot be replayed: its question {why}.", fix="Ask it again.")
    if any(is_truncated(text) for turn in ask.history for text in (turn.question, turn.answer)):
        notes.append("An earlier turn was truncated.")
    if ask.hits is not None and any(is_truncated(hit.passage.text) for hit in ask.hits):
        raise ReplayError(
            f"The trace {trace.id} cannot be replayed: its fixed passages were truncated.", fix="Ask it again."
        )
    texts = [ask.question, *(text for turn in ask.history for text in (turn.question, turn.answer))]
    if marks := [mark for mark in MARKS.values() if any(mark in text for text in texts)]:
        notes.append(
            "Personal data or a secret of the question or of an earlier turn was masked, so "
            f"{' and '.join(marks)} {'is' if len(marks) == 1 else 'are'} asked in its place."
        )
    wanted = replace(
        ask,
        corpus=trace.corpus or ask.corpus,
        conversation_id=None,
        paced=False,
        replay_of=trace.id,
        purpose="lab",
    )
    return ReplayedQuestion(wanted, tuple(notes))


def passages_of(trace: Trace) -> tuple[Hit, ...]:
    """Return the passages that the trace has, best first: those that were found, or were fixed.

    Raises:
        ReplayError: It has none, or not the whole of them.
    """
    stored: Any = None
    for span in trace.spans:
        if span.name == "retrieve" and isinstance(span.output, dict):
            stored = span.output.get("hits")
    root = _root_of(trace)
    if stored is None and root and isinstance(root.input, dict):
        stored = root.input.get("hits")
    try:
        hits = _hits_schema().validate_python(stored) if isinstance(stored, list) else None
    except ValidationError as error:
        raise ReplayError(
            f"The passages of the trace {trace.id} cannot be read.", fix="Search again instead of keeping them."
        ) from error
    if hits is None or any(is_truncated(hit.passage.text) for hit in hits):
        problem = "no passages" if hits is None else "not the whole text of its passages"
        raise ReplayError(f"The trace {trace.id} has {problem}.", fix="Search again instead of keeping them.")
    return hits


def answer_of(trace: Trace) -> Answer:
    """Return the answer of a trace as it was shown; without its sources where they were not stored whole."""
    from rag.answering.conversation_store import answer_schema

    root = _root_of(trace)
    known: dict[str, Any] = {"trace_id": trace.id, "latency_s": trace.latency_s or 0.0}
    known |= {"cost_usd": trace.cost_usd, "prompt": trace.prompt, "release": trace.release, "model": trace.model}
    if root and isinstance(root.output, dict):
        try:
            return replace(answer_schema().validate_python(root.output), **known)
        except ValidationError as error:
            # Another version stored it in a different form; at least the text can be shown.
            _log.debug("The answer of trace %s is shown without its sources: %s", trace.id, error)
    status: Any = {"abstained": "abstained", "ok": "answered", "cancelled": "cancelled"}.get(
        trace.status, "failed"
    )
    return Answer(trace.answer, status, error=trace.error, **known)


def settings_of(release: Release) -> dict[str, JSON]:
    """Return the settings of a release by their dotted names, as a variant changes them."""
    changes: dict[str, JSON] = {"model": release.model, "prompt": release.prompt}
    for section in _SECTIONS:
        values: BaseModel = getattr(release, section)
        changes |= {f"{section}.{name}": value for name, value in values.model_dump(mode="json").items()}
    return changes


def changed_steps(before: Trace, after: Trace) -> tuple[str, ...]:
    """Return the steps whose results differ, in the order of the chain.

    Times, costs, ids and the names of releases do not count, and scores only to four digits.
    """
    old, new = _results(before), _results(after)
    return tuple(step for step in STEPS if old.get(step) != new.get(step))


def _results(trace: Trace) -> dict[str, Any]:
    found: dict[str, Any] = {span.name: _essence(span.output) for span in trace.spans if span.name in STEPS}
    root = _root_of(trace)
    fixed = root.input.get("hits") if root and isinstance(root.input, dict) else None
    # Fixed passages are the same result as a search that finds them, whatever that left out.
    if isinstance(searched := found.get("retrieve"), dict):
        found["retrieve"] = searched.get("hits")
    return {"retrieve": _essence(fixed)} | found if fixed else found


def _essence(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, list):
        return [_essence(item) for item in value]
    if isinstance(value, dict):
        return {name: _essence(item) for name, item in value.items() if name not in _ASIDE}
    return value


def _root_of(trace: Trace) -> Span | None:
    return next((span for span in trace.spans if span.parent_id is None), None)


def _read_ask(trace: Trace, given: Mapping[str, JSON]) -> Ask:
    try:
        return _ask_schema().validate_python(given)
    except ValidationError as error:
        truncated = any(is_truncated(text) for text in _texts(given))
        why = "its question was truncated" if truncated else "its question cannot be read"
        raise ReplayError(f"The trace {trace.id} cannot be replayed: {why}.", fix="Ask it again.") from error


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    parts: Sequence[Any] = ()
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list):
        parts = value
    for part in parts:
        yield from _texts(part)


@cache
def _ask_schema() -> TypeAdapter[Ask]:
    from pydantic import TypeAdapter

    return TypeAdapter(Ask)


@cache
def _hits_schema() -> TypeAdapter[tuple[Hit, ...]]:
    from pydantic import TypeAdapter

    return TypeAdapter(tuple[Hit, ...])
