"""Generation with CTranslate2, from an int8 export of ``ragsmith tune export``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rag.errors import ModelUnavailable
from rag.models.local.batching import Row
from rag.models.local.export_card import ExportCard
from rag.models.local.local_files import LocalFiles
from rag.models.local.token_sampling import Sampling


class CT2Backend:
    """An exported model; create it with ``load_ct2``.

    Args:
        generator: A CTranslate2 generator.
        tokenizer: A tokenizer of transformers.
        card: The card of the export.
        device: ``cpu`` or ``cuda``.
    """

    # CTranslate2 reads the tokens beyond the shortest prompt of a batch one by one: prompts of 200 and 600 tokens
    # took six times as long together as one after the other.
    spread: int | None = 8
    # A thread of CTranslate2 ignores seeds that are set after it first sampled.
    seeds = False

    def __init__(self, generator: Any, tokenizer: Any, card: ExportCard, device: str) -> None:
        self.runtime = f"CTranslate2 on {device}, {card.quantization}"
        self.ends = frozenset(card.end_tokens)
        self.window = card.window
        self._generator = generator
        self._tokenizer = tokenizer

    def run(self, rows: Sequence[Row]) -> None:
        """Generate for all rows until they are over.

        Reading of a prompt is not interrupted when its row is cancelled.
        """
        # CTranslate2 releases the callback later, in its own thread. If that dropped the last reference to the
        # rows, the generator behind them would be destroyed in that thread, wait for itself and abort.
        callback_rows = list(rows)
        try:
            self._generator.generate_batch(
                [self._tokenizer.convert_ids_to_tokens(list(row.request.prompt)) for row in rows],
                max_length=max(row.request.max_tokens for row in rows),
                include_prompt_in_result=False,
                end_token=sorted(self.ends),
                return_end_token=True,
                callback=lambda step: callback_rows[step.batch_id].take(step.token_id),
                **self._configured(rows[0].request.sampling),
            )
        finally:
            callback_rows.clear()
        for row in rows:
            row.finish("length")

    def close(self) -> None:
        """Release the memory."""
        self._generator.unload_model()

    def _configured(self, sampling: Sampling) -> dict[str, Any]:
        penalty = 1.0 if sampling.repetition_penalty is None else sampling.repetition_penalty
        if not sampling.drawn:
            return {"repetition_penalty": penalty}
        # 0 means no limit; a number beyond the vocabulary is refused.
        few = sampling.top_k is not None and sampling.top_k < len(self._tokenizer)
        return {
            "repetition_penalty": penalty,
            "sampling_temperature": sampling.temperature,
            "sampling_topk": sampling.top_k if few else 0,
            "sampling_topp": 1.0 if sampling.top_p is None else sampling.top_p,
        }


def load_ct2(files: LocalFiles, device: str, tokenizer: Any, card: ExportCard) -> CT2Backend:
    """Load an export that was checked against its card.

    Args:
        files: The export.
        device: ``auto``, ``cpu`` or ``cuda``.
        tokenizer: The tokenizer from its folder.
        card: The card from its folder.

    Raises:
        ModelUnavailable: The device is not available, or CTranslate2 refuses the files.
    """
    import ctranslate2

    chosen = choose_ct2_device(device)
    try:
        generator = ctranslate2.Generator(
            str(files.folder), device=chosen, intra_threads=_cores() if chosen == "cpu" else 0
        )
    except (RuntimeError, ValueError) as error:
        raise ModelUnavailable(
            f"The exported model {files.name} cannot be loaded: {error}.",
            fix="Export it again with `ragsmith tune export MODEL --to FOLDER`.",
        ) from error
    return CT2Backend(generator, tokenizer, card, chosen)


def choose_ct2_device(device: str) -> str:
    """Return ``cuda`` if it is available and allowed, else ``cpu``.

    Raises:
        ModelUnavailable: The requested device is not available.
    """
    import ctranslate2

    found = ctranslate2.get_cuda_device_count() > 0
    if device == "mps" or (device == "cuda" and not found):
        raise ModelUnavailable(
            f"local.device is {device}, but CTranslate2 cannot use it here.", fix="Set local.device to auto."
        )
    return "cuda" if found and device != "cpu" else "cpu"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
