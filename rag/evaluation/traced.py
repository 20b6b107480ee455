"""Cases from traces, so that a question that went wrong becomes a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    """Build a case from the question of a trace and the turns before it, without its answer.

    Args:
        trace: A trace with its spans; its texts are clipped and their secrets masked.
        answers: Reference answers.
        sources: Sources of the answer; by default those that the answer cites, unless it must be refused.
        must_refuse: Whether the documents do not answer it.
        notes: Free text.

    Raises:
        DatasetError: The trace has no question, or the values are not a valid case.
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
        raise DatasetError(f"The trace {trace.id} cannot become a case: {why(error)}.") from error


def replayed_cases(traces: Iterable[Trace]) -> tuple[Case, ...]:
    """Build a case from every distinct question of traces, in their order, to answer all of them again.

    What people said of an answer is kept: a correction is the reference answer, and after a thumbs-up the cited
    sources are. Nothing else is known to be right.

    Raises:
        DatasetError: A trace has no question.
    """
    cases: dict[str, Case] = {}
    for trace in traces:
        said = trace.feedback
        case = case_of_trace(trace, answers=(said.correction,) if said and said.correction else ())
        if said is None or said.rating != "up":
            case = case.model_copy(update={"sources": ()})
        cases.setdefault(case.id, case)
    return tuple(cases.values())


def _history(root: Span | None) -> tuple[Turn, ...]:
    asked = root.input if root else None
    turns = asked.get("history") if isinstance(asked, dict) else None
    return tuple(
        Turn(str(turn.get("question", "")), str(turn.get("answer", "")))
        for turn in (turns if isinstance(turns, list) else [])
        if isinstance(turn, dict)
    )


def _cited(root: Span) -> tuple[str, ...]:
    """Return the distinct sources of the cited passages, in the order of the citations."""
    output: Any = root.output
    citations = output.get("citations") if isinstance(output, dict) else None
    found = []
    for citation in citations if isinstance(citations, list) else []:
        hit = citation.get("hit") if isinstance(citation, Mapping) else None
        passage = hit.get("passage") if isinstance(hit, Mapping) else None
        if isinstance(passage, Mapping) and isinstance(passage.get("name"), str):
            page = passage.get("page")
            found.append(source_name(passage["name"], page if isinstance(page, int) else None))
    return tuple(dict.fromkeys(found))
