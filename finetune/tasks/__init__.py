"""Training tasks: how rows become features, and features an adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from finetune.features import Feature, Features
from finetune.recipe import DpoRecipe, Recipe, SftRecipe, Source, Stage
from finetune.start import start_identity
from finetune.training import Training

if TYPE_CHECKING:
    from rag.encoders.adapters import AdapterCard


class Task(Protocol):
    """A training task."""

    def features(self, source: Source, data: Path, seed: int) -> Iterator[Feature]:
        """Yield the features of a source, in an order determined by the seed.

        Raises:
            TuningError: The data are missing or malformed.
        """
        ...

    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """Yield at most ``most`` features that are never trained on."""
        ...

    def steps(self, features: Features, stage: Stage) -> int:
        """Return the number of steps of a stage."""
        ...

    def train(self, training: Training) -> Any:
        """Train all stages, resuming from the newest checkpoint.

        Returns:
            The trained network, for ``finish``.

        Raises:
            Stopped: A stop was requested.
            TuningError: The loss is not finite.
            StorageFull: A checkpoint could not be written; the previous one stays.
        """
        ...

    def finish(self, network: Any, validation: Features, result: Path, data: Mapping[str, Any]) -> AdapterCard:
        """Write the result atomically.

        Args:
            network: The trained network, as ``train`` returned it.
            validation: The validation rows, for metrics and calibration.
            result: The folder to create.
            data: Row counts and feature version per stage, for the card.
        """
        ...


def open_task(recipe: Recipe, models: Path | None = None, data: Path | None = None) -> Task:
    """Open the task that a recipe names.

    Args:
        recipe: The recipe.
        models: The workspace's folder of models, where the base ``smollm2`` is prepared.
        data: The folder of the training data; prepared data decide how conversations are rendered.

    Raises:
        AdapterError: The adapter to start from is missing.
        EncoderError, ModelUnavailable: The base is missing or altered.
    """
    # Fail before the data are read.
    start_identity(recipe)
    if isinstance(recipe, SftRecipe):
        from finetune.tasks.sft_task import SftTask

        return SftTask(recipe, models, data)
    if isinstance(recipe, DpoRecipe):
        from finetune.tasks.dpo_task import DpoTask

        return DpoTask(recipe, models)
    if recipe.task == "reranker":
        from finetune.tasks.reranker_task import RerankerTask

        return RerankerTask(recipe)
    from finetune.tasks.reader_task import ReaderTask

    return ReaderTask(recipe)
