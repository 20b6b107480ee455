"""Hard negatives: passages near a question that do not answer it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from finetune.data.splits import plain
from finetune.rows import ReadingRow

if TYPE_CHECKING:
    from rag.encoders.encoder_files import ModelFiles

# A negative is drawn from this many nearest passages, after those that contain the answer are dropped.
NEAREST = 8
BLOCK = 512
# Every passage has to be embedded, at about 50 per second on two cores.
MOST_ROWS = 7000


def negative_rows(answered: Sequence[ReadingRow], files: ModelFiles, seed: int) -> Iterator[ReadingRow]:
    """Yield rows that pair a question with a nearby passage that does not contain its answer."""
    import numpy as np

    from rag.encoders.torch_encoder import TorchEncoder

    encoder = TorchEncoder(files, device="cpu", precision="bf16", batch_size=64)
    rng = random.Random(f"{seed} negatives")
    answered = rng.sample(answered, min(MOST_ROWS, len(answered)))
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
                other = passages[rng.choice(kept)]
                yield ReadingRow(row.question, other, places[other])
