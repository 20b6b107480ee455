"""Batches: rows grouped by length in a seeded order, the steps of a stage, and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.features import Feature, Features
from finetune.recipe import Stage

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

# Rows of similar length are grouped within a pool of this many, so that batches still vary between epochs.
POOL = 2048
# Padding is rounded up to a multiple of this many tokens, to keep the number of shapes low.
LENGTH_STEP = 8


def plan(
    lengths: NDArray[np.int64], batch_tokens: int, seed: int, length_step: int = LENGTH_STEP
) -> list[NDArray[np.int64]]:
    """Plan one epoch: every row once, in batches of similar length.

    Args:
        lengths: Tokens of each row.
        batch_tokens: Maximum tokens of a batch, padding included; a longer row gets a batch of its own.
        seed: Equal seeds give equal plans.
        length_step: Multiple of tokens that rows are padded to.

    Returns:
        The row indices of each batch.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for at in range(0, len(order), POOL):
        pool = order[at : at + POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        begin = 0
        for end in range(1, len(pool) + 1):
            # Lengths ascend, so the next row decides the width.
            if end == len(pool) or padded(int(lengths[pool[end]]), length_step) * (end + 1 - begin) > batch_tokens:
                batches.append(pool[begin:end])
                begin = end
    return [batches[number] for number in rng.permutation(len(batches))]


def padded(length: int, length_step: int = LENGTH_STEP) -> int:
    """Return a length rounded up to the next multiple of ``length_step``."""
    return -(-length // length_step) * length_step


def stage_batches(
    features: Features, stage: Stage, seed: int, length_step: int = LENGTH_STEP
) -> list[NDArray[np.int64]]:
    """Return the row indices of every step of a stage, in order; at least one step.

    The result depends on the arguments alone, so a stage can resume at any step.
    """

    def epoch(number: int) -> list[NDArray[np.int64]]:
        return plan(features.lengths, stage.batch_tokens, seed * 1000 + number, length_step)

    whole = int(stage.epochs)
    batches = [batch for number in range(whole) for batch in epoch(number)]
    last = epoch(whole)
    batches += last[: int(len(last) * (stage.epochs - whole))]
    return batches or last[:1]


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Return the factor of the learning rate at a step: linear warm-up, then linear decay to 0.

    Args:
        step: The step, 1 to ``steps``.
        steps: Total steps of the stage.
        warmup: Share of the steps that warm up, 0 to 1.
    """
    rising = warmup * steps
    return min(step / rising if rising else 1.0, (steps - step + 1) / max(steps - rising, 1.0), 1.0)


def as_tensors(features: Sequence[Feature]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids, token types and mask of a batch, each of shape ``(rows, tokens)``."""
    import torch

    width = padded(max(len(feature.ids) for feature in features))
    ids, types, mask = (torch.zeros((len(features), width), dtype=torch.long) for _ in range(3))
    for row, feature in enumerate(features):
        length = len(feature.ids)
        ids[row, :length] = torch.tensor(feature.ids)
        types[row, feature.second : length] = 1
        mask[row, :length] = 1
    return ids, types, mask
