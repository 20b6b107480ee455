"""The prompts of a workspace, layered over the shipped ones: immutable versions and movable labels.

``NAME/VERSION.yaml``      one version
``NAME/labels.jsonl``      see ``prompts.labels``
``NAME/archived/``         see ``prompts.archive``
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from prompts.archive import FOLDER as ARCHIVED
from prompts.archive import PromptArchive, version_numbers
from prompts.files import load_prompt, write_prompt
from prompts.labels import LATEST, PRODUCTION, Move, add_move, check_label, labels_of, read_moves
from prompts.library_lock import writing_prompt
from prompts.template import NAME, PromptTemplate, PromptTemplateError, Saved

SHIPPED = Path(__file__).parent / "library"


class PromptLibrary:
    """Finds, saves and labels prompts.

    Args:
        folder: The workspace's prompts, which take precedence; None for the shipped ones only, read-only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._loaded: dict[Path, tuple[tuple[int, int], PromptTemplate]] = {}

    def find(self, reference: str) -> PromptTemplate:
        """Find a prompt by reference, with its includes resolved.

        Args:
            reference: ``NAME``, ``NAME@VERSION``, ``NAME@LABEL``, or ``NAME@latest`` for the newest version. A
                name alone means its label ``production``; if that was never moved, the newest shipped version,
                or else the newest version.

        Raises:
            PromptTemplateError: There is no such prompt, or it is malformed.
        """
        return self.load(reference).resolved(self.load)

    def load(self, reference: str) -> PromptTemplate:
        """Load a prompt by reference, with its includes unresolved."""
        name, at, wanted = reference.partition("@")
        label = wanted if at else PRODUCTION
        # The folder is listed once, because every question loads prompts and there may be thousands of versions.
        versions = self._versions(name) if at else self._known(name)
        labels = self._labels(name, versions) if versions else {}
        if versions and label == LATEST:
            return self._read(versions[max(versions)])
        number = {str(version): version for version in versions}.get(label, labels.get(label))
        if number is None:
            self._check_archive(reference)
            raise _no_version(reference, name, versions, labels)
        return self._read(versions[number])

    def names(self) -> list[str]:
        """Return the names of all prompts, sorted."""
        folders = {path.name for folder in self._folders if folder.is_dir() for path in folder.iterdir()}
        return sorted(name for name in folders if self._versions(name))

    def versions(self, name: str) -> list[int]:
        """Return the versions of a prompt, oldest first.

        Raises:
            PromptTemplateError: There is no such prompt.
        """
        return sorted(self._known(name))

    def labels(self, name: str) -> dict[str, int]:
        """Return the labels of a prompt and their versions; ``production`` is always among them.

        Raises:
            PromptTemplateError: There is no such prompt, or its labels are damaged.
        """
        return self._labels(name, self._known(name))

    def default(self, name: str) -> int:
        """Return the version that ``production`` names until it is moved.

        Raises:
            PromptTemplateError: There is no such prompt.
        """
        return _default(name, self._known(name))

    def moves(self, name: str) -> tuple[Move, ...]:
        """Return every move of a prompt's labels, oldest first.

        Raises:
            PromptTemplateError: The labels are damaged.
        """
        return read_moves(self._folder / name) if self._folder else ()

    def save(self, draft: PromptTemplate, *, by: str, message: str) -> PromptTemplate:
        """Save a draft as the next version of its name; versions saved concurrently get numbers of their own.

        Args:
            draft: The draft, whose version number is ignored.
            by: The author.
            message: The reason for the change.

        Raises:
            PromptTemplateError: An included prompt is missing, or the file cannot be written.
        """
        draft.resolved(self.load)
        with self._writing(draft.name) as folder:
            known = self._versions(draft.name)
            # Traces name archived versions, so their numbers stay taken.
            version = max((*known, *version_numbers(folder / ARCHIVED)), default=0) + 1
            saved = Saved(by=by, at=_now(), message=message, sha256=draft.sha256)
            changes = {"version": version, "saved": saved.model_dump()}
            prompt = PromptTemplate.model_validate(draft.model_dump() | changes)
            write_prompt(folder / f"{version}.yaml", prompt)
            if not known:
                # Only the first version goes to production by itself; later ones are tried out first.
                add_move(folder, Move(label=PRODUCTION, version=version, by=by, at=saved.at, message=message))
        return prompt

    def keep_draft(self, name: str, text: str) -> Path:
        """Save the text of an invalid draft, so that it is not lost.

        Raises:
            PromptTemplateError: The file cannot be written.
        """
        with self._writing(name) as folder:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"draft-{_now():%Y%m%d-%H%M%S}.yaml"
            path.write_text(text, encoding="utf-8")
        return path

    def move(self, name: str, label: str, version: int | None, *, by: str, message: str) -> Move:
        """Move a label to a version; None removes the label, and resets ``production`` to its default.

        Raises:
            PromptTemplateError: There is no such version, the label is invalid, or it cannot be written.
        """
        check_label(label)
        versions = self.versions(name)
        if version is not None and version not in versions:
            self._check_archive(f"{name}@{version}")
            raise _no_version(f"{name}@{version}", name, versions)
        if version is None and label not in labels_of(self.moves(name)):
            raise PromptTemplateError(f"The prompt {name} has no label {label} to remove.")
        with self._writing(name) as folder:
            move = Move(label=label, version=version, by=by, at=_now(), message=message)
            add_move(folder, move)
        return move

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (SHIPPED, self._folder) if self._folder else (SHIPPED,)

    def _versions(self, name: str) -> dict[int, Path]:
        # Later folders override earlier ones, so the workspace takes precedence.
        return {int(path.stem): path for folder in self._folders for path in _files(folder, name)}

    def _known(self, name: str) -> dict[int, Path]:
        versions = self._versions(name)
        if not versions:
            self._check_archive(name)
            raise PromptTemplateError(f"There is no prompt {name}; there are: {', '.join(self.names())}.")
        return versions

    def _check_archive(self, reference: str) -> None:
        """Raise PromptTemplateError if a version, or all versions of a name, are in the archive."""
        archived = PromptArchive(self._folder).archived() if self._folder else []
        if any(reference in (one, one.partition("@")[0]) for one in archived):
            raise PromptTemplateError(
                f"The prompt {reference} is archived: `ragsmith prompts restore {reference}`."
            )

    def _labels(self, name: str, versions: Mapping[int, Path]) -> dict[str, int]:
        moved = {label: to for label, to in labels_of(self.moves(name)).items() if to in versions}
        return {PRODUCTION: _default(name, versions)} | moved

    def _read(self, path: Path) -> PromptTemplate:
        # Cached, because a question loads its prompts several times and reading one takes two milliseconds.
        try:
            found = path.stat()
        except OSError:
            return load_prompt(path)
        state = (found.st_mtime_ns, found.st_size)
        if path not in self._loaded or self._loaded[path][0] != state:
            self._loaded[path] = (state, load_prompt(path))
        return self._loaded[path][1]

    def _writing(self, name: str) -> AbstractContextManager[Path]:
        """Lock the library and yield the folder of a prompt."""
        if self._folder is None:
            raise PromptTemplateError("The shipped prompts are read-only: open a workspace to save prompts.")
        return writing_prompt(self._folder, name)


@cache
def find_prompt(reference: str) -> PromptTemplate:
    """Find a shipped prompt, cached.

    Raises:
        PromptTemplateError: There is no such prompt.
    """
    return PromptLibrary().find(reference)


def _files(folder: Path, name: str) -> list[Path]:
    # Other strings could traverse folders.
    if not re.fullmatch(NAME, name):
        return []
    return [path for path in (folder / name).glob("*.yaml") if path.stem.isdecimal()]


def _default(name: str, versions: Iterable[int]) -> int:
    return max([int(path.stem) for path in _files(SHIPPED, name)] or versions)


def _no_version(
    reference: str, name: str, versions: Iterable[int], labels: Iterable[str] = ()
) -> PromptTemplateError:
    known = f"versions of {name}: {_ranges(versions) or 'none'}"
    named = ", ".join(labels)
    return PromptTemplateError(f"There is no prompt {reference}; {known}{f'; labels: {named}' if named else ''}.")


def _ranges(numbers: Iterable[int]) -> str:
    """Format numbers compactly, such as ``1, 2, 4–900``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
