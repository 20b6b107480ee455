"""The folders of W&B runs in a workspace: which process writes one, and whether its server has it.

Below ``wandb/``, every process that opens a run has a folder ``offline-run-TIME-ID`` or ``run-TIME-ID``. W&B marks
a folder that it has uploaded by a file ``….wandb.synced``; an online run gets the same mark when it ends, so that
one whose upload was interrupted is recognised.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rag.tracing.processes import is_dead, process_identity

_WRITER = "writer"
_UPLOADED = ".wandb.synced"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        file: The file with its records, ``run-ID.wandb``.
    """

    file: Path

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.file.parent

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.file.stem.removeprefix("run-")

    @property
    def started(self) -> str:
        """Its start, as text that sorts by time."""
        return self.path.name.removeprefix("offline-")

    @property
    def uploaded(self) -> bool:
        """Whether the server has everything."""
        return self.file.with_suffix(_UPLOADED).exists()

    @property
    def in_use(self) -> bool:
        """Whether a living process writes it."""
        try:
            writer = (self.path / _WRITER).read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        return bool(writer) and not is_dead(writer)

    @property
    def is_candidate(self) -> bool:
        """Whether the server may lack something: an online run of an older version has no note of its writer."""
        return self.path.name.startswith("offline-") or (self.path / _WRITER).exists()

    def enter(self) -> None:
        """Note that this process writes it."""
        (self.path / _WRITER).write_text(process_identity(), encoding="utf-8")

    def leave(self, *, uploaded: bool) -> None:
        """Note that this process no longer writes it, and whether the server has everything."""
        if uploaded:
            self.file.with_suffix(_UPLOADED).touch()
            (self.path / _WRITER).unlink(missing_ok=True)
        else:
            (self.path / _WRITER).write_text("", encoding="utf-8")


def run_folders(wandb: Path) -> list[RunFolder]:
    """Return the folders of all runs, oldest first.

    Args:
        wandb: The folder that they are in.
    """
    found = [
        RunFolder(file) for pattern in ("offline-run-*", "run-*") for file in wandb.glob(f"{pattern}/*.wandb")
    ]
    return sorted(found, key=lambda folder: folder.started)


def folders_to_upload(wandb: Path) -> list[RunFolder]:
    """Return those that no process writes and the server does not have completely; see ``run_folders``."""
    found = run_folders(wandb)
    return [folder for folder in found if folder.is_candidate and not (folder.uploaded or folder.in_use)]
