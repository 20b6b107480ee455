"""Training and validation rows of a recipe that share no conversation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from finetune.data.chat_rows import SUFFIX
from finetune.prepared.data_versions import read_version
from finetune.recipe import VALIDATION, CausalRecipe, Source
from rag.errors import TuningError

# One in this many conversations is held out at most, where the recipe names no validation rows.
HELD_OUT = 10
_log = logging.getLogger(__name__)


class Row(Protocol):
    """A row of a data set of conversations."""

    @property
    def key(self) -> str:
        """Hash of the conversation: rows with equal conversations belong to the same split."""
        ...


R = TypeVar("R", bound=Row)


class RowSources(Generic[R]):
    """The rows of a recipe; all methods raise TuningError if the data are missing or malformed.

    Args:
        recipe: Names the sources.
        data: The folder of the training data.
        read: Reads rows of a folder: of a source, and at most some of them. ``finetune.data.chat_rows`` has one.
    """

    def __init__(
        self, recipe: CausalRecipe, data: Path, read: Callable[[Path, str, int | None], Iterator[R]]
    ) -> None:
        self._recipe = recipe
        self._data = data
        self._read = read

    def training(self, source: Source) -> Iterator[R]:
        """Yield the rows of a source without the conversations of the validation rows."""
        left_out = 0
        for row in self._read(self._data, source.name, source.rows):
            if row.key in self._held_out:
                left_out += 1
            else:
                yield row
        if left_out:
            _log.info("%s: %d rows belong to validation conversations and are left out", source.name, left_out)

    def validation(self) -> Iterator[R]:
        """Yield the rows of the validation source, or else the held-out rows of the stages' sources."""
        source = self._validation_source
        if source is not None:
            return self._read(self._data, source, self._recipe.validation_rows)
        return (row for row in self._all_rows() if row.key in self._held_out)

    @property
    def _validation_source(self) -> str | None:
        """The source that the recipe names, or that of prepared data; None to hold rows out."""
        if self._recipe.validation is None and read_version(self._data) is not None:
            return VALIDATION if (self._data / f"{VALIDATION}{SUFFIX}").is_file() else None
        return self._recipe.validation

    @cached_property
    def _held_out(self) -> frozenset[str]:
        """Keys of the conversations that are never trained on.

        Without a validation source they are those with the smallest hashes, so that neither the order of the rows
        nor their repetition matters.
        """
        if self._validation_source is not None:
            return frozenset(row.key for row in self.validation())
        keys = sorted({row.key for row in self._all_rows()})
        if len(keys) < HELD_OUT:
            raise TuningError(
                f"The sources in {self._data} have only {len(keys)} different conversations, and at least "
                f"{HELD_OUT} are needed to hold out validation rows.",
                fix="Add rows, or name a source of validation rows with validation in the recipe.",
            )
        return frozenset(keys[: min(self._recipe.validation_rows, len(keys) // HELD_OUT)])

    def _all_rows(self) -> Iterator[R]:
        # A source of two stages is read once, up to the later stage's limit.
        sources = {source.name: source.rows for stage in self._recipe.stages for source in stage.sources}
        for name, most in sources.items():
            yield from self._read(self._data, name, most)
