"""From the scores of tokens to the best span of each sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.sentences import Sentence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag.reading.render import Window

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
    import numpy as np

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
        part = body[first:last]
        both = part[:, 0][:, None] + part[:, 1][None, :]
        allowed = np.tri(len(part), len(part), LONGEST - 1, dtype=bool) & ~np.tri(
            len(part), len(part), -1, dtype=bool
        )
        at = int(np.where(allowed, both, -np.inf).argmax())
        begin, end = divmod(at, len(part))
        found.append(
            Span(
                sentence,
                window.offsets[first + begin][0],
                window.offsets[first + end][1],
                float(both[begin, end]) - nothing,
            )
        )
    return found
