"""Passages that look as if they answered a question, and do not: what a retrieval gives beside the right one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from finetune.data.splits import plain
from finetune.rows import ReadingRow

if TYPE_CHECKING:
    from rag.encoders.encoder_files import ModelFiles

# The passage is drawn from so many that are nearest to the question, without those that hold the answer.
NEAREST = 8
BLOCK = 512
# Every passage has to be embedded, some 50 a second on two cores.
MOST_ROWS = 7000


def negative_rows(answered: Sequence[ReadingRow], files: ModelFiles, seed: int) -> Iterator[ReadingRow]:
    """For some answered rows one each with another passage, near to the question and without its answer."""
    import numpy as np

    from rag.encoders.torch_encoder import TorchEncoder

    encoder = TorchEncoder(files, device="cpu", precision="bf16", batch_size=64)
    chance = random.Random(f"{seed} negatives")
    answered = chance.sample(answered, min(MOST_ROWS, len(answered)))
    places = {row.passage: row.place for row in answered}
    passages = list(places)
    bare = [plain(passage) for passage in passages]
    vectors = encoder.embed(passages)
    for at in range(0, len(answered), BLOCK):
        rows = answered[at : at + BLOCK]
        cosines = encoder.embed([row.question for row in rows]) @ vectors.T
        nearest = np.argsort(-cosines, axis=1)[:, : 4 * NEAREST]
        for row, found in zip(rows, nearest.tolist(), strict=True):
            answers = [plain(row.passage[start:end]) for start, end in row.answers]
            own = plain(row.passage)
            kept = [
                number
                for number in found
                if bare[number] != own and not any(answer in bare[number] for answer in answers if answer)
            ][:NEAREST]
            if kept:
                other = passages[chance.choice(kept)]
                yield ReadingRow(row.question, other, places[other])
