"""The encoder interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag.encoders.encoder_tokens import TokenCounter


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """Description of an encoder.

    Attributes:
        name: Its name in the settings.
        sha256: Hexadecimal hash of the weights: encoders with the same weights build the same index.
        dimensions: Length of a vector.
        max_tokens: Maximum tokens of a text, special tokens included; longer texts are truncated.
    """

    name: str
    sha256: str
    dimensions: int
    max_tokens: int


class Encoder(Protocol):
    """Embeds texts as vectors of unit length, so that a dot product is a cosine."""

    @property
    def card(self) -> EncoderCard:
        """Description of the encoder."""
        ...

    @property
    def runtime(self) -> str:
        """Runtime and precision, such as ``OpenVINO bf16``."""
        ...

    @property
    def notice(self) -> str:
        """One sentence on why the encoder is slower than it could be; empty if it is not."""
        ...

    @property
    def tokens(self) -> TokenCounter:
        """The encoder's tokenizer, for measuring texts."""
        ...

    def embed(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Embed texts with full precision; safe to call from several threads.

        Args:
            texts: Any number of texts; equal ones are computed once.
            on_progress: Called with the number of texts finished since the last call.

        Returns:
            Vectors of shape ``(len(texts), dimensions)``, of unit length.
        """
        ...

    def embed_passages(
        self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Embed passages for an index, faster than ``embed``, with a cosine of at least 0.99 to float32."""
        ...
