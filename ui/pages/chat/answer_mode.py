"""Quote or write: which of the two models of the bare machine answers in the chat."""

from __future__ import annotations

from typing import Any

import gradio as gr

from rag.evaluation.variants import Variant
from rag.models.chat_models import EXTRACTIVE
from rag.models.local.shipped_base import find_weights
from rag.settings import SMOLLM2, Settings

QUOTE, WRITE = "quote", "write"
_MODELS = {QUOTE: EXTRACTIVE, WRITE: SMOLLM2}


def offers_modes(settings: Settings) -> bool:
    """Whether both models can answer: a configured language model is not replaced by a switch of the page."""
    return settings.model in _MODELS.values() and find_weights() is not None


def build_mode(settings: Settings) -> Any:
    """Build the switch; hidden where there is nothing to choose."""
    return gr.Radio(
        [("Quote", QUOTE), ("Write", WRITE)],
        value=WRITE if settings.model == SMOLLM2 else QUOTE,
        label="Answers",
        info="Quote sentences, or let the local model write",
        visible=offers_modes(settings),
        elem_id="answer-mode",
    )


def variant_of(mode: str, settings: Settings) -> Variant | None:
    """Return the change of settings that a mode means; None if it is that of the settings."""
    model = _MODELS.get(mode, settings.model)
    if model == settings.model or settings.model not in _MODELS.values():
        return None
    return Variant(name=mode, changes={"model": model})
