"""Supervised fine-tuning: a causal language model learns the replies of a data set.

Rows come from ``finetune.data.chat_rows``, their tokens from ``finetune.chat_features``, and the batches from
``finetune.completion_batches``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.completion_batches import as_batch, token_losses
from finetune.data.chat_rows import read_chat_rows
from finetune.data.row_sources import RowSources
from finetune.features import Feature, Features
from finetune.recipe import VALIDATION, SftRecipe, Source, Stage
from finetune.tasks.causal_task import CausalTask
from finetune.training import Training

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class SftTask(CausalTask):
    """See ``finetune.tasks.causal_task``."""

    def __init__(self, recipe: SftRecipe, models: Path | None = None) -> None:
        super().__init__(recipe, models)
        self._sources = cache(lambda data: RowSources(recipe, data, read_chat_rows))

    def features(self, source: Source, data: Path, seed: int) -> Iterator[Feature]:
        """Yield the features of a file; their order does not depend on the seed."""
        rows = self._sources(data).training(source)
        return self.short_enough(source.name, map(self.encoder.feature, rows), self.most_tokens)

    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """Yield the features of the validation rows, see ``finetune.data.row_sources``."""
        rows = self._sources(data).validation()
        return self.short_enough(VALIDATION, map(self.encoder.feature, rows), self.most_tokens)

    def batch(self, features: Sequence[Feature]) -> dict[str, Any]:
        """See ``finetune.completion_batches.as_batch``."""
        return as_batch(features)

    def prepare(self, model: Any, training: Training) -> None:
        """Do nothing: the loss needs only the model that is trained."""

    def loss(
        self, stage: Stage, rows: NDArray[np.int64], logits: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the mean negative log-likelihood of the tokens of the replies."""
        return token_losses(logits, labels).mean()

    def metrics(self, model: Any, features: Features) -> Mapping[str, float]:
        """Compute loss and perplexity per token of the replies."""
        total, count = 0.0, 0
        for _, logits, labels in self.outputs(model, features):
            losses = token_losses(logits, labels)
            total += float(losses.double().sum())
            count += len(losses)
        loss = total / count
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
