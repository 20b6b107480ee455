"""Batches of prompts and replies, padded on the left so that logits are computed only where there is a loss.

All replies end at the last position. So the positions that predict them are the last ones, and the model's
``logits_to_keep`` skips the others, which costs most of the time with a large vocabulary. Lengths are rounded up,
since every new shape costs a compilation of kernels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from finetune.batches import padded
from finetune.features import Feature, Features

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

# Multiples of tokens that rows and replies are padded to.
LENGTH_STEP = 64
REPLY_STEP = 16
# Label of a position without a loss, as in torch and transformers.
IGNORED = -100


class Batches:
    """The batches of a stage: a data set for a trainer, whose items are batches.

    Args:
        features: The rows.
        batches: The row indices of each batch.
        collate: Turns rows into the inputs of a model and their ``labels``, such as ``as_batch``.
        model: The model that they are for, which need not know every input.
    """

    def __init__(
        self,
        features: Features,
        batches: Sequence[NDArray[np.int64]],
        collate: Callable[[Sequence[Feature]], dict[str, Any]],
        model: torch.nn.Module,
    ) -> None:
        self._features = features
        self._batches = batches
        self._collate = collate
        self._inputs = model_inputs(model)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[at] for at in range(len(self)))

    def __getitem__(self, at: int) -> dict[str, Any]:
        batch = self._collate([self._features[int(row)] for row in self._batches[at]])
        return {name: value for name, value in batch.items() if name == "labels" or name in self._inputs}


def model_inputs(model: Any) -> frozenset[str]:
    """Return the names of the inputs that a language model knows, without the wrapper of peft."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(base.forward).parameters)


def as_batch(features: Sequence[Feature]) -> dict[str, Any]:
    """Return the inputs of a model and the labels of rows whose ``second`` is the first token of the reply.

    Returns:
        ``input_ids``, ``attention_mask`` and ``position_ids`` of shape ``(rows, tokens)``, ``logits_to_keep``, the
        number of last positions whose logits are needed, and ``labels`` of shape ``(rows, logits_to_keep - 1)``.
    """
    import torch

    length = padded(max(len(feature.ids) for feature in features), LENGTH_STEP)
    longest = max(len(feature.ids) - feature.second for feature in features)
    # The last position predicts nothing, and the first token has no position before it.
    replied = min(padded(longest, REPLY_STEP), length - 1)
    ids, mask = (torch.zeros((len(features), length), dtype=torch.long) for _ in range(2))
    labels = torch.full((len(features), replied), IGNORED)
    for row, feature in enumerate(features):
        tokens = torch.tensor(feature.ids)
        ids[row, length - len(tokens) :] = tokens
        mask[row, length - len(tokens) :] = 1
        reply = tokens[feature.second :]
        labels[row, replied - len(reply) :] = reply
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "logits_to_keep": replied + 1,
        "labels": labels,
    }


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of every labelled token, shape ``(labelled,)``.

    Args:
        logits: Shape ``(rows, positions, vocabulary)``; the last ``labels.shape[1] + 1`` positions count.
        labels: Shape ``(rows, replied)``.
    """
    from torch.nn import functional

    predicting = _predicting(logits, labels)
    wanted = labels != IGNORED
    return functional.cross_entropy(predicting[wanted].float(), labels[wanted], reduction="none")


def sequence_losses(logits: torch.Tensor, labels: torch.Tensor, *, mean: bool = False) -> torch.Tensor:
    """Return the negative log-likelihood of every reply, shape ``(rows,)``; with ``mean``, that of its tokens.

    Args:
        logits, labels: See ``token_losses``.
        mean: Whether to divide by the number of tokens.
    """
    from torch.nn import functional

    predicting = _predicting(logits, labels).float()
    losses = functional.cross_entropy(
        predicting.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    ).sum(1)
    return losses / (labels != IGNORED).sum(1) if mean else losses


def _predicting(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the logits of the positions before the labels."""
    return logits[:, -labels.shape[1] - 1 : -1]
