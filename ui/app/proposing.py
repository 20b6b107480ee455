"""Candidate cases for a dataset: the small generator writes questions about passages of a corpus."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from rag.errors import PromptError

if TYPE_CHECKING:
    from ui.wiring import Workbench

# Candidates that are kept at a time: what was written before a Ctrl-C stays.
KEPT = 5
# A question has some twenty tokens.
MOST_TOKENS = 64


def propose_cases(bench: Workbench, dataset: str, corpus: str, count: int, seed: int = 0) -> int:
    """Have questions written until so many are new, or the passages are used up.

    Args:
        dataset: For which they wait.
        corpus: Whose passages they are about.
        count: How many are wanted.
        seed: Equal seeds draw equal passages.

    Returns:
        How many are new.

    Raises:
        RagsmithError: The corpus or the generator is missing.
    """
    from rag.evaluation.candidates import CandidateStore, draw_passages, propose

    store = CandidateStore(bench.engine)
    proposed = propose(draw_passages(bench.engine, bench.index(corpus).id, seed), question_writer(bench))
    new = 0
    while new < count and (part := list(islice(proposed, min(count - new, KEPT)))):
        new += store.put(dataset, part)
    return new


def question_writer(bench: Workbench) -> Callable[[str], str]:
    """Writes a question that a sentence answers."""
    from prompts import PromptTemplateError
    from rag.models.generator.generator_chat import GeneratorChatModel

    prompt = bench.prompt("write-question")
    model = GeneratorChatModel(generator=bench.generator, max_tokens=MOST_TOKENS)

    def write(sentence: str) -> str:
        try:
            messages = prompt.render({"text": sentence})
        except PromptTemplateError as error:
            raise PromptError(str(error), fix="Compare it with the shipped prompt write-question@1.") from error
        return str(model.invoke([(message.role, message.content) for message in messages]).text)

    return write
