"""What the library shows of prompts, read from their files: names, versions, labels, and how they came to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import get_args

from prompts import PRODUCTION, PromptLibrary, PromptTemplate, PromptTemplateError, load_prompt
from prompts.diff import Change, diff
from prompts.files import as_yaml
from prompts.formats import Format, write_prompt_as
from prompts.library import SHIPPED
from prompts.template import Saved
from rag.errors import prompt_errors

SUGGESTED = (PRODUCTION, "staging")


@dataclass(frozen=True, slots=True)
class Entry:
    """A prompt in the list.

    Attributes:
        newest: Its newest version.
        labels: Where they point.
        error: Why it cannot be read; empty where it can.
    """

    name: str
    newest: int
    labels: dict[str, int]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """A version on the time line.

    Attributes:
        at: When it was saved; None where a person wrote the file, or it ships.
        error: Why the version cannot be read; empty where it can.
    """

    version: int
    labels: tuple[str, ...]
    by: str = ""
    at: datetime | None = None
    message: str = ""
    ships: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A part of the time line, newest first.

    Attributes:
        fitting: How many versions fit the filter.
        total: How many there are.
    """

    points: tuple[Point, ...]
    fitting: int
    total: int


@dataclass(frozen=True, slots=True)
class Export:
    """A version for another program; ``text`` is None where the format has no like of it, and ``why`` says so."""

    form: str
    text: str | None
    why: str = ""


class Shelf:
    """Reads a library for the page. Every method may raise PromptError."""

    def __init__(self, library: PromptLibrary, folder: Path) -> None:
        self.library = library
        self._folder = folder
        self._shipped = PromptLibrary()
        self._saved_in: dict[Path, tuple[tuple[int, int], Saved | None]] = {}

    def entries(self) -> list[Entry]:
        """All prompts, by name; one whose labels are damaged is listed with the reason."""
        return [self._entry(name) for name in self.library.names()]

    def load(self, reference: str) -> PromptTemplate:
        """A version as it was written."""
        with prompt_errors():
            return self.library.load(reference)

    def versions(self, name: str) -> list[int]:
        """The versions of a prompt, newest first."""
        with prompt_errors():
            return self.library.versions(name)[::-1]

    def labels(self, name: str) -> dict[str, int]:
        """Where the labels of a prompt point."""
        with prompt_errors():
            return self.library.labels(name)

    def ships(self, name: str) -> frozenset[int]:
        """The versions that come with ragsmith."""
        # One of the workspace with the same number takes its place, and says who saved it.
        return frozenset(self._shipped.versions(name)) if name in self._shipped.names() else frozenset()

    def line(self, name: str, text: str, limit: int) -> Line:
        """The newest versions that fit.

        Args:
            text: Of a number, label, author or message; empty for all. Only then is every version read.
            limit: At most so many.
        """
        versions, labels, ships = self.versions(name), self.labels(name), self.ships(name)
        at: dict[int, list[str]] = {}
        for label, version in labels.items():
            at.setdefault(version, []).append(label)

        def point(version: int) -> Point:
            return self._point(name, version, tuple(at.get(version, ())), version in ships)

        wanted = text.strip().lower()
        if not wanted:
            return Line(tuple(point(version) for version in versions[:limit]), len(versions), len(versions))
        fitting = [shown for shown in map(point, versions) if _fits(shown, wanted)]
        return Line(tuple(fitting[:limit]), len(fitting), len(versions))

    def changes(self, old: PromptTemplate, new: PromptTemplate) -> tuple[Change, ...]:
        """What differs between two versions."""
        return diff(old, new)

    def exports(self, reference: str) -> list[Export]:
        """A version in every format, what it includes in its place."""
        try:
            prompt = self.library.find(reference)
        except PromptTemplateError as error:
            return [Export("Not as it is", None, str(error))]
        return [Export("yaml", as_yaml(prompt)), *(_export(prompt, form) for form in get_args(Format))]

    def choices(self, name: str) -> list[str]:
        """The labels that a person may want to move: those that everybody knows, and the prompt's own."""
        return list(dict.fromkeys((*SUGGESTED, *self.labels(name))))

    def _entry(self, name: str) -> Entry:
        try:
            newest = max(self.library.versions(name))
            return Entry(name, newest, self.library.labels(name))
        except PromptTemplateError as error:
            return Entry(name, 0, {}, str(error))

    def _point(self, name: str, version: int, labels: tuple[str, ...], ships: bool) -> Point:
        try:
            saved = self._saved(name, version)
        except PromptTemplateError as error:
            return Point(version, labels, error=str(error))
        if saved is None:
            return Point(version, labels, ships=ships)
        return Point(version, labels, saved.by, saved.at, saved.message)

    def _saved(self, name: str, version: int) -> Saved | None:
        # The library lists the folder for each version that it loads: with a thousand of them that is too slow.
        own, shipped = (folder / name / f"{version}.yaml" for folder in (self._folder, SHIPPED))
        path = own if own.is_file() else shipped
        try:
            found = path.stat()
        except OSError:
            return self.library.load(f"{name}@{version}").saved
        state = (found.st_mtime_ns, found.st_size)
        if path not in self._saved_in or self._saved_in[path][0] != state:
            self._saved_in[path] = (state, load_prompt(path).saved)
        return self._saved_in[path][1]


def _fits(point: Point, wanted: str) -> bool:
    texts: Sequence[str] = (str(point.version), f"v{point.version}", *point.labels, point.by, point.message)
    return any(wanted in text.lower() for text in texts) or (point.ships and wanted in "ships")


def _export(prompt: PromptTemplate, form: Format) -> Export:
    try:
        return Export(form, write_prompt_as(prompt, form))
    except PromptTemplateError as error:
        return Export(form, None, str(error))
