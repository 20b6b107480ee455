"""What every benchmark is told, and where it keeps what may be used again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.child import call


@dataclass(frozen=True, slots=True)
class Plan:
    """One call of the benchmarks.

    Attributes:
        data: The folder of benchmark data: ``docs/peps``, ``scifact``, ``cranfield``.
        cache: Where indexes are kept; a second run with the same folder need not make them again.
        peps: How many of the proposals stand for all of them, at equal distances; None for every one.
        quick: Fewer files, queries and rounds: to see that everything runs, not to quote.
        model: Folder of a causal language model; None for SmolLM2.
    """

    data: Path
    cache: Path
    quick: bool = False
    peps: int | None = None
    model: Path | None = None

    def workspace(self, name: str) -> Path:
        """A workspace in the cache, with the encoder converted already: that is done once on a machine.

        Args:
            name: Folder below the cache.
        """
        home = self.cache / name
        home.mkdir(parents=True, exist_ok=True)
        shared, models = self.models().resolve(), home / "models"
        if not models.exists():
            models.symlink_to(shared, target_is_directory=True)
        return home

    def fresh_workspace(self, name: str) -> Path:
        """The same, emptied before."""
        shutil.rmtree(self.cache / name, ignore_errors=True)
        return self.workspace(name)

    def models(self) -> Path:
        """The converted encoder that all workspaces share, made when missing."""
        home = self.cache / "encoder"
        if not (home / "models").is_dir():
            call("tests.benchmarks.ours:convert", home=home)
        return home / "models"
