"""The prompts of a workspace, over those that ship: versions that never change, and labels that move.

``NAME/VERSION.yaml``      one version
``NAME/labels.jsonl``      see ``prompts.labels``
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from prompts.files import load_prompt, write_prompt
from prompts.labels import PRODUCTION, Move, add_move, check_label, labels_of, read_moves
from prompts.template import NAME, PromptTemplate, PromptTemplateError, Saved

SHIPPED = Path(__file__).parent / "library"


class PromptLibrary:
    """Finds, saves and labels prompts.

    Args:
        folder: Of the workspace, whose own files win; None for what ships alone, which is never written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._loaded: dict[Path, tuple[tuple[int, int], PromptTemplate]] = {}

    def find(self, reference: str) -> PromptTemplate:
        """The prompt that a reference names, ready to be rendered.

        Args:
            reference: ``NAME``, ``NAME@VERSION`` or ``NAME@LABEL``. A name alone is its label ``production``;
                where that was never moved, the newest version that ships, else the newest one.

        Raises:
            PromptTemplateError: There is none, or it is malformed.
        """
        return self.load(reference).resolved(self.load)

    def load(self, reference: str) -> PromptTemplate:
        """The same as it was written, what it includes not yet in its place."""
        name, at, wanted = reference.partition("@")
        label = wanted if at else PRODUCTION
        # The folder is listed once: a question asks for its prompts, and there may be thousands of versions.
        versions = self._versions(name) if at else self._known(name)
        labels = self._labels(name, versions) if versions else {}
        number = {str(each): each for each in versions}.get(label, labels.get(label))
        if number is None:
            raise _no_version(reference, name, versions, labels)
        return self._read(versions[number])

    def names(self) -> list[str]:
        """All prompts, by name."""
        folders = {path.name for folder in self._folders if folder.is_dir() for path in folder.iterdir()}
        return sorted(name for name in folders if self._versions(name))

    def versions(self, name: str) -> list[int]:
        """The versions of a prompt, oldest first.

        Raises:
            PromptTemplateError: There is no such prompt.
        """
        return sorted(self._known(name))

    def labels(self, name: str) -> dict[str, int]:
        """Where the labels of a prompt point; ``production`` always does.

        Raises:
            PromptTemplateError: There is no such prompt, or its labels are damaged.
        """
        return self._labels(name, self._known(name))

    def moves(self, name: str) -> tuple[Move, ...]:
        """Every move of its labels, oldest first.

        Raises:
            PromptTemplateError: The labels are damaged.
        """
        return read_moves(self._folder / name) if self._folder else ()

    def save(self, draft: PromptTemplate, *, by: str, message: str) -> PromptTemplate:
        """Keep a draft as the next version of its name; its own number does not count.

        What others saved in the meantime stays as it is, with numbers of its own.

        Args:
            draft: What to keep.
            by: Who.
            message: Why.

        Raises:
            PromptTemplateError: It includes what is not there, or it cannot be written.
        """
        draft.resolved(self.load)
        with self._writing(draft.name) as folder:
            newest = max(self._versions(draft.name), default=0)
            saved = Saved(by=by, at=_now(), message=message, sha256=draft.sha256)
            changes = {"version": newest + 1, "saved": saved.model_dump()}
            prompt = PromptTemplate.model_validate(draft.model_dump() | changes)
            write_prompt(folder / f"{prompt.version}.yaml", prompt)
            if not newest:
                # Later versions are tried out before they are what the chat runs.
                add_move(folder, Move(label=PRODUCTION, version=1, by=by, at=saved.at, message=message))
        return prompt

    def keep_draft(self, name: str, text: str) -> Path:
        """Keep a text that is no version yet, so that nobody has to write it again.

        Raises:
            PromptTemplateError: It cannot be written.
        """
        with self._writing(name) as folder:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"draft-{_now():%Y%m%d-%H%M%S}.yaml"
            path.write_text(text, encoding="utf-8")
        return path

    def move(self, name: str, label: str, version: int | None, *, by: str, message: str) -> Move:
        """Let a label point to a version; None takes it away, and ``production`` back to where it began.

        Raises:
            PromptTemplateError: There is no such version, it is no label, or it cannot be written.
        """
        check_label(label)
        versions = self.versions(name)
        if version is not None and version not in versions:
            raise _no_version(f"{name}@{version}", name, versions)
        if version is None and label not in labels_of(self.moves(name)):
            raise PromptTemplateError(f"The prompt {name} has no label {label} that was set.")
        with self._writing(name) as folder:
            move = Move(label=label, version=version, by=by, at=_now(), message=message)
            add_move(folder, move)
        return move

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (SHIPPED, self._folder) if self._folder else (SHIPPED,)

    def _versions(self, name: str) -> dict[int, Path]:
        # What comes later replaces what came before: the workspace's own files win.
        return {int(path.stem): path for folder in self._folders for path in _files(folder, name)}

    def _known(self, name: str) -> dict[int, Path]:
        versions = self._versions(name)
        if not versions:
            raise PromptTemplateError(f"There is no prompt {name}; there are: {', '.join(self.names())}.")
        return versions

    def _labels(self, name: str, versions: Mapping[int, Path]) -> dict[str, int]:
        moved = {label: to for label, to in labels_of(self.moves(name)).items() if to in versions}
        shipped = [int(path.stem) for path in _files(SHIPPED, name)]
        return {PRODUCTION: max(shipped or versions)} | moved

    def _read(self, path: Path) -> PromptTemplate:
        # A question asks for its prompts several times, and reading one takes two milliseconds.
        try:
            found = path.stat()
        except OSError:
            return load_prompt(path)
        state = (found.st_mtime_ns, found.st_size)
        if path not in self._loaded or self._loaded[path][0] != state:
            self._loaded[path] = (state, load_prompt(path))
        return self._loaded[path][1]

    @contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """The folder of a prompt, for one writer at a time."""
        if self._folder is None:
            raise PromptTemplateError("The prompts that ship are not written: a workspace is needed.")
        if not re.fullmatch(NAME, name):
            raise PromptTemplateError(
                f"{name!r} is no name of a prompt: lower-case letters, digits and dashes, a letter first."
            )
        from filelock import FileLock

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / ".lock"):
                yield self._folder / name
        except OSError as error:
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
            raise PromptTemplateError(
                f"The prompt {name} cannot be written to {self._folder}: {reason}."
            ) from error


@cache
def find_prompt(reference: str) -> PromptTemplate:
    """One of the prompts that ship; what ships never changes, so it is read once.

    Raises:
        PromptTemplateError: There is none.
    """
    return PromptLibrary().find(reference)


def _files(folder: Path, name: str) -> list[Path]:
    # What is no name is no pattern either.
    inside = [folder / name] if re.fullmatch(NAME, name) else []
    return [path for each in inside for path in each.glob("*.yaml") if path.stem.isdecimal()]


def _no_version(
    reference: str, name: str, versions: Iterable[int], labels: Iterable[str] = ()
) -> PromptTemplateError:
    told = f"versions of {name}: {_ranges(versions) or 'none'}"
    named = ", ".join(labels)
    return PromptTemplateError(f"There is no prompt {reference}; {told}{f'; labels: {named}' if named else ''}.")


def _ranges(numbers: Iterable[int]) -> str:
    """``1, 2, 4–900``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
