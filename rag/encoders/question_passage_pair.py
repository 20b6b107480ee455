"""A question and a passage as the reader sees them: the same for training and for answering.

``[CLS] question [SEP] place [SEP] passage [SEP]``, where the place is what stands above the passage: its title and
headings. A passage that is too long is read in windows that overlap.
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

# Tokens of a window, the special ones included. Most passages of an index have 200, so that most need one window.
WINDOW = 320
# Tokens that two windows share: an answer at the edge of one stands whole in the other.
OVERLAP = 96
MOST_QUESTION = 64
MOST_PLACE = 24


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a passage with the question in front.

    Attributes:
        ids: Token numbers, special ones included.
        second: Where the second segment begins (token type 1): right after the question.
        body: Where the passage's own tokens begin; they end before the last token.
        offsets: First and one past the last character of each token of the passage.
    """

    ids: tuple[int, ...]
    second: int
    body: int
    offsets: tuple[tuple[int, int], ...]


class Renderer:
    """Makes windows with one tokenizer.

    Args:
        tokenizer: A BERT tokenizer; its own truncation and padding are switched off.
        window: Tokens of a window at most.
    """

    def __init__(self, tokenizer: Tokenizer, window: int = WINDOW) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._window = window
        self._cls, self._sep = tokenizer.encode("", add_special_tokens=True).ids

    def windows(self, question: str, place: Sequence[str], passage: str) -> list[Window]:
        """All windows of a passage, in order; at least one.

        Args:
            question: Its first 64 tokens are read.
            place: Title and headings, outermost first; repetitions are left out. The last 24 tokens are read,
                since the innermost heading says most.
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
        """Into how many tokens a word is cut; rare words into several."""
        return len(self._ids(word))

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def as_inputs(windows: Sequence[Window]) -> dict[str, NDArray[np.int64]]:
    """A batch as a compiled network takes it: ``ids``, ``types`` and ``mask``, each of shape (rows, tokens)."""
    import numpy as np

    width = padded_width(max(len(window.ids) for window in windows), WINDOW)
    ids, types, mask = (np.zeros((len(windows), width), np.int64) for _ in range(3))
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = window.ids
        types[row, window.second : len(window.ids)] = 1
        mask[row, : len(window.ids)] = 1
    return {"ids": ids, "types": types, "mask": mask}
