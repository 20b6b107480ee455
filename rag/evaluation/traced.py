"""A case from an answered question: what went wrong once becomes a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rag.errors import DatasetError
from rag.evaluation.cases import Case, make_id, source_name, why
from rag.tracing.trace_store import Span, Trace
from rag.types import Turn


def case_of_trace(
    trace: Trace,
    *,
    answers: Sequence[str] = (),
    sources: Sequence[str] = (),
    must_refuse: bool = False,
    notes: str = "",
) -> Case:
    """The question of a trace as a case, after the turns before it.

    What the assistant answered is not taken for right.

    Args:
        trace: With its spans; a text is as its trace has it, clipped and with secrets masked.
        answers: What is right.
        sources: Where it stands; by default what the answer cites, where it is not to be refused.
        must_refuse: Whether the documents do not answer it.
        notes: Free text.

    Raises:
        DatasetError: The trace has no question, or these do not make a case.
    """
    root = next((span for span in trace.spans if span.parent_id is None), None)
    history = _history(root)
    cited = () if must_refuse or root is None else _cited(root)
    try:
        return Case(
            id=make_id(trace.question, history),
            question=trace.question,
            history=history,
            answers=tuple(answers),
            sources=tuple(sources) or cited,
            must_refuse=must_refuse,
            notes=notes,
        )
    except ValidationError as error:
        raise DatasetError(f"The trace {trace.id} gives no case: {why(error)}.") from error


def _history(root: Span | None) -> tuple[Turn, ...]:
    asked = root.input if root else None
    turns = asked.get("history") if isinstance(asked, dict) else None
    return tuple(
        Turn(str(each.get("question", "")), str(each.get("answer", "")))
        for each in (turns if isinstance(turns, list) else [])
        if isinstance(each, dict)
    )


def _cited(root: Span) -> tuple[str, ...]:
    """The sources of the cited passages, each once, in the order of the citations."""
    told: Any = root.output
    citations = told.get("citations") if isinstance(told, dict) else None
    found = []
    for each in citations if isinstance(citations, list) else []:
        hit = each.get("hit") if isinstance(each, Mapping) else None
        passage = hit.get("passage") if isinstance(hit, Mapping) else None
        if isinstance(passage, Mapping) and isinstance(passage.get("name"), str):
            page = passage.get("page")
            found.append(source_name(passage["name"], page if isinstance(page, int) else None))
    return tuple(dict.fromkeys(found))
