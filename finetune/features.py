"""Training rows as numbers, packed into a few arrays and one file."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.disk import saving
from prompts.files import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMES = ("ids", "second", "targets", "ends", "target_ends")


@dataclass(frozen=True, slots=True)
class Feature:
    """One tokenized sequence.

    Attributes:
        ids: Token ids.
        second: Index of the first token of the second segment.
        target: Training target, encoded as numbers by the task.
    """

    ids: tuple[int, ...]
    second: int
    target: tuple[int, ...]


class Features:
    """Many sequences, packed into 2 bytes per token, or 4 for a vocabulary of more than 65,536 tokens."""

    def __init__(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        self._arrays = arrays

    @classmethod
    def pack(cls, features: Iterable[Feature]) -> Features:
        """Pack sequences in the given order."""
        import numpy as np

        ids, second, targets = array("I"), array("I"), array("i")
        ends, target_ends = array("q", [0]), array("q", [0])
        for feature in features:
            ids.extend(feature.ids)
            second.append(feature.second)
            targets.extend(feature.target)
            ends.append(len(ids))
            target_ends.append(len(targets))
        return cls(
            {
                "ids": _narrowed(ids),
                "second": _narrowed(second),
                "targets": np.frombuffer(targets, np.int32) if targets else np.zeros(0, np.int32),
                "ends": np.frombuffer(ends, np.int64),
                "target_ends": np.frombuffer(target_ends, np.int64),
            }
        )

    def __len__(self) -> int:
        return len(self._arrays["second"])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Lengths of all sequences, in tokens."""
        ends: NDArray[np.int64] = self._arrays["ends"]  # type: ignore[assignment]
        return ends[1:] - ends[:-1]

    def __getitem__(self, at: int) -> Feature:
        ends, target_ends = self._arrays["ends"], self._arrays["target_ends"]
        return Feature(
            tuple(self._arrays["ids"][ends[at] : ends[at + 1]].tolist()),
            int(self._arrays["second"][at]),
            tuple(self._arrays["targets"][target_ends[at] : target_ends[at + 1]].tolist()),
        )

    def __iter__(self) -> Iterator[Feature]:
        return (self[at] for at in range(len(self)))

    @property
    def version(self) -> dict[str, int | str]:
        """Row count, token count and hash, for the card."""
        return {"rows": len(self), "tokens": int(self.lengths.sum()), "sha256": self.sha256}

    @property
    def sha256(self) -> str:
        """Hexadecimal hash of all arrays, which identifies the version of the data."""
        digest = hashlib.sha256()
        for name in sorted(self._arrays):
            digest.update(name.encode())
            digest.update(self._arrays[name].tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write a file atomically.

        Raises:
            StorageFull: The disk is full.
        """
        import numpy as np

        with saving(f"write {path}"), atomic_write(path) as file:
            np.savez(file, **self._arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Features | None:
        """Read a file that ``save`` wrote; returns None if it is missing or damaged by a power cut."""
        import numpy as np

        try:
            with path.open("rb") as file, np.load(file) as arrays:
                return cls({name: arrays[name] for name in NAMES})
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return None


def _narrowed(numbers: array[int]) -> NDArray[np.generic]:
    """Return numbers as an array of the smallest type that holds them."""
    import numpy as np

    found = np.asarray(numbers, np.uint32)
    return found if found.size and found.max() > np.iinfo(np.uint16).max else found.astype(np.uint16)
