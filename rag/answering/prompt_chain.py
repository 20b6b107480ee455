"""A chain that sends a filled prompt to a model, without retrieval and grounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rag.answering.chain import ROOT, named
from rag.answering.steps import FilledPrompt
from rag.models.replies import ModelInput, Reply, reply_to
from rag.types import Answer, Ask

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable, RunnableConfig


def build_prompt_chain(
    messages: Sequence[BaseMessage], prompt_sha256: str, model: BaseChatModel, frame: Answer
) -> Runnable[Ask, Answer]:
    """Compose the two steps.

    Args:
        messages: The filled prompt.
        prompt_sha256: Hash of its template.
        frame: The answer without the reply.
    """

    async def fill(ask: Ask, config: RunnableConfig) -> FilledPrompt:
        return FilledPrompt(prompt_sha256, tuple(messages))

    async def write(prompt: ModelInput, config: RunnableConfig) -> Reply:
        return await reply_to(model, prompt, config)

    prompt, generate = named("prompt", fill), named("generate", write)

    async def answer(ask: Ask, config: RunnableConfig) -> Answer:
        filled = await prompt.ainvoke(ask, config)
        reply = await generate.ainvoke(filled.model_input, config)
        return replace(
            frame,
            text=reply.text.strip(),
            usage=reply.usage,
            cut=reply.truncated,
            filtered=reply.filtered,
        )

    return named(ROOT, answer)
