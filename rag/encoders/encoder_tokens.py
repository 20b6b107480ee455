"""Token counts and offsets, by the encoder's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class TokenCounter:
    """The tokenizer of an encoder without truncation and without special tokens."""

    def __init__(self, tokenizer_file: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of every text."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in found]

    def starts(self, text: str) -> list[int]:
        """Return the start offsets of all tokens, ascending."""
        return [start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets]
