"""Splitting a dataset into parts without leakage between them."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from rag.errors import DatasetError
from rag.evaluation.cases import Case, bare_question

SHARES: Mapping[str, float] = MappingProxyType({"train": 0.8, "validation": 0.1, "test": 0.1})
_PAGE = re.compile(r" p\.[0-9]+$")


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a dataset.

    Attributes:
        parts: Cases by name of the part, in their original order.
        wanted: Requested shares of the parts, 0 to 1.
        groups: Number of groups of related cases, which stay together.
        largest: Number of cases in the largest group.
    """

    parts: Mapping[str, tuple[Case, ...]]
    wanted: Mapping[str, float]
    groups: int
    largest: int

    @property
    def shares(self) -> Mapping[str, float]:
        """The actual shares of the parts, 0 to 1."""
        total = sum(map(len, self.parts.values()))
        return {name: len(cases) / total if total else 0.0 for name, cases in self.parts.items()}


def split(cases: Iterable[Case], *, shares: Mapping[str, float] = SHARES, seed: int) -> Split:
    """Split cases without leakage.

    Cases stay together if they share an expected source, ask the same question except for case and punctuation, or
    are connected through other cases. A page counts as its document, a record as a source of its own unless a case
    names the whole file, and a name without folders as all files of that name. Groups are placed by descending
    size, where the most cases are missing.

    Args:
        cases: Cases with distinct ids.
        shares: Shares of the parts, 0 to 1, with a sum of 1.
        seed: Equal seeds split equal cases equally, whatever their order.

    Raises:
        DatasetError: The shares are invalid.
    """
    _check(shares)
    given = list(cases)
    groups = _groups(given)

    def order(group: Sequence[int]) -> tuple[int, str]:
        first = min(given[place].id for place in group)
        return -len(group), hashlib.sha256(f"{seed}\n{first}".encode()).hexdigest()

    missing = {name: share * len(given) for name, share in shares.items() if share > 0}
    where: dict[int, str] = {}
    for group in sorted(groups, key=order):
        part = max(missing, key=lambda name: missing[name])
        missing[part] -= len(group)
        where.update(dict.fromkeys(group, part))
    parts = {name: tuple(case for place, case in enumerate(given) if where[place] == name) for name in shares}
    return Split(parts, dict(shares), len(groups), max(map(len, groups), default=0))


def _check(shares: Mapping[str, float]) -> None:
    valid = all(math.isfinite(share) and share >= 0 for share in shares.values())
    if not valid or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        shown = ", ".join(f"{name} {share:g}" for name, share in shares.items()) or "none"
        raise DatasetError(f"Shares must be 0 to 1 with a sum of 1: {shown}.", fix="Correct the shares.")


def _groups(cases: Sequence[Case]) -> list[list[int]]:
    """Return the indices of related cases, found by union-find over their keys."""
    named = {_document(source) for case in cases for source in case.sources}
    parent = list(range(len(cases)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[tuple[str, str], int] = {}
    for place, case in enumerate(cases):
        for key in _keys(case, named):
            parent[root(place)] = root(first.setdefault(key, place))
    groups: dict[int, list[int]] = {}
    for place in range(len(cases)):
        groups.setdefault(root(place), []).append(place)
    return list(groups.values())


def _keys(case: Case, named: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the keys that a case shares with related cases."""
    yield "question", bare_question(case.question)
    for source in case.sources:
        document = _document(source)
        yield "source", document
        for name in _wider(document):
            if name in named:
                yield "source", name


def _wider(document: str) -> Iterator[str]:
    """Yield more general names of a document: without its first folders, and the file of a record."""
    for name in (document, *(document[: sign.start()] for sign in re.finditer("#", document))):
        yield name
        yield from (name[slash.end() :] for slash in re.finditer("/", name))


def _document(source: str) -> str:
    return _PAGE.sub("", source)
