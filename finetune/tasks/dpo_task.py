"""Direct preference optimization: a causal language model learns to prefer one reply of a pair to the other.

The loss is that of Rafailov and others (arXiv 2305.18290): the model's log-likelihood of both replies is compared
with that of the reference, which is the model before training. Rows come from ``finetune.data.preference_rows``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.completion_batches import as_batch, sequence_losses
from finetune.data.preference_rows import read_preference_rows
from finetune.data.row_sources import RowSources
from finetune.features import Feature, Features
from finetune.recipe import VALIDATION, DpoRecipe, Source, Stage
from finetune.rows import PreferenceRow
from finetune.tasks.causal_task import CausalTask
from finetune.training import Stopped, Training

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class DpoTask(CausalTask):
    """See ``finetune.tasks.causal_task``.

    The feature of a pair has both conversations, the preferred one first: ``second`` is the first token of its
    reply, and ``target`` names the first tokens of the other conversation and of its reply.
    """

    recipe: DpoRecipe

    def __init__(self, recipe: DpoRecipe, models: Path | None = None) -> None:
        super().__init__(recipe, models)
        self._sources = cache(lambda data: RowSources(recipe, data, read_preference_rows))
        # Log-likelihoods of both replies, shape (rows, 2), by the hash of their features.
        self._references: dict[str, torch.Tensor] = {}
        self._hashes: dict[str, str] = {}

    def features(self, source: Source, data: Path, seed: int) -> Iterator[Feature]:
        """Yield the features of a file; their order does not depend on the seed."""
        return self._pairs(source.name, self._sources(data).training(source))

    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """Yield the features of the validation rows, see ``finetune.data.row_sources``."""
        return self._pairs(VALIDATION, self._sources(data).validation())

    def _pairs(self, name: str, rows: Iterator[PreferenceRow]) -> Iterator[Feature]:
        return self.short_enough(name, map(self._pair, rows), 2 * self.most_tokens)

    def _pair(self, row: PreferenceRow) -> Feature:
        chosen, rejected = (self.encoder.feature(each) for each in (row.chosen, row.rejected))
        begin = len(chosen.ids)
        return Feature((*chosen.ids, *rejected.ids), chosen.second, (begin, begin + rejected.second))

    def batch(self, features: Sequence[Feature]) -> dict[str, Any]:
        """Return the batch of all preferred conversations, then of all others."""
        chosen, rejected = zip(*map(_parted, features), strict=True)
        return as_batch([*chosen, *rejected])

    def prepare(self, model: Any, training: Training) -> None:
        """Compute the log-likelihoods of the reference, which is the model as training finds it."""
        self._hashes = {name: features.sha256 for name, features in training.features.items()}
        for name, features in training.features.items():
            if self._hashes[name] not in self._references:
                self._references[self._hashes[name]] = self._likelihoods(model, features, training.stopping)

    def _likelihoods(
        self, model: Any, features: Features, stopping: Callable[[], bool] = lambda: False
    ) -> torch.Tensor:
        """Return the log-likelihoods of both replies of every row, shape ``(rows, 2)``; raise Stopped to stop."""
        import torch

        found = torch.zeros((len(features), 2))
        for rows, logits, labels in self.outputs(model, features):
            if stopping():
                raise Stopped
            found[rows] = _likelihoods(logits, labels).cpu()
        return found

    def loss(
        self, stage: Stage, rows: NDArray[np.int64], logits: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the mean loss of the pairs."""
        from torch.nn import functional

        found = _likelihoods(logits, labels)
        reference = self._references[self._hashes[stage.name]][rows].to(found.device)
        preferred = -functional.logsigmoid(self.recipe.beta * _margins(found, reference)).mean()
        if not self.recipe.keep:
            return preferred
        return preferred + self.recipe.keep * sequence_losses(logits, labels, mean=True)[: len(rows)].mean()

    def metrics(self, model: Any, features: Features) -> Mapping[str, float]:
        """Compute the metrics of held-out pairs.

        Returns:
            ``loss``; ``preferred``, the share of pairs whose margin is positive, 0 to 1; ``margin``, the mean
            difference of the log-likelihood ratios, in nats; ``chosen``, the mean change of the log-likelihood of
            the preferred replies, in nats.
        """
        from torch.nn import functional

        reference = self._references[features.sha256]
        found = self._likelihoods(model, features)
        margins = _margins(found, reference)
        return {
            "loss": float(-functional.logsigmoid(self.recipe.beta * margins).mean()),
            "preferred": float((margins > 0).float().mean()),
            "margin": float(margins.mean()),
            "chosen": float((found - reference)[:, 0].mean()),
        }


def _parted(feature: Feature) -> tuple[Feature, Feature]:
    begin, reply = feature.target
    return Feature(feature.ids[:begin], feature.second, ()), Feature(feature.ids[begin:], reply - begin, ())


def _likelihoods(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the log-likelihoods of the replies of a batch: shape ``(rows, 2)``, the preferred ones first."""
    return -sequence_losses(logits, labels).view(2, -1).T


def _margins(found: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return by how much more a model prefers the first reply than the reference does, shape ``(rows,)``."""
    moved = found - reference
    return moved[:, 0] - moved[:, 1]
