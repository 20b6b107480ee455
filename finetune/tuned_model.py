"""The result of a run as a model that writes: the base with the adapter, rendered as in the training.

The same class writes with a base that has no adapter yet.
"""

from __future__ import annotations

import queue
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_core.messages import BaseMessage

from finetune.chat_features import messages_of
from finetune.language_model import Base
from finetune.prepared.text_rendering import Rendering, read_rendering
from finetune.recipe import CausalRecipe
from finetune.run_folder import RESULT, RunFolder
from prompts import Message
from rag.errors import ModelError, TuningError
from rag.models.local.batching import Piece
from rag.models.local.local_engine import Decoding, LocalEngine, open_local_engine
from rag.settings import LocalSettings

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Written:
    """A text and how it ended.

    Attributes:
        ending: ``stop``, ``length`` or another reason of the engine.
    """

    text: str
    ending: str
    read_tokens: int
    written_tokens: int


class TunedModel:
    """Writes with an adapter, or with its base alone; a context manager that frees the memory.

    Args:
        base: The model, as in a recipe.
        adapter: The folder of an adapter; None for the base alone.
        models: The workspace's folder of models.
        settings: Runtime, device and number format.

    Raises:
        ModelUnavailable: The base or the adapter cannot be loaded.
    """

    def __init__(self, base: str, adapter: Path | None, models: Path, settings: LocalSettings) -> None:
        self.rendering = (read_rendering(adapter) if adapter is not None else None) or Rendering()
        self._adapter = None if adapter is None else str(adapter)
        files = Base.locate(base, models).files
        loaded = (self._adapter,) if self._adapter else ()
        used = settings.model_copy(update={"adapters": loaded, "adapter": None})
        self._engine: LocalEngine = open_local_engine(files, used, models)

    @classmethod
    def of_run(cls, run: RunFolder, models: Path, settings: LocalSettings) -> TunedModel:
        """Open the result of a run that is done; errors and other arguments as for the class.

        Raises:
            TuningError: The run has no result, or its result is not the adapter of a language model.
        """
        recipe = run.recipe
        result = run.path / RESULT
        if not isinstance(recipe, CausalRecipe):
            raise TuningError(
                f"The run {run.name} has trained a {recipe.task}, which does not write.",
                fix="Name a run with the task sft or dpo.",
            )
        if not result.is_dir():
            raise TuningError(
                f"The run {run.name} has no result yet: it is {run.status.state}.",
                fix=f"Continue it with `ragsmith tune resume {run.name}`.",
            )
        return cls(recipe.base, result, models, settings)

    def __enter__(self) -> TunedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()

    def close(self) -> None:
        """Release the memory."""
        self._engine.close()

    def messages(self, prompt: str) -> list[BaseMessage]:
        """Return a prompt as the conversation that the data of the training would make of it."""
        return messages_of(self.rendering.turns((Message(role="user", content=prompt),)))

    def write(self, prompt: str, decoding: Decoding, *, adapted: bool = True) -> Generator[Piece]:
        """Yield the pieces of a reply as they are written; closing the iterator stops the work.

        Args:
            prompt: The prompt, without separator.
            decoding: Sampling, tokens and stops.
            adapted: Whether the adapter is used; otherwise the base alone.

        Raises:
            ModelError: The prompt is empty or too long, or the model fails.
        """
        pieces: queue.SimpleQueue[Piece | ModelError] = queue.SimpleQueue()
        row = self._engine.start(self.messages(prompt), decoding, pieces.put, self._adapter if adapted else None)
        try:
            while True:
                piece = pieces.get()
                if isinstance(piece, ModelError):
                    raise type(piece)(piece.message, fix=piece.fix) from piece.__cause__
                yield piece
                if piece.ending:
                    return
        finally:
            row.cancel()

    def written(self, prompt: str, decoding: Decoding, *, adapted: bool = True) -> Written:
        """Return a whole reply; arguments and errors as for ``write``."""
        pieces = list(self.write(prompt, decoding, adapted=adapted))
        return Written(
            "".join(piece.text for piece in pieces),
            pieces[-1].ending or "",
            sum(piece.read for piece in pieces),
            sum(piece.written for piece in pieces),
        )
