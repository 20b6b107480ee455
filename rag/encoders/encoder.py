"""What every encoder can do."""

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
    """What is known of an encoder without running it.

    Attributes:
        name: As the settings name it.
        sha256: Of the weights, hexadecimal: two encoders with the same weights make the same index.
        dimensions: Length of a vector.
        max_tokens: Tokens that are read of a text, the special ones included; the rest is cut off.
    """

    name: str
    sha256: str
    dimensions: int
    max_tokens: int


class Encoder(Protocol):
    """Turns texts into vectors of unit length, so that a dot product is a cosine."""

    @property
    def card(self) -> EncoderCard:
        """What it is."""
        ...

    @property
    def runtime(self) -> str:
        """What carries it, as ``OpenVINO bf16``."""
        ...

    @property
    def notice(self) -> str:
        """Why it runs slower than it could, in one sentence; empty when it does not."""
        ...

    @property
    def tokens(self) -> TokenCounter:
        """Its own tokenizer, for measuring texts."""
        ...

    def embed(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Embed texts as exactly as the runtime can; safe to call from several threads.

        Args:
            texts: Any number of them, in any order; equal texts are computed once.
            on_progress: Called with the number of texts finished since the last call.

        Returns:
            Shape ``(len(texts), dimensions)``, rows of unit length.
        """
        ...

    def embed_passages(
        self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """The same for passages that go into an index: as fast as a cosine of 0.99 to float32 allows."""
        ...
