"""Training rows from rated answers: replies to learn, and pairs of a correction and the answer it replaces.

The conversation of a row is what the model was given, as its trace has it. So rows fit a training of the model
that answered, and only of that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from finetune.data import chat_rows, preference_rows
from prompts import Message
from prompts.template import Role
from rag.tracing.span_json import is_truncated
from rag.tracing.trace_store import Span, Trace

_ROLES: dict[str, Role] = {"system": "system", "human": "user", "ai": "assistant"}


@dataclass
class FeedbackRows:
    """Lines of training files.

    Attributes:
        answers: Rows for supervised fine-tuning: corrections, and answers with a thumb up.
        pairs: Rows for preferences: a correction is better than the answer that it corrects.
        without_prompt: Answers whose trace does not have all that the model was given.
        by_others: Answers of other models.
        not_accepted: Corrections that a person rejected, or has yet to accept where that is asked for.
    """

    answers: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    without_prompt: int = 0
    by_others: int = 0
    not_accepted: int = 0


def feedback_rows(traces: Iterable[Trace], model: str, *, accepted: bool = False) -> FeedbackRows:
    """Make rows of rated traces; those with a thumb down and no correction say too little.

    Args:
        traces: Traces with their spans.
        model: The model that is to be trained, as its traces name it.
        accepted: Whether only corrections count that a person has accepted, and not those that wait for it.
    """
    rows = FeedbackRows()
    for trace in traces:
        feedback = trace.feedback
        if feedback is None or not (feedback.correction or feedback.rating == "up"):
            continue
        if feedback.review == "rejected" or (accepted and feedback.review == "pending"):
            rows.not_accepted += 1
            continue
        if trace.model != model:
            rows.by_others += 1
            continue
        turns = turns_of(trace)
        written = written_in(trace)
        if not turns or not written:
            rows.without_prompt += 1
            continue
        rows.answers.append(chat_rows.as_line(turns, feedback.correction or written))
        if feedback.correction and feedback.correction.strip() != written.strip():
            rows.pairs.append(preference_rows.as_line(turns, feedback.correction, written))
    return rows


def turns_of(trace: Trace) -> tuple[Message, ...]:
    """Return what the model that answered was given; empty if the trace does not have all of it."""
    span = answering_span(trace)
    given = span.input.get("messages") if span and isinstance(span.input, dict) else None
    turns: list[Message] = []
    for message in given if isinstance(given, list) else []:
        match message:
            case {"role": str(role), "content": str(content)} if role in _ROLES and not is_truncated(content):
                turns.append(Message(role=_ROLES[role], content=content))
            case _:
                return ()
    return tuple(turns) if turns and turns[-1].role != "assistant" else ()


def written_in(trace: Trace) -> str:
    """Return what the model wrote; empty if the trace does not have all of it."""
    span = answering_span(trace)
    output: Any = span.output if span else None
    text = output.get("content") if isinstance(output, dict) else None
    return text if isinstance(text, str) and not is_truncated(text) else ""


def answering_span(trace: Trace) -> Span | None:
    """Return the model's span below the step that generates the answer; the last one, if it was asked again."""
    steps = {span.id for span in trace.spans if span.name == "generate"}
    asked = [span for span in trace.spans if span.kind == "llm" and span.parent_id in steps]
    return asked[-1] if asked else None
