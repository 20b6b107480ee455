"""Generates with CTranslate2: int8 on the processor, from a folder that ``ragsmith tune export`` made."""

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
    """An exported model. Made with ``load_ct2``.

    Args:
        generator: Of CTranslate2.
        tokenizer: Of transformers.
        card: Of the export.
        device: ``cpu`` or ``cuda``.
    """

    # CTranslate2 reads as many tokens at once as the shortest prompt of a batch has, and the rest of the others
    # one by one: prompts of 200 and 600 tokens took six times as long together as one after the other.
    spread: int | None = 8
    # A thread of CTranslate2 takes the seed that is set before it draws for the first time, and none later.
    seeds = False

    def __init__(self, generator: Any, tokenizer: Any, card: ExportCard, device: str) -> None:
        self.runtime = f"CTranslate2 on {device}, {card.quantization}"
        self.ends = frozenset(card.end_tokens)
        self.window = card.window
        self._generator = generator
        self._tokenizer = tokenizer

    def run(self, rows: Sequence[Row]) -> None:
        """Generate for all rows; it ends as soon as no row wants a further token.

        A prompt that is being read is read to its end, also when nobody waits for it any more.
        """
        # CTranslate2 lets go of the callback in a thread of its own, and a moment later: were it the last to know
        # the rows, the generator behind them would end in that thread and wait for itself, which aborts.
        known = list(rows)
        try:
            self._generator.generate_batch(
                [self._tokenizer.convert_ids_to_tokens(list(row.request.prompt)) for row in rows],
                max_length=max(row.request.max_tokens for row in rows),
                include_prompt_in_result=False,
                end_token=sorted(self.ends),
                return_end_token=True,
                callback=lambda step: known[step.batch_id].take(step.token_id),
                **self._configured(rows[0].request.sampling),
            )
        finally:
            known.clear()
        for row in rows:
            row.finish("length")

    def close(self) -> None:
        """Let go of the memory."""
        self._generator.unload_model()

    def _configured(self, sampling: Sampling) -> dict[str, Any]:
        penalty = 1.0 if sampling.repetition_penalty is None else sampling.repetition_penalty
        if not sampling.drawn:
            return {"repetition_penalty": penalty}
        # 0 candidates means all of them, 1 the most probable one; more than there are is refused.
        few = sampling.top_k is not None and sampling.top_k < len(self._tokenizer)
        return {
            "repetition_penalty": penalty,
            "sampling_temperature": sampling.temperature,
            "sampling_topk": sampling.top_k if few else 0,
            "sampling_topp": 1.0 if sampling.top_p is None else sampling.top_p,
        }


def load_ct2(files: LocalFiles, device: str, tokenizer: Any, card: ExportCard) -> CT2Backend:
    """Load an export that was compared with its card.

    Args:
        files: Its folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        tokenizer: Of transformers, from the same folder.
        card: From the same folder.

    Raises:
        ModelUnavailable: The device is not there, or CTranslate2 does not take the files.
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
            fix="Make it again with `ragsmith tune export MODEL --to FOLDER`.",
        ) from error
    return CT2Backend(generator, tokenizer, card, chosen)


def choose_ct2_device(device: str) -> str:
    """``cuda`` where it is there and wanted, else ``cpu``.

    Raises:
        ModelUnavailable: The device that is demanded is not there.
    """
    import ctranslate2

    found = ctranslate2.get_cuda_device_count() > 0
    if device == "mps" or (device == "cuda" and not found):
        raise ModelUnavailable(
            f"local.device is {device}, and CTranslate2 cannot use it here.", fix="Set local.device to auto."
        )
    return "cuda" if found and device != "cpu" else "cpu"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
