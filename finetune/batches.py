"""Which rows are trained on together, in which order (decided by the seed alone), and as which tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.features import Feature

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

# Rows of like length go together; they are looked for among so many, so that batches still differ.
POOL = 2048
# Padding is rounded up to so many tokens: fewer shapes are met.
LENGTH_STEP = 8


def plan(lengths: NDArray[np.int64], batch_tokens: int, seed: int) -> list[NDArray[np.int64]]:
    """One epoch: each row once, in batches of like length.

    Args:
        lengths: Tokens of each row.
        batch_tokens: Tokens of a batch at most, padding included; a row that is longer stands alone.
        seed: Equal seeds give equal plans.

    Returns:
        Row numbers of each batch.
    """
    import numpy as np

    chance = np.random.default_rng(seed)
    order = chance.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for at in range(0, len(order), POOL):
        pool = order[at : at + POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        begin = 0
        for end in range(1, len(pool) + 1):
            # Ascending: the row that would come next decides the width.
            if end == len(pool) or padded(int(lengths[pool[end]])) * (end + 1 - begin) > batch_tokens:
                batches.append(pool[begin:end])
                begin = end
    return [batches[number] for number in chance.permutation(len(batches))]


def padded(length: int) -> int:
    """A length rounded up to the next step."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def as_tensors(features: Sequence[Feature]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token numbers, token types and mask of a batch, each of shape ``(rows, tokens)``."""
    import torch

    width = padded(max(len(feature.ids) for feature in features))
    ids, types, mask = (torch.zeros((len(features), width), dtype=torch.long) for _ in range(3))
    for row, feature in enumerate(features):
        length = len(feature.ids)
        ids[row, :length] = torch.tensor(feature.ids)
        types[row, feature.second : length] = 1
        mask[row, :length] = 1
    return ids, types, mask
