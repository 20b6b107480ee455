"""Candidate cases for a dataset: questions that the small generator writes about passages of a corpus."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from rag.errors import prompt_errors

if TYPE_CHECKING:
    from prompts import PromptTemplate
    from rag.models.generator.generator_decoding import Generator
    from ui.app.stores import Stores

BATCH = 5
"""Candidates that are saved together; Ctrl-C loses no more than these."""
MAX_TOKENS = 64
"""A question has about twenty tokens."""


def propose_cases(
    stores: Stores, generator: Generator, dataset: str, corpus: str, count: int, seed: int = 0
) -> int:
    """Write questions until ``count`` of them are new, or all passages are used.

    Args:
        stores: The stores with passages, prompts and candidates.
        generator: The model that writes the questions.
        dataset: The dataset that they are proposed for.
        corpus: The corpus whose passages the questions are about.
        count: The number of new questions wanted.
        seed: Equal seeds choose equal passages.

    Returns:
        The number of new questions.

    Raises:
        RagsmithError: The corpus or the prompt is missing.
    """
    from rag.evaluation.candidates import draw_passages, propose

    passages = draw_passages(stores.engine, stores.index(corpus).id, seed)
    proposed = propose(passages, question_writer(stores.prompt("write-question"), generator))
    new = 0
    while new < count and (part := list(islice(proposed, min(count - new, BATCH)))):
        new += stores.candidates.put(dataset, part)
    return new


def question_writer(prompt: PromptTemplate, generator: Generator) -> Callable[[str], str]:
    """Return a function that writes a question answered by a given sentence."""
    from rag.models.generator.generator_chat import GeneratorChatModel

    model = GeneratorChatModel(generator=generator, max_tokens=MAX_TOKENS)

    def write(sentence: str) -> str:
        with prompt_errors("Compare it with the shipped prompt write-question@1."):
            messages = prompt.render({"text": sentence})
        return str(model.invoke([(message.role, message.content) for message in messages]).text)

    return write
