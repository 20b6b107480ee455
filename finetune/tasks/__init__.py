"""What can be trained: how rows become features, and features a loss."""

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
    """One kind of training."""

    def features(self, source: Source, data: Path, seed: int) -> Iterator[Feature]:
        """The features of a source, in an order that the seed decides.

        Raises:
            TuningError: The data are missing or malformed.
        """
        ...

    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """Features that are never trained on."""
        ...

    def network(self, *, plain: bool = False) -> torch.nn.Module:
        """A network before the training, the same for the same seed: the base and a fresh head.

        Args:
            plain: Without the adapter that the recipe starts from.
        """
        ...

    def loss(self, network: torch.nn.Module, features: Features, rows: Any) -> torch.Tensor:
        """The mean loss of some rows."""
        ...

    def figures(self, network: torch.nn.Module, features: Features) -> Mapping[str, float]:
        """What the validation rows say, ``loss`` among it."""
        ...

    def finish(
        self, network: torch.nn.Module, validation: Features, result: Path, data: Mapping[str, Any]
    ) -> AdapterCard:
        """Write what came of it: whole, or not at all.

        Args:
            network: Trained.
            validation: The validation rows, for the figures and the calibration.
            result: The folder to make.
            data: Rows and version of the features of each stage, for the card.
        """
        ...


def open_task(recipe: Recipe) -> Task:
    """The task that a recipe names.

    Raises:
        AdapterError: There is no adapter to start from.
        EncoderError: The base is missing or altered.
    """
    if recipe.start is not None:
        # It is told here, and not after the data have been read.
        find_start(recipe.start)
    if recipe.task == "reranker":
        from finetune.tasks.reranker_task import RerankerTask

        return RerankerTask(recipe)
    if recipe.task == "generator":
        from finetune.tasks.generator_task import GeneratorTask

        return GeneratorTask(recipe)
    from finetune.tasks.reader_task import ReaderTask

    return ReaderTask(recipe)
