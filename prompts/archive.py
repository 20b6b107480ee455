"""The archive of a library: versions that nobody uses any more, out of the way and not lost.

``NAME/archived/VERSION.yaml``      one version
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from prompts.library_lock import writing_prompt
from prompts.template import NAME, PromptTemplateError

FOLDER = "archived"


class PromptArchive:
    """Archives and restores versions of a workspace's prompts.

    Args:
        folder: The workspace's prompts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def own_versions(self, name: str) -> list[int]:
        """Return the versions of a prompt that are in the workspace and not archived, oldest first."""
        return version_numbers(self._folder / name) if re.fullmatch(NAME, name) else []

    def archived(self) -> list[str]:
        """Return the archived versions as ``NAME@VERSION``."""
        folders = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return [f"{path.name}@{number}" for path in folders for number in version_numbers(path / FOLDER)]

    def archive(self, name: str, versions: Iterable[int]) -> None:
        """Put versions into the archive; their numbers are not used again.

        Raises:
            PromptTemplateError: A version is not in the workspace, or the files cannot be moved.
        """
        self._move(
            name, list(versions), Path(), Path(FOLDER), "is not in this workspace, so it cannot be archived"
        )

    def restore(self, name: str, versions: Iterable[int]) -> None:
        """Take versions out of the archive.

        Raises:
            PromptTemplateError: A version is not archived, or the files cannot be moved.
        """
        self._move(name, list(versions), Path(FOLDER), Path(), "is not archived")

    def _move(self, name: str, versions: list[int], old: Path, new: Path, missing: str) -> None:
        with writing_prompt(self._folder, name) as folder:
            for version in versions:
                if not (folder / old / f"{version}.yaml").is_file():
                    raise PromptTemplateError(f"The prompt {name}@{version} {missing}.")
            for version in versions:
                file = f"{version}.yaml"
                (folder / new).mkdir(exist_ok=True)
                (folder / old / file).rename(folder / new / file)


def version_numbers(folder: Path) -> list[int]:
    """Return the numbers of the versions that lie in a folder, ascending."""
    return sorted(int(path.stem) for path in folder.glob("*.yaml") if path.stem.isdecimal())
