"""From the scores of tokens to the best span of each sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.documents.sentences import Sentence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag.encoders.question_passage_pair import Window

# Tokens of an answer.
LONGEST = 40


@dataclass(frozen=True, slots=True)
class Span:
    """The best answer inside one sentence of a passage.

    Attributes:
        start, end: First and one past the last character, offsets into the passage.
        margin: How far its score beats that of "no answer" in its window; 0 is even.
    """

    sentence: Sentence
    start: int
    end: int
    margin: float


def best_spans(window: Window, scores: NDArray[np.float32], sentences: Sequence[Sentence]) -> list[Span]:
    """The best span of each sentence that the window holds any of, in the order of the sentences.

    Args:
        window: What was read.
        scores: Shape ``(tokens, 2)``, of the first and of the last token; token 0 stands for no answer.
        sentences: Of the whole passage.
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
    """The best first and last token, the last neither before the first nor too far behind it, and their score.

    Args:
        scores: Shape ``(tokens, 2)``, at least one token; of each as the first and as the last.
    """
    import numpy as np

    size = len(scores)
    both = scores[:, 0][:, None] + scores[:, 1][None, :]
    allowed = np.tri(size, size, LONGEST - 1, dtype=bool) & ~np.tri(size, size, -1, dtype=bool)
    first, last = divmod(int(np.where(allowed, both, -np.inf).argmax()), size)
    return first, last, float(both[first, last])
