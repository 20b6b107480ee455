"""Best spans of sentences, from token scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.documents.sentences import Sentence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag.encoders.question_passage_pair import Window

# Maximum tokens of an answer.
LONGEST = 40


@dataclass(frozen=True, slots=True)
class Span:
    """The best answer inside one sentence of a passage.

    Attributes:
        start, end: Offsets into the passage.
        margin: Margin of its score over "no answer" in its window.
    """

    sentence: Sentence
    start: int
    end: int
    margin: float


def best_spans(window: Window, scores: NDArray[np.float32], sentences: Sequence[Sentence]) -> list[Span]:
    """Return the best span of every sentence that overlaps the window, in the order of the sentences.

    Args:
        window: The window.
        scores: Start and end scores of shape ``(tokens, 2)``; token 0 stands for no answer.
        sentences: Sentences of the whole passage.
    """
    nothing = float(scores[0, 0] + scores[0, 1])
    body = scores[window.body : window.body + len(window.offsets)]
    found = []
    first = 0
    for sentence in sentences:
        while first < len(window.offsets) and window.offsets[first][0] < sentence.start:
            first += 1
        last = first
        while last < len(window.offsets) and window.offsets[last][1] <= sentence.end:
            last += 1
        if last == first:
            continue
        begin, end, score = best_pair(body[first:last])
        found.append(
            Span(
                sentence,
                window.offsets[first + begin][0],
                window.offsets[first + end][1],
                score - nothing,
            )
        )
    return found


def best_pair(scores: NDArray[np.float32]) -> tuple[int, int, float]:
    """Return the first and last token of the best span of at most ``LONGEST`` tokens, and its score.

    Args:
        scores: Start and end scores of shape ``(tokens, 2)``, at least one token.
    """
    import numpy as np

    size = len(scores)
    both = scores[:, 0][:, None] + scores[:, 1][None, :]
    allowed = np.tri(size, size, LONGEST - 1, dtype=bool) & ~np.tri(size, size, -1, dtype=bool)
    first, last = divmod(int(np.where(allowed, both, -np.inf).argmax()), size)
    return first, last, float(both[first, last])
