"""The way of a question, from the words of a person to a checked answer.

    question + history
      → condense   a follow-up becomes a standalone question
      → retrieve   passages, from both sides of the index
      → prompt     the template that the release names, cut to the token budget
      → generate   streamed, by any chat model
      → ground     citations checked against the passages; no support, no answer

Each arrow is a runnable with a name, and a span in the trace.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from rag.types import Answer, Hit, Turn, Usage

if TYPE_CHECKING:
    from rag.answering.steps import Steps

ROOT = "answer"


@dataclass(frozen=True)
class Draft:
    """What the steps hand on: each adds its own part and keeps the others.

    Attributes:
        fixed: What to answer from, in place of what a search would find.
        standalone: From condense.
        hits: From retrieve; from prompt on, those that fit the budget.
        messages: From prompt.
        prompt_sha256: From prompt: of the template's content; the trace has its name and version beside it.
        text, usage: From generate.
        confidence: From generate: how probably the model's own measure says that it answers; None without one.
        spans: From generate: where in the text the answer itself stands, as far as the model knows.
        cut: From generate: whether the token limit ended the model.
        unread: From generate: passages that the model's window had no room for.
    """

    question: str
    history: tuple[Turn, ...] = ()
    fixed: tuple[Hit, ...] | None = None
    standalone: str = ""
    hits: tuple[Hit, ...] = ()
    messages: tuple[BaseMessage, ...] = ()
    prompt_sha256: str = ""
    text: str = ""
    usage: Usage = Usage()
    confidence: float | None = None
    spans: tuple[tuple[int, int], ...] = ()
    cut: bool = False
    unread: int = 0


def build_chain(steps: Steps) -> Runnable[Draft, Answer]:
    """Compose the steps."""
    chain: Runnable[Any, Any] = (
        _named("condense", steps.condense)
        | _named("retrieve", steps.retrieve)
        | _named("prompt", steps.prompt)
        | _named("generate", steps.generate)
        | _named("ground", steps.ground)
    )
    return chain.with_config(run_name=ROOT)


def _named(name: str, step: Callable[[Draft, RunnableConfig], Awaitable[Draft | Answer]]) -> Runnable[Draft, Any]:
    return RunnableLambda(step, name=name).with_config(run_name=name)


# What a step reads and what it adds: a span shows these parts and not the whole draft.
_READS: dict[str, tuple[str, ...]] = {
    ROOT: ("question", "history"),
    "condense": ("question", "history"),
    "retrieve": ("standalone",),
    "prompt": ("question", "standalone", "hits"),
    "generate": ("messages",),
    "ground": ("text", "hits"),
}
_ADDS: dict[str, tuple[str, ...]] = {
    "condense": ("standalone",),
    "retrieve": ("hits",),
    "prompt": ("prompt_sha256", "messages", "hits"),
    "generate": ("text", "usage", "confidence", "spans", "cut", "unread"),
}


def part_of(name: str, side: Literal["input", "output"], value: object) -> object:
    """The part of a run's input or output that its span shows.

    Args:
        name: The run's name.
        side: Which of the two.
        value: What LangChain hands over, a ``Draft`` between the steps.
    """
    shown = (_READS if side == "input" else _ADDS).get(name)
    if shown is None or not isinstance(value, Draft):
        return value
    return {field.name: getattr(value, field.name) for field in fields(value) if field.name in shown}
