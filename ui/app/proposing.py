"""Candidate cases for a dataset: questions that ``smollm2`` writes about passages of a corpus."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from rag.errors import prompt_errors
from rag.settings import SMOLLM2

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from prompts import PromptTemplate
    from rag.settings import Settings
    from ui.app.models import Models
    from ui.app.stores import Stores

BATCH = 5
"""Candidates that are written and saved together; Ctrl-C loses no more than these."""
QUESTIONER = "questioner"
"""The adapter of ``smollm2`` that writes questions."""
MAX_TOKENS = 64
"""A question has about twenty tokens."""


def question_model(models: Models, settings: Settings) -> BaseChatModel:
    """Return the model that writes questions.

    Raises:
        RagsmithError: ``smollm2`` or its adapter is missing, or another model is loaded in this process.
    """
    return models.helper(settings, QUESTIONER, MAX_TOKENS)


def propose_cases(
    stores: Stores, model: BaseChatModel, dataset: str, corpus: str, count: int, seed: int = 0
) -> int:
    """Write questions until ``count`` of them are new, or all passages are used.

    Args:
        stores: The stores with passages, prompts and candidates.
        model: The model that writes the questions.
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
    from rag.tracing.ledger import Expense

    passages = draw_passages(stores.engine, stores.index(corpus).id, seed)
    batch = min(count, BATCH)
    prompt = stores.prompt("write-question")
    proposed = propose(passages, question_writer(prompt, model), batch)
    new = 0
    began = time.monotonic()
    try:
        while new < count and (part := list(islice(proposed, min(count - new, batch)))):
            new += stores.candidates.put(dataset, part)
    finally:
        seconds = time.monotonic() - began
        cost, day = stores.prices.seconds_usd(seconds), stores.prices.checked.isoformat()
        spent = Expense("evaluation", dataset, "propose", SMOLLM2, day, cost, seconds, prompt=prompt.label)
        stores.ledger.add(spent)
    return new


def question_writer(prompt: PromptTemplate, model: BaseChatModel) -> Callable[[list[str]], list[str]]:
    """Return a function that writes for every given sentence a question that it answers."""

    def write(sentences: list[str]) -> list[str]:
        with prompt_errors("Compare it with the shipped prompt write-question@1."):
            filled = [prompt.render({"text": sentence}) for sentence in sentences]
        conversations = [[(message.role, message.content) for message in messages] for messages in filled]
        replies = model.batch(list(conversations), {"max_concurrency": BATCH})
        return [str(reply.text) for reply in replies]

    return write
