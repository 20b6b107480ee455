"""Support of answer settings by the different kinds of models.

The chain itself applies ``context_tokens`` and ``answer.citations``. The extractive reader supports
``answer.style`` and ``grounding.min_confidence``, also where it reads for another model. Beyond that, these
settings are not supported:

============  ==========================================================================
model         settings under ``decoding``
============  ==========================================================================
extractive    all: it only quotes
local         none
openai        ``top_k``, ``repetition_penalty``: not supported by OpenAI's own server
server        none: other servers refuse or ignore what they do not support
============  ==========================================================================

``json_schema`` is checked after generation (``structured_output``); a server may also constrain generation by it.
"""

from __future__ import annotations

from typing import Literal

from rag.models.chat_models import EXTRACTIVE, runs_here
from rag.settings import DecodingSettings, Settings

ModelKind = Literal["extractive", "local", "openai", "server"]

_READER_ONLY = ("answer.style", "grounding.min_confidence")
_NOT_HONOURED: dict[ModelKind, tuple[str, ...]] = {
    "extractive": tuple(f"decoding.{name}" for name in DecodingSettings.model_fields if name != "context_tokens"),
    "local": _READER_ONLY,
    "openai": ("decoding.top_k", "decoding.repetition_penalty", *_READER_ONLY),
    "server": _READER_ONLY,
}


def kind_of(settings: Settings) -> ModelKind:
    """Return the kind of the configured model, without loading it."""
    if settings.model == EXTRACTIVE:
        return "extractive"
    if runs_here(settings.model):
        return "local"
    return "openai" if settings.openai.base_url is None else "server"


def unsupported(
    settings: Settings, kind: ModelKind | None = None, *, reads_first: bool = False
) -> tuple[str, ...]:
    """Return the settings that differ from their defaults but have no effect on the answer.

    Args:
        settings: The settings.
        kind: Kind of the model, if known.
        reads_first: Whether the reader finds the sentences that the model is given, so that it may refuse
            or be quoted.

    Returns:
        Names such as ``decoding.top_k``, in the order of the settings.
    """
    honoured = _READER_ONLY if reads_first else ()
    names = _NOT_HONOURED[kind or kind_of(settings)]
    return tuple(name for name in names if name not in honoured and _is_set(settings, name))


def without_form(settings: Settings) -> Settings:
    """Return the settings without stop texts and schema, for auxiliary output such as a rewritten follow-up."""
    free = settings.decoding.model_copy(update={"stop": (), "json_schema": None})
    return settings.model_copy(update={"decoding": free})


def _is_set(settings: Settings, name: str) -> bool:
    section, _, field = name.partition(".")
    grounding = settings.grounding
    if name == "grounding.min_confidence" and grounding.min_confidence == grounding.min_support:
        # A prompt version sets both thresholds: models without a probability are checked by support.
        return False
    values = getattr(settings, section)
    return bool(getattr(values, field) != getattr(type(values)(), field))
