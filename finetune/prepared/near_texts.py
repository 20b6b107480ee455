"""Groups of texts that are nearly the same, found by MinHash with locality-sensitive hashing.

Broder, "On the resemblance and containment of documents" (1997). Texts are compared by their runs of three words;
candidates that share a band of the signature are checked with the exact Jaccard similarity.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A changed word in a text of thirty keeps three quarters of the runs.
SIMILAR = 0.7
RUN = 3
# Texts of fewer words have too few runs to be compared.
FEWEST_WORDS = 5
# With 20 bands of 3 rows, a pair of similarity 0.7 is missed once in 4,000 times.
BANDS, ROWS = 20, 3
_PRIME = (1 << 31) - 1
_WORD = re.compile(r"\w+")


class Groups:
    """Numbers in disjoint groups, joined step by step (union-find)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, number: int) -> int:
        """Return the number that stands for the group."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Join the groups of two numbers."""
        first, second = sorted((self.root(one), self.root(other)))
        self._parents[second] = first

    def all(self) -> list[list[int]]:
        """Return the groups, each in ascending order, by their first numbers."""
        found: dict[int, list[int]] = {}
        for number in range(len(self._parents)):
            found.setdefault(self.root(number), []).append(number)
        return list(found.values())


def join_near(groups: Groups, texts: Sequence[str]) -> None:
    """Join the groups of texts that are nearly the same; the indices of the texts are the numbers.

    Equal texts are joined too, apart from case and white space; texts of less than ``FEWEST_WORDS`` words never.
    """
    words = [_WORD.findall(text.casefold()) for text in texts]
    long_enough = [number for number, found in enumerate(words) if len(found) >= FEWEST_WORDS]
    first_of: dict[str, int] = {}
    distinct: list[int] = []
    for number in long_enough:
        same = first_of.setdefault(" ".join(words[number]), number)
        if same == number:
            distinct.append(number)
        else:
            groups.join(same, number)
    runs = {number: _runs(words[number]) for number in distinct}
    for one, other in _candidates(distinct, [runs[number] for number in distinct]):
        if groups.root(one) != groups.root(other) and _jaccard(runs[one], runs[other]) >= SIMILAR:
            groups.join(one, other)


def near_groups(texts: Sequence[str]) -> list[list[int]]:
    """Return the groups of at least two texts that are nearly the same."""
    groups = Groups(len(texts))
    join_near(groups, texts)
    return [group for group in groups.all() if len(group) > 1]


def _runs(words: Sequence[str]) -> frozenset[int]:
    ends = range(max(len(words) - RUN + 1, 1))
    return frozenset(zlib.crc32(" ".join(words[at : at + RUN]).encode()) for at in ends)


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    return len(one & other) / len(one | other)


def _candidates(numbers: Sequence[int], runs: Sequence[frozenset[int]]) -> Iterable[tuple[int, int]]:
    """Yield pairs of neighbours that share a band: joining these joins all that share it."""
    import numpy as np

    rng = np.random.default_rng(0)
    factors = rng.integers(1, _PRIME, (BANDS * ROWS, 1), dtype=np.uint64)
    shifts = rng.integers(0, _PRIME, (BANDS * ROWS, 1), dtype=np.uint64)
    buckets: dict[bytes, list[int]] = {}
    for number, found in zip(numbers, runs, strict=True):
        signature = _signature(np.fromiter(found, np.uint64, len(found)), factors, shifts)
        for band in range(BANDS):
            key = bytes([band]) + signature[band * ROWS : (band + 1) * ROWS].tobytes()
            buckets.setdefault(key, []).append(number)
    for shared in buckets.values():
        yield from pairwise(shared)
        # A neighbour may be near by chance alone: compare with the first one, too.
        yield from ((shared[0], other) for other in shared[2:])


def _signature(
    runs: NDArray[np.uint64], factors: NDArray[np.uint64], shifts: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    smallest: NDArray[np.uint64] = ((runs % _PRIME * factors + shifts) % _PRIME).min(1)
    return smallest
