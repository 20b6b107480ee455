"""Converted tuned models: a tokenizer, and a graph that is compiled at first use."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rag.encoders.adapters import Adapter
from rag.encoders.compiled_network import CompiledNetwork
from rag.encoders.network_conversion import GRAPH, TOKENIZER
from rag.errors import EncoderError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass
class ConvertedModel:
    """A converted model; safe to use from several threads.

    Attributes:
        folder: The folder written by ``rag.encoders.tuned_conversion``.
        adapter: The adapter it was converted from.
        precision: ``bf16`` or ``f32``; bf16 needs a CPU that supports it.
    """

    folder: Path
    adapter: Adapter
    precision: str
    _network: CompiledNetwork | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tokenizer(self) -> Tokenizer:
        """Return a new instance of the base's tokenizer.

        Raises:
            EncoderError: Its file is damaged.
        """
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(self.folder / TOKENIZER))
        # The library raises a plain `Exception`.
        except Exception as error:
            raise EncoderError(
                f"The converted {self.adapter.card.task} in {self.folder} is damaged: {TOKENIZER} cannot be read.",
                fix="Delete that folder; it is created again at the next start.",
            ) from error

    def network(self) -> CompiledNetwork:
        """Return the compiled graph.

        Raises:
            EncoderError: OpenVINO refuses it.
        """
        with self._lock:
            if self._network is None:
                self._network = CompiledNetwork(self.folder / GRAPH, self.precision)
            return self._network
