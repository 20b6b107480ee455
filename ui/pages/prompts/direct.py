"""A prompt with values that a person gives, sent to a model as it is: no search, no checked citations.

It is answered, traced and stopped like a question; see ``rag.answering.assistant``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rag.answering.assistant import Ask, Pipeline
from rag.errors import PromptError
from rag.types import Answer, Event, whole

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable, RunnableConfig

    from rag.answering.chain import Draft
    from rag.evaluation.variants import Variant
    from ui.app.models import Models
    from ui.app.releases import Releases

LONGEST_TITLE = 200


def run_prompt(
    releases: Releases, models: Models, variant: Variant, values: Mapping[str, str]
) -> AsyncIterator[Event]:
    """Fill the prompt of a variant and let its model answer.

    Args:
        values: One for each variable of the prompt, no more and no less.

    Returns:
        The events of an answer; a failure that a person can fix is a ``Done`` with the status ``failed``: the
        values do not fit, the model only quotes, or it cannot be reached.
    """
    assistant = replace(
        releases.assistant(gate=releases.gate), pipeline=lambda _: _pipeline(releases, models, variant, values)
    )
    return assistant.answer(Ask(_title(values)))


def _title(values: Mapping[str, str]) -> str:
    """What stands in the list of traces in place of a question."""
    told = " · ".join(f"{name}: {' '.join(text.split())}" for name, text in values.items())
    return told if len(told) <= LONGEST_TITLE else told[: LONGEST_TITLE - 1] + "…"


def _pipeline(releases: Releases, models: Models, variant: Variant, values: Mapping[str, str]) -> Pipeline:
    from langchain_core.messages import convert_to_messages
    from langchain_core.runnables import RunnableLambda

    from prompts import PromptTemplateError
    from rag.answering.chain import ROOT
    from rag.answering.release import Release
    from rag.models.chat_models import EMBEDDED
    from rag.models.decoding_support import unsupported
    from rag.models.replies import reply_of, unread_of, usage_of, was_cut

    resolved = releases.resolve(variant)
    settings, prompt = resolved.settings, resolved.prompt
    if settings.model == EMBEDDED:
        raise PromptError(
            f"The embedded reader quotes passages, and cannot answer the prompt {prompt.label}.",
            fix="Choose another model: `generator`, `local:PATH-OR-NAME` or `openai:NAME`.",
        )
    try:
        messages = convert_to_messages([message.model_dump() for message in prompt.render(values)])
    except PromptTemplateError as error:
        raise PromptError(str(error), fix="Give a value to each variable of the prompt.") from error
    release = Release(
        corpus="",
        fingerprint="",
        prompt=prompt.label,
        prompt_sha256=prompt.sha256,
        model=settings.model,
        retrieval=settings.retrieval,
        decoding=settings.decoding,
        answer=settings.answer,
        grounding=settings.grounding,
        adapter=models.adapter(settings),
    )
    model = models.language_model(settings)
    frame = Answer(
        "",
        "answered",
        prompt=prompt.label,
        release=release.name,
        model=settings.model,
        unsupported=unsupported(settings),
    )

    async def fill(draft: Draft) -> Draft:
        return replace(draft, messages=tuple(messages), prompt_sha256=prompt.sha256)

    async def generate(draft: Draft, config: RunnableConfig) -> Answer:
        reply = await reply_of(model, draft.messages, config)
        return replace(
            frame,
            text=whole(reply.text).strip(),
            usage=usage_of(reply),
            cut=was_cut(reply),
            unread=unread_of(reply),
        )

    chain: Runnable[Any, Any] = RunnableLambda(fill, name="prompt").with_config(
        run_name="prompt"
    ) | RunnableLambda(generate, name="generate").with_config(run_name="generate")
    return Pipeline(release, chain.with_config(run_name=ROOT))
