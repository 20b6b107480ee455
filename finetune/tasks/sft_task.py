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

from finetune.completion_batches import as_batch, sequence_losses, token_losses
from finetune.data.chat_rows import read_chat_rows
from finetune.data.row_sources import RowSources
from finetune.features import Feature, Features
from finetune.predictions import (
    PREDICTION_TOKENS,
    SAMPLE_TOKENS,
    SAMPLES,
    Prediction,
    extremes,
    write_greedily,
)
from finetune.recipe import VALIDATION, SftRecipe, Source, Stage
from finetune.tasks.causal_task import CausalTask
from finetune.training import Training

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class SftTask(CausalTask):
    """See ``finetune.tasks.causal_task``."""

    def __init__(self, recipe: SftRecipe, models: Path | None = None, data: Path | None = None) -> None:
        super().__init__(recipe, models, data)
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

    def samples(self, model: Any, features: Features) -> tuple[Prediction, ...]:
        """Write texts for the first validation rows."""
        return self._predictions(model, features, range(min(SAMPLES, len(features))), SAMPLE_TOKENS)

    def predictions(self, model: Any, features: Features) -> tuple[Prediction, ...]:
        """Write texts for the validation rows with the lowest and the highest losses, the lowest first."""
        rows = extremes(self._losses(model, features))
        return self._predictions(model, features, rows, PREDICTION_TOKENS)

    def _losses(self, model: Any, features: Features) -> list[float]:
        """Return the loss of every row, in nats per token of its reply."""
        found = [math.nan] * len(features)
        for rows, logits, labels in self.outputs(model, features):
            for row, loss in zip(rows, sequence_losses(logits, labels, mean=True).tolist(), strict=True):
                found[int(row)] = loss
        return found

    def _predictions(
        self, model: Any, features: Features, rows: Sequence[int], most: int
    ) -> tuple[Prediction, ...]:
        """Write at most so many tokens for each of some rows."""
        encoder = self.encoder
        picked = [features[row] for row in rows]
        begins = [feature.target[0] if feature.target else feature.second for feature in picked]
        prompts = [feature.ids[:begin] for feature, begin in zip(picked, begins, strict=True)]
        room = int(min(most, self.base.window - max(begins)))
        texts = write_greedily(model, prompts, encoder.ends, room)
        losses = self._losses(model, Features.pack(picked))
        before, after = encoder.frame(self.rendering)
        return tuple(
            Prediction(
                row,
                encoder.text_of(prompt).removeprefix(before).removesuffix(after),
                self._reply(feature.ids[len(prompt) :]),
                self._reply(text),
                round(loss, 4),
            )
            for row, feature, prompt, text, loss in zip(rows, picked, prompts, texts, losses, strict=True)
        )

    def _reply(self, ids: Sequence[int]) -> str:
        """Return the text of a reply as it is served: without the text that ends it."""
        text = self.encoder.text_of(ids, special=False)
        end = self.rendering.end if self.rendering is not None else ""
        return (text.partition(end)[0] if end else text).strip()
