"""Token counts and offsets, by the encoder's own tokenizer, and which scripts it knows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

# Share of a text's letters from which it counts as written in another script, or as known.
_MOST = 0.5
# A character of these is a word or nearly one, so that a token of one letter is known.
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


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

    def knows(self, text: str) -> bool:
        """Whether the encoder can know the words of a text by its script.

        Words of Latin letters are always known. In another script, an encoder that was not trained on it has
        unknown tokens, or one for every letter, so that similarities mean nothing.
        """
        letters = sum(map(str.isalpha, text))
        if sum(_is_foreign(letter) for letter in text) < max(_MOST * letters, 1):
            return True
        found = self._tokenizer.encode(text, add_special_tokens=False)
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        tokens = zip(found.tokens, found.offsets, strict=True)
        parts = (text[start:end] for token, (start, end) in tokens if token != unknown)
        known = sum(len(part) for part in parts if len(part) > 1 or _IDEOGRAPH.match(part))
        return known >= _MOST * letters


def _is_foreign(character: str) -> bool:
    return character.isalpha() and not unicodedata.name(character, "").startswith("LATIN")
