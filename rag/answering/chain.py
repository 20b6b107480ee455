"""The chain: from a question to a checked answer.

    question + history
      → condense   a follow-up becomes a standalone question
      → retrieve   passages, from both sides of the index
      → read       the sentences that answer, if the prompt is given sentences
      → prompt     the template of the release, truncated to the token budget
      → generate   streamed, by any chat model
      → ground     citations and claims checked against the passages; no support, no answer

Each arrow is a runnable with a name, and a span in the trace: its input is what the step reads, its output what
the step adds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from rag.answering.steps import Draft, PromptInput, Retrieval, Search, Steps
from rag.types import Answer, Ask

ROOT = "answer"

In = TypeVar("In")
Out = TypeVar("Out")


def build_chain(steps: Steps) -> Runnable[Ask, Answer]:
    """Compose the steps."""
    condense = named("condense", steps.condense)
    retrieve = named("retrieve", steps.retrieve)
    read = named("read", steps.read)
    prompt = named("prompt", steps.prompt)
    generate = named("generate", steps.generate)
    ground = named("ground", steps.ground)

    async def answer(ask: Ask, config: RunnableConfig) -> Answer:
        condensed = await condense.ainvoke(ask, config)
        given = None if ask.hits is None else Retrieval(ask.hits)
        found = given or await retrieve.ainvoke(Search(condensed.standalone, ask.filters), config)
        searched = PromptInput(condensed.standalone, found.hits)
        # A prompt that is given passages has no such step in its trace.
        if steps.ranking is not None:
            searched = replace(searched, reading=await read.ainvoke(searched, config))
        filled = await prompt.ainvoke(searched, config)
        reply = await generate.ainvoke(filled.model_input, config)
        return await ground.ainvoke(Draft(condensed.standalone, filled.hits, reply, searched.lines), config)

    return named(ROOT, answer)


def named(name: str, step: Callable[[In, RunnableConfig], Awaitable[Out]]) -> Runnable[In, Out]:
    """Return a step as a runnable whose span has this name."""
    return RunnableLambda(step, name=name).with_config(run_name=name)
