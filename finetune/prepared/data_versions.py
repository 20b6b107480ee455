"""Versions of prepared training data in a workspace: folders that are named by the hash of their contents.

``data/NAME/HASH/answers.jsonl``     training rows, see ``finetune.data.chat_rows``
``data/NAME/HASH/validation.jsonl``  rows that are never trained on; missing if there are none
``data/NAME/HASH/rendering.json``    see ``finetune.prepared.text_rendering``
``data/NAME/HASH/data.json``         where the rows come from, the plan, and what each step did

A folder appears under its name when it is complete, and never changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.data.chat_rows import SUFFIX, as_line
from finetune.disk import saving
from finetune.prepared.examples import Example, Examples
from finetune.prepared.leakless_split import Split
from finetune.prepared.preparation_plan import Plan, StepReport
from finetune.prepared.text_rendering import Rendering
from finetune.recipe import VALIDATION
from prompts import Message
from rag.errors import TuningError
from rag.models.local.local_adapters import RENDERING

MANIFEST = "data.json"
TRAINING = "answers"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HASH = 12


class DataVersion(BaseModel):
    """What is known about a version.

    Attributes:
        number: 1 for the first version of the name.
        sha256: Hash of rows and rendering, in hexadecimal.
        created: Seconds since the epoch.
        source, source_sha256: Name and hash of the file that it was prepared from.
        rows, validation_rows: Rows of each side.
        raw_rows: Rows of the file, with those that could not be used.
        unit: What the numbers of rows in ``steps`` count, ``line`` or ``row``.
        together: Rows that a near-duplicate keeps on the same side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    number: int
    sha256: str
    created: float
    source: str
    source_sha256: str
    rows: int
    validation_rows: int
    raw_rows: int
    unit: str = "row"
    together: int = 0
    plan: Plan
    steps: tuple[StepReport, ...]

    @property
    def label(self) -> str:
        """Name and number, such as ``synopses@2``."""
        return f"{self.name}@{self.number}"

    @property
    def folder_name(self) -> str:
        """Name of its folder."""
        return self.sha256[:_HASH]


@dataclass(frozen=True, slots=True)
class Source:
    """The file that rows were read from."""

    name: str
    sha256: str
    rows: int
    unit: str


class DataVersions:
    """The versions below a folder.

    Args:
        root: The workspace's folder ``data``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def save(
        self, name: str, split: Split, plan: Plan, steps: Sequence[StepReport], source: Source
    ) -> DataVersion:
        """Store a version; the same rows and rendering are the same version, which is then returned.

        Raises:
            TuningError: The name is malformed.
            StorageFull, WorkspaceError: The folder cannot be written.
        """
        from filelock import FileLock

        check_name(name)
        rendering = plan.rendering
        texts = {f"{TRAINING}{SUFFIX}": _lines(split.training, rendering)}
        if split.validation:
            texts[f"{VALIDATION}{SUFFIX}"] = _lines(split.validation, rendering)
        texts[RENDERING] = rendering.model_dump_json(indent=1) + "\n"
        sha256 = _hash_of(texts)
        folder = self._root / name
        with saving(f"store the data {name}"):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / ".lock")
            lock.acquire()
        try:
            known = self.versions(name)
            version = next((version for version in known if version.sha256 == sha256), None)
            if version is not None and _is_intact(folder / version.folder_name, texts):
                return version
            # A version whose files were damaged is written again under its number.
            version = version or DataVersion(
                name=name,
                number=max((version.number for version in known), default=0) + 1,
                sha256=sha256,
                created=time.time(),
                source=source.name,
                source_sha256=source.sha256,
                rows=len(split.training),
                validation_rows=len(split.validation),
                raw_rows=source.rows,
                unit=source.unit,
                together=split.together,
                plan=plan,
                steps=tuple(steps),
            )
            manifest = version.model_dump_json(indent=1) + "\n"
            _write_folder(folder / version.folder_name, texts | {MANIFEST: manifest})
        finally:
            lock.release()
        return version

    def newest(self) -> list[DataVersion]:
        """Return the newest version of every name, in the order of the names."""
        names = sorted(path.name for path in self._root.glob("*") if path.is_dir())
        return [versions[0] for name in names if (versions := self.versions(name))]

    def versions(self, name: str) -> list[DataVersion]:
        """Return the versions of a name, newest first; damaged ones are left out."""
        if not _NAME.fullmatch(name):
            return []
        # The folder of a write that was killed begins with a dot.
        folders = (path.parent for path in (self._root / name).glob(f"[!.]*/{MANIFEST}"))
        found = [version for folder in folders if (version := read_version(folder)) is not None]
        return sorted(found, key=lambda version: -version.number)

    def resolve(self, reference: str) -> DataVersion:
        """Find a version by ``NAME``, ``NAME@NUMBER`` or ``NAME@HASH``.

        Raises:
            TuningError: There is no such version.
        """
        name, _, which = reference.partition("@")
        versions = self.versions(name)
        if not versions:
            known = ", ".join(version.name for version in self.newest()) or "none yet"
            raise TuningError(
                f"There is no prepared data {name[:80]}.",
                fix=f"Prepare it with `ragsmith data prepare FILE --name NAME`; there is: {known}.",
            )
        if not which:
            return versions[0]
        for version in versions:
            if which == str(version.number) or (len(which) >= 4 and version.sha256.startswith(which)):
                return version
        raise TuningError(
            f"The data {name} has no version {which[:80]}; the newest is {versions[0].number}.",
            fix=f"List the versions with `ragsmith data show {name}`.",
        )

    def folder(self, version: DataVersion) -> Path:
        """Return the folder of a version."""
        return self._root / version.name / version.folder_name

    def examples(self, version: DataVersion) -> tuple[Example, ...]:
        """Return all rows of a version as before their rendering, training first; numbered from 1.

        Raises:
            TuningError: The files are damaged.
        """
        folder = self.folder(version)
        found: list[Example] = []
        for name in (TRAINING, VALIDATION):
            path = folder / f"{name}{SUFFIX}"
            try:
                lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
                for row in (json.loads(line) for line in lines if line):
                    turns = tuple(Message(**turn) for turn in row["messages"])
                    plain = _unrendered(turns, row["completion"], version.plan.rendering)
                    found.append(Example(len(found) + 1, *plain))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise TuningError(f"The file {path} is damaged.", fix="Prepare the data again.") from error
        return tuple(found)


def check_name(name: str) -> None:
    """Raise TuningError unless a name can be that of prepared data."""
    if not _NAME.fullmatch(name):
        raise TuningError(
            f"The name {name[:80]!r} must have only lower-case letters, digits, hyphens and underscores.",
            fix="Use a name such as synopses.",
        )


def read_version(folder: Path) -> DataVersion | None:
    """Return what is known about the version in a folder; None if there is none, or it is damaged."""
    try:
        return DataVersion.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None


def source_of(found: Examples) -> Source:
    """Return name and hash of the file that examples were read from."""
    path = found.table.path
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(path.name, sha256, len(found.examples) + len(found.problems), found.table.unit)


def _lines(examples: Sequence[Example], rendering: Rendering) -> str:
    return "".join(
        as_line(rendering.turns(example.turns), rendering.completion(example.completion)) + "\n"
        for example in examples
    )


def _unrendered(
    turns: tuple[Message, ...], completion: str, rendering: Rendering
) -> tuple[tuple[Message, ...], str]:
    """Return turns and completion without what the rendering has added."""
    first = turns[0]
    if rendering.system and first.role == "system" and first.content == rendering.system:
        turns = turns[1:]
    if rendering.form == "chat":
        return turns, completion
    plain = completion.removesuffix(rendering.end)
    return turns, plain.removeprefix(" ") if rendering.space else plain


def _hash_of(texts: dict[str, str]) -> str:
    digest = hashlib.sha256()
    for name, text in sorted(texts.items()):
        digest.update(f"{name}\n{len(text.encode())}\n".encode())
        digest.update(text.encode())
    return digest.hexdigest()


def _is_intact(folder: Path, texts: dict[str, str]) -> bool:
    """Whether the files in a folder have the given texts."""
    try:
        return all((folder / name).read_bytes() == text.encode() for name, text in texts.items())
    except OSError:
        return False


def _write_folder(folder: Path, texts: dict[str, str]) -> None:
    """Write a folder, whole or not at all."""
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        with saving(f"write {folder}"):
            work.mkdir()
            for name, text in texts.items():
                with (work / name).open("wb") as file:
                    file.write(text.encode())
                    file.flush()
                    os.fsync(file.fileno())
            shutil.rmtree(folder, ignore_errors=True)
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
