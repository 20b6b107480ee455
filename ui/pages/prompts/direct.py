"""A prompt filled by a person and sent to a model without a search and without checked citations.

It is answered, traced and stopped like a question; see ``rag.answering.assistant``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from rag.answering.answer_stream import AnswerStream
from rag.answering.assistant import Pipeline
from rag.errors import PromptError, prompt_errors
from rag.evaluation.report_rendering import shortened
from rag.types import Answer, Ask

if TYPE_CHECKING:
    from prompts.draft import PromptDraft
    from rag.evaluation.variants import Variant
    from ui.app.models import Models
    from ui.app.releases import Releases

LONGEST_TITLE = 200


def run_prompt(
    releases: Releases,
    models: Models,
    variant: Variant,
    values: Mapping[str, str],
    draft: PromptDraft | None = None,
) -> AnswerStream:
    """Fill the prompt of a variant and let its model answer.

    Args:
        values: Exactly one for each variable of the prompt.
        draft: An unsaved prompt in place of that of the variant.

    Returns:
        The answer; an error that a person can fix, such as a model that cannot be reached, is a ``Done`` with the
        status ``failed``.
    """
    assistant = replace(
        releases.assistant(gate=releases.gate),
        pipeline=lambda _: _pipeline(releases, models, variant, values, draft),
    )
    return assistant.start(Ask(_title(values), purpose="lab"))


def _title(values: Mapping[str, str]) -> str:
    """Return the title of the trace, in place of a question."""
    return shortened(" · ".join(f"{name}: {text}" for name, text in values.items()), LONGEST_TITLE)


def _pipeline(
    releases: Releases,
    models: Models,
    variant: Variant,
    values: Mapping[str, str],
    draft: PromptDraft | None,
) -> Pipeline:
    from langchain_core.messages import convert_to_messages

    from rag.answering.prompt_chain import build_prompt_chain
    from rag.answering.release import Release
    from rag.models.chat_models import EXTRACTIVE
    from rag.models.decoding_support import unsupported

    resolved = releases.resolve(variant, draft)
    settings, prompt = resolved.settings, resolved.prompt
    if settings.model == EXTRACTIVE:
        raise PromptError(
            f"The model must be generative: the extractive reader only quotes, and cannot answer {prompt.label}.",
            fix="Choose another model: `smollm2`, `local:PATH-OR-NAME` or `openai:NAME`.",
        )
    with prompt_errors("Give a value to each variable of the prompt."):
        messages = convert_to_messages([message.model_dump() for message in prompt.render(values)])
    release = replace(Release.of(settings, prompt), adapter=models.adapter(settings))
    releases.keep(release, draft)
    model = models.language_model(settings)
    frame = Answer(
        "",
        "answered",
        prompt=prompt.label,
        release=release.name,
        model=settings.model,
        unsupported=unsupported(settings),
    )

    return Pipeline(release, build_prompt_chain(messages, prompt.sha256, model, frame))
