"""Prompts as the library lists them, read from their files: names, versions, labels and origins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import get_args

from prompts import PRODUCTION, PromptLibrary, PromptTemplate, PromptTemplateError, load_prompt
from prompts.files import as_yaml
from prompts.formats import Format, write_prompt_as
from prompts.library import SHIPPED
from prompts.template import Saved
from rag.errors import prompt_errors

BUILT_IN = "built-in"
"""The badge of a version that ships with ragsmith; the filter finds it."""
SUGGESTED = (PRODUCTION, "staging")


@dataclass(frozen=True, slots=True)
class PromptEntry:
    """A prompt in the list.

    Attributes:
        newest: Its newest version.
        labels: The version of each label.
        error: Why the prompt cannot be read; empty where it can.
    """

    name: str
    newest: int
    labels: dict[str, int]
    error: str = ""


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """A version in the list of a prompt's versions.

    Attributes:
        at: When it was saved; None where a person wrote the file, or ragsmith ships it.
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
class VersionPage:
    """The newest versions that match a filter, newest first.

    Attributes:
        matching: Number of versions that match.
        total: Number of all versions.
    """

    versions: tuple[VersionEntry, ...]
    matching: int
    total: int


@dataclass(frozen=True, slots=True)
class Export:
    """A version for another program; ``text`` is None where the format cannot express it, and ``why`` says so."""

    form: str
    text: str | None
    why: str = ""


class PromptListing:
    """Reads a library for the page. Every method may raise PromptError."""

    def __init__(self, library: PromptLibrary, folder: Path) -> None:
        self.library = library
        self._folder = folder
        self._shipped = PromptLibrary()
        self._saved_in: dict[Path, tuple[tuple[int, int], Saved | None]] = {}

    def entries(self) -> list[PromptEntry]:
        """List all prompts by name; one with damaged labels has its error."""
        return [self._entry(name) for name in self.library.names()]

    def load(self, reference: str) -> PromptTemplate:
        """Load a version as it was written."""
        with prompt_errors():
            return self.library.load(reference)

    def versions(self, name: str) -> list[int]:
        """Return the versions of a prompt, newest first."""
        with prompt_errors():
            return self.library.versions(name)[::-1]

    def labels(self, name: str) -> dict[str, int]:
        """Return the labels of a prompt with their versions."""
        with prompt_errors():
            return self.library.labels(name)

    def ships(self, name: str) -> frozenset[int]:
        """Return the versions that ragsmith ships."""
        # A version of the workspace replaces a shipped one of the same number, and names its author.
        return frozenset(self._shipped.versions(name)) if name in self._shipped.names() else frozenset()

    def version_page(self, name: str, text: str, limit: int) -> VersionPage:
        """Return the newest versions that match.

        Args:
            text: Part of a number, label, author or message, for which every version is read; empty for all.
            limit: Number of versions at most.
        """
        versions, labels, ships = self.versions(name), self.labels(name), self.ships(name)
        at: dict[int, list[str]] = {}
        for label, version in labels.items():
            at.setdefault(version, []).append(label)

        def entry(version: int) -> VersionEntry:
            return self._version(name, version, tuple(at.get(version, ())), version in ships)

        wanted = text.strip().lower()
        if not wanted:
            return VersionPage(tuple(map(entry, versions[:limit])), len(versions), len(versions))
        matching = [version for version in map(entry, versions) if _matches(version, wanted)]
        return VersionPage(tuple(matching[:limit]), len(matching), len(versions))

    def exports(self, reference: str) -> list[Export]:
        """Export a version in every format, with its includes filled in."""
        try:
            prompt = self.library.find(reference)
        except PromptTemplateError as error:
            return [Export("Not possible", None, str(error))]
        return [Export("yaml", as_yaml(prompt)), *(_export(prompt, form) for form in get_args(Format))]

    def choices(self, name: str) -> list[str]:
        """Return the labels to choose from: the usual ones, and the prompt's own."""
        return list(dict.fromkeys((*SUGGESTED, *self.labels(name))))

    def _entry(self, name: str) -> PromptEntry:
        try:
            newest = max(self.library.versions(name))
            return PromptEntry(name, newest, self.library.labels(name))
        except PromptTemplateError as error:
            return PromptEntry(name, 0, {}, str(error))

    def _version(self, name: str, version: int, labels: tuple[str, ...], ships: bool) -> VersionEntry:
        try:
            saved = self._saved(name, version)
        except PromptTemplateError as error:
            return VersionEntry(version, labels, error=str(error))
        if saved is None:
            return VersionEntry(version, labels, ships=ships)
        return VersionEntry(version, labels, saved.by, saved.at, saved.message)

    def _saved(self, name: str, version: int) -> Saved | None:
        # The library lists the folder for every version that it loads, too slow for a thousand of them.
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


def _matches(entry: VersionEntry, wanted: str) -> bool:
    texts = (str(entry.version), f"v{entry.version}", *entry.labels, entry.by, entry.message)
    return any(wanted in text.lower() for text in texts) or (entry.ships and wanted in BUILT_IN)


def _export(prompt: PromptTemplate, form: Format) -> Export:
    try:
        return Export(form, write_prompt_as(prompt, form))
    except PromptTemplateError as error:
        return Export(form, None, str(error))
