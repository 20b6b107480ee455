"""Parting a dataset so that nothing of one part is known from another."""

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
        parts: The cases of each part, in the order in which they were given.
        wanted: The share that each part was to have, 0 to 1.
        groups: How many groups of cases belong together, and were not parted.
        largest: How many cases the largest of them has.
    """

    parts: Mapping[str, tuple[Case, ...]]
    wanted: Mapping[str, float]
    groups: int
    largest: int

    @property
    def shares(self) -> Mapping[str, float]:
        """The share that each part has come to, 0 to 1."""
        total = sum(map(len, self.parts.values()))
        return {name: len(cases) / total if total else 0.0 for name, cases in self.parts.items()}


def split(cases: Iterable[Case], *, shares: Mapping[str, float] = SHARES, seed: int) -> Split:
    """Part cases without leaks.

    Cases that expect a source in common, or ask the same question in other letters or punctuation, come into the
    same part, and so do cases that hang together through others. A page counts as its document, a record as one of
    its own unless a case names the whole file, and a name without folders as all files of that name. The largest
    group is placed first, each where most is missing.

    Args:
        cases: With distinct ids.
        shares: The share of each part, 0 to 1; together 1.
        seed: Equal seeds part equal cases equally, in whatever order they come.

    Raises:
        DatasetError: The shares are no shares.
    """
    _check(shares)
    held = list(cases)
    groups = _groups(held)

    def order(group: Sequence[int]) -> tuple[int, str]:
        first = min(held[place].id for place in group)
        return -len(group), hashlib.sha256(f"{seed}\n{first}".encode()).hexdigest()

    missing = {name: share * len(held) for name, share in shares.items() if share > 0}
    where: dict[int, str] = {}
    for group in sorted(groups, key=order):
        part = max(missing, key=lambda name: missing[name])
        missing[part] -= len(group)
        where.update(dict.fromkeys(group, part))
    parts = {name: tuple(case for place, case in enumerate(held) if where[place] == name) for name in shares}
    return Split(parts, dict(shares), len(groups), max(map(len, groups), default=0))


def _check(shares: Mapping[str, float]) -> None:
    fine = all(math.isfinite(share) and share >= 0 for share in shares.values())
    if not fine or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        told = ", ".join(f"{name} {share:g}" for name, share in shares.items()) or "none"
        raise DatasetError(
            f"These are no shares of a whole: {told}.", fix="Give numbers from 0 to 1 that sum up to 1."
        )


def _groups(cases: Sequence[Case]) -> list[list[int]]:
    """The places of the cases that belong together, found by union of what they have in common."""
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
    """What a case has in common with others, by the names that they give."""
    yield "question", bare_question(case.question)
    for source in case.sources:
        document = _document(source)
        yield "source", document
        for name in _wider(document):
            if name in named:
                yield "source", name


def _wider(document: str) -> Iterator[str]:
    """The names that mean it and perhaps more: without its first folders, and the file of a record."""
    for name in (document, *(document[: sign.start()] for sign in re.finditer("#", document))):
        yield name
        yield from (name[slash.end() :] for slash in re.finditer("/", name))


def _document(source: str) -> str:
    return _PAGE.sub("", source)
