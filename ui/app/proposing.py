"""Candidate cases for a dataset: the small generator writes questions about passages of a corpus."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from rag.errors import prompt_errors

if TYPE_CHECKING:
    from prompts import PromptTemplate
    from rag.models.generator.generator_decoding import Generator
    from ui.app.stores import Stores

# Candidates that are kept at a time: what was written before a Ctrl-C stays.
KEPT = 5
# A question has some twenty tokens.
MOST_TOKENS = 64


def propose_cases(
    stores: Stores, generator: Generator, dataset: str, corpus: str, count: int, seed: int = 0
) -> int:
    """Have questions written until so many are new, or the passages are used up.

    Args:
        stores: Passages, prompts and candidates.
        generator: The model that writes.
        dataset: The dataset that the candidates wait for.
        corpus: The corpus whose passages the questions are about.
        count: How many are wanted.
        seed: Equal seeds draw equal passages.

    Returns:
        How many are new.

    Raises:
        RagsmithError: The corpus or the prompt is missing.
    """
    from rag.evaluation.candidates import CandidateStore, draw_passages, propose

    store = CandidateStore(stores.engine)
    passages = draw_passages(stores.engine, stores.index(corpus).id, seed)
    proposed = propose(passages, question_writer(stores.prompt("write-question"), generator))
    new = 0
    while new < count and (part := list(islice(proposed, min(count - new, KEPT)))):
        new += store.put(dataset, part)
    return new


def question_writer(prompt: PromptTemplate, generator: Generator) -> Callable[[str], str]:
    """Return a function that writes a question which a sentence answers."""
    from rag.models.generator.generator_chat import GeneratorChatModel

    model = GeneratorChatModel(generator=generator, max_tokens=MOST_TOKENS)

    def write(sentence: str) -> str:
        with prompt_errors("Compare it with the shipped prompt write-question@1."):
            messages = prompt.render({"text": sentence})
        return str(model.invoke([(message.role, message.content) for message in messages]).text)

    return write
