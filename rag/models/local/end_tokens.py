"""The tokens that end an answer of a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag.models.local.local_files import read_json


def end_tokens(configured: int | Sequence[int] | None, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer: those of the generation configuration, and the tokenizer's own."""
    named = [configured] if isinstance(configured, int) else [*(configured or ())]
    return frozenset(token for token in (*named, tokenizer.eos_token_id) if token is not None)


def stored_end_tokens(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Return the end tokens by the configuration in a model's folder."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file() and (configured := read_json(folder / name).get("eos_token_id")) is not None:
            return end_tokens(configured, tokenizer)
    return end_tokens(None, tokenizer)
