"""Training tasks: how rows become features, and features a loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from finetune.features import Feature, Features
from finetune.recipe import Recipe, Source
from finetune.start import find_start

if TYPE_CHECKING:
    import torch

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

    def network(self, *, plain: bool = False) -> torch.nn.Module:
        """Return the untrained network, base and fresh head, the same for the same seed.

        Args:
            plain: Whether to leave out the adapter that the recipe starts from.
        """
        ...

    def loss(self, network: torch.nn.Module, features: Features, rows: Any) -> torch.Tensor:
        """Return the mean loss of some rows."""
        ...

    def metrics(self, network: torch.nn.Module, features: Features) -> Mapping[str, float]:
        """Compute the metrics on the validation rows, ``loss`` among them."""
        ...

    def finish(
        self, network: torch.nn.Module, validation: Features, result: Path, data: Mapping[str, Any]
    ) -> AdapterCard:
        """Write the result atomically.

        Args:
            network: The trained network.
            validation: The validation rows, for metrics and calibration.
            result: The folder to create.
            data: Row counts and feature version per stage, for the card.
        """
        ...


def open_task(recipe: Recipe) -> Task:
    """Open the task that a recipe names.

    Raises:
        AdapterError: The adapter to start from is missing.
        EncoderError: The base is missing or altered.
    """
    if recipe.start is not None:
        # Fail before the data are read.
        find_start(recipe.start)
    if recipe.task == "reranker":
        from finetune.tasks.reranker_task import RerankerTask

        return RerankerTask(recipe)
    if recipe.task == "generator":
        from finetune.tasks.generator_task import GeneratorTask

        return GeneratorTask(recipe)
    from finetune.tasks.reader_task import ReaderTask

    return ReaderTask(recipe)
