"""Encoder on torch, for GPUs and without OpenVINO."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rag.encoders.encoder import EncoderCard
from rag.encoders.encoder_files import ModelFiles
from rag.encoders.encoder_tokens import TokenCounter
from rag.encoders.own_code import FIX, needs_own_code, refusal_of
from rag.errors import EncoderError, first_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GPU_BATCH = 128


class TorchEncoder:
    """An unconverted sentence-transformers model.

    Args:
        files: The model's files; their hash is checked before they are loaded.
        device: ``cpu`` or ``cuda``.
        precision: ``bf16`` or ``f32``.
        batch_size: Texts per batch on the CPU.
        notice: See ``Encoder.notice``.

    Raises:
        EncoderError: The weights are not the expected ones, or the model cannot be loaded.
    """

    def __init__(
        self, files: ModelFiles, *, device: str, precision: str, batch_size: int, notice: str = ""
    ) -> None:
        sha256 = files.sha256()
        import torch
        from sentence_transformers import SentenceTransformer

        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        try:
            self._model = SentenceTransformer(
                str(files.folder),
                device=device,
                model_kwargs={"dtype": dtype},
                local_files_only=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, RuntimeError) as error:
            if needs_own_code(error):
                raise EncoderError(refusal_of(files.folder), fix=FIX) from error
            raise EncoderError(
                f"The encoder in {files.folder} cannot be loaded: {first_line(error)}.",
                fix="Point encoder.model at a sentence-transformers model.",
            ) from error
        dimensions = self._model.get_embedding_dimension()
        limit = self._model.max_seq_length
        self.card = EncoderCard(files.name, sha256, int(dimensions or 0), int(limit or 512))
        self.runtime = f"torch {precision} on {device}"
        self.notice = notice
        self.tokens = TokenCounter(files.folder / "tokenizer.json")
        self._batch_size = GPU_BATCH if device == "cuda" else batch_size
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Embed texts; see ``rag.encoders.encoder.Encoder.embed``."""
        import numpy as np

        with self._lock:
            vectors = self._model.encode(
                list(texts),
                batch_size=self._batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        if on_progress:
            on_progress(len(texts))
        return np.asarray(vectors, np.float32).reshape(len(texts), self.card.dimensions)

    def embed_passages(
        self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Embed passages like any texts, since torch has only one form of the model."""
        return self.embed(texts, on_progress)
