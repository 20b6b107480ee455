"""Which of the settings of an answer the model that writes it honours.

``context_tokens`` and ``answer.citations`` are of no concern to a model: the chain sees to them. ``answer.style``
and ``grounding.min_confidence`` are the embedded reader's. Beside these two, what is not honoured is:

============  =========================================================================================
model         settings under ``decoding``
============  =========================================================================================
embedded      all: it quotes, and writes nothing of its own
generator     ``top_p``, ``top_k``, ``repetition_penalty``; ``json_schema``: it has learned sentences only
transformers  none
ctranslate2   ``seed``: its threads go on with the random numbers that they began with
openai        ``top_k``, ``repetition_penalty``: OpenAI's own server knows neither
server        none: what a server of one's own does not know, it refuses or passes over
============  =========================================================================================

A local model is held to ``json_schema`` once it is done (``structured_output``), a server also while it writes.
"""

from __future__ import annotations

from typing import Literal

from rag.models.chat_models import EMBEDDED, GENERATOR, LOCAL
from rag.models.local.local_files import kind_of_local
from rag.settings import DecodingSettings, Settings

ModelKind = Literal["embedded", "generator", "transformers", "ctranslate2", "openai", "server"]

_READER_ONLY = ("answer.style", "grounding.min_confidence")
_NOT_HONOURED: dict[ModelKind, tuple[str, ...]] = {
    "embedded": tuple(f"decoding.{name}" for name in DecodingSettings.model_fields if name != "context_tokens"),
    "generator": (
        "decoding.top_p",
        "decoding.top_k",
        "decoding.repetition_penalty",
        "decoding.json_schema",
        *_READER_ONLY,
    ),
    "transformers": _READER_ONLY,
    "ctranslate2": ("decoding.seed", *_READER_ONLY),
    "openai": ("decoding.top_k", "decoding.repetition_penalty", *_READER_ONLY),
    "server": _READER_ONLY,
}


def kind_of(settings: Settings) -> ModelKind:
    """What kind of model the settings name, told without loading it.

    Raises:
        ModelUnavailable: The card of an exported model cannot be read.
    """
    if settings.model == EMBEDDED:
        return "embedded"
    if settings.model == GENERATOR:
        return "generator"
    if settings.model.startswith(LOCAL):
        return kind_of_local(settings.model.removeprefix(LOCAL))
    return "openai" if settings.openai.base_url is None else "server"


def unsupported(settings: Settings, kind: ModelKind | None = None) -> tuple[str, ...]:
    """What was set to something else than its default and does not reach the answer.

    Args:
        kind: Of the model, where it is known.

    Returns:
        Names as in ``decoding.top_k``, in the order of the settings.

    Raises:
        ModelUnavailable: The card of an exported model cannot be read.
    """
    return tuple(name for name in _NOT_HONOURED[kind or kind_of(settings)] if _is_set(settings, name))


def without_form(settings: Settings) -> Settings:
    """The same settings for what a model writes beside the answer, such as a follow-up that stands alone.

    The texts that end an answer and the schema that it has to fit are no concern of it.
    """
    free = settings.decoding.model_copy(update={"stop": (), "json_schema": None})
    return settings.model_copy(update={"decoding": free})


def _is_set(settings: Settings, name: str) -> bool:
    section, _, field = name.partition(".")
    grounding = settings.grounding
    if name == "grounding.min_confidence" and grounding.min_confidence == grounding.min_support:
        # A prompt version's threshold is both: whoever knows no probability is held to the support.
        return False
    values = getattr(settings, section)
    return bool(getattr(values, field) != getattr(type(values)(), field))
