"""The releases that have answered, by their names, so that a trace can be replayed as it was."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import IntegrityError

from rag.answering.release import Release
from rag.database import reading, writing
from rag.errors import ReleaseError
from rag.settings import AnswerSettings, DecodingSettings, GroundingSettings, RetrievalSettings
from rag.settings_section import Section
from rag.tables import releases as releases_table

_SECTIONS: Mapping[str, type[Section]] = {
    "retrieval": RetrievalSettings,
    "decoding": DecodingSettings,
    "grounding": GroundingSettings,
    "answer": AnswerSettings,
}
# Beside the fields of the release.
_DRAFT = "draft"


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A release as it was stored.

    Attributes:
        name: The name that traces have. It differs from ``release.name`` if another version of ragsmith stored a
            release with other fields.
        draft: The YAML of the prompt if it was an unsaved draft; else empty.
    """

    name: str
    release: Release
    draft: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether every setting of the release was read back."""
        return self.release.name == self.name


class ReleaseStore:
    """The releases in the database. Every method may raise DatabaseError; ``keep``, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, release: Release, draft: str = "") -> None:
        """Store a release, unless it is stored already.

        Args:
            release: The release.
            draft: The YAML of its prompt, if that is an unsaved draft.
        """
        content = {field.name: _plain(getattr(release, field.name)) for field in fields(release)}
        if draft:
            content[_DRAFT] = draft
        values = {"name": release.name, "first_used": time.time(), "content": content}
        with writing(self._engine) as connection:
            known = connection.scalar(select(releases_table.c.name).where(releases_table.c.name == release.name))
            if known is None:
                # Another process may have stored the same release in between.
                with contextlib.suppress(IntegrityError), connection.begin_nested():
                    connection.execute(insert(releases_table).values(values))

    def find(self, name: str) -> StoredRelease:
        """Return a release by its name. Fields that this version does not know are left out.

        Raises:
            ReleaseError: It was not stored, or cannot be read.
        """
        with reading(self._engine) as connection:
            content = connection.scalar(select(releases_table.c.content).where(releases_table.c.name == name))
        if content is None:
            raise ReleaseError(
                f"The release {name or 'of this trace'} was not stored.",
                fix="Older versions of ragsmith did not store releases.",
            )
        try:
            return StoredRelease(name, _read(content), _text(content.get(_DRAFT, "")))
        except (ValidationError, TypeError, AttributeError) as error:
            raise ReleaseError(
                f"The release {name} cannot be read: {_reason(error)}.",
                fix="A newer version of ragsmith may read it.",
            ) from error


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Section) else value


def _read(content: Mapping[str, Any]) -> Release:
    values: dict[str, Any] = {}
    for field in fields(Release):
        if field.name not in content:
            # Without a default, `Release` raises a TypeError that names the field.
            continue
        section = _SECTIONS.get(field.name)
        value = content[field.name]
        values[field.name] = _section(section, value) if section else _text(value)
    return Release(**values)


def _section(section: type[Section], value: Any) -> Section:
    known = {name: value[name] for name in value if name in section.model_fields}
    return section.model_validate(known)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} must be a text")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
