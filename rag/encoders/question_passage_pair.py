"""Tokenization of a question and a passage for tuned models, shared by training and answering.

``[CLS] question [SEP] place [SEP] passage [SEP]``, where the place consists of title and headings above the
passage. A passage that is too long is read in overlapping windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.encoders.compiled_network import padded_width

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

# Tokens of a window, special tokens included. Passages usually have 200 tokens, so that one window suffices.
WINDOW = 320
# Tokens that two windows share, so that an answer at the edge of one is complete in the other.
OVERLAP = 96
MOST_QUESTION = 64
MOST_PLACE = 24


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a passage with the question in front.

    Attributes:
        ids: Token ids, special tokens included.
        second: Index of the first token of the second segment (token type 1), right after the question.
        body: Index of the first token of the passage, whose tokens end before the last one.
        offsets: Character spans (start, end) of the passage's tokens.
    """

    ids: tuple[int, ...]
    second: int
    body: int
    offsets: tuple[tuple[int, int], ...]


class Renderer:
    """Renders windows with a tokenizer.

    Args:
        tokenizer: A BERT tokenizer, whose truncation and padding are switched off.
        window: Maximum tokens of a window.
    """

    def __init__(self, tokenizer: Tokenizer, window: int = WINDOW) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._window = window
        self._cls, self._sep = tokenizer.encode("", add_special_tokens=True).ids

    def windows(self, question: str, place: Sequence[str], passage: str) -> list[Window]:
        """Return the windows of a passage, in order; at least one.

        Args:
            question: The question, truncated to its first 64 tokens.
            place: Title and headings, outermost first, without repetitions; truncated to the last 24 tokens,
                because the innermost heading is the most informative.
            passage: The text that offsets refer to.
        """
        asked = self._ids(question)[:MOST_QUESTION]
        above = self._ids(" › ".join(dict.fromkeys(part for part in place if part)))[-MOST_PLACE:]
        head = [self._cls, *asked, self._sep]
        second = len(head)
        if above:
            head += [*above, self._sep]
        found = self._tokenizer.encode(passage, add_special_tokens=False)
        room = self._window - len(head) - 1
        step = max(room - OVERLAP, 1)
        last = max(len(found.ids) - room, 0)
        starts = [*range(0, last, step), last]
        return [
            Window(
                (*head, *found.ids[at : at + room], self._sep),
                second,
                len(head),
                tuple(found.offsets[at : at + room]),
            )
            for at in starts
        ]

    def pieces(self, word: str) -> int:
        """Return the number of tokens of a word; rare words have several."""
        return len(self._ids(word))

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def as_inputs(windows: Sequence[Window]) -> dict[str, NDArray[np.int64]]:
    """Return the inputs of a compiled network: ``ids``, ``types`` and ``mask``, each of shape (rows, tokens)."""
    import numpy as np

    width = padded_width(max(len(window.ids) for window in windows), WINDOW)
    ids, types, mask = (np.zeros((len(windows), width), np.int64) for _ in range(3))
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = window.ids
        types[row, window.second : len(window.ids)] = 1
        mask[row, : len(window.ids)] = 1
    return {"ids": ids, "types": types, "mask": mask}
