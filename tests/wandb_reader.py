"""Reads the file of an offline W&B run.

The format is LevelDB's log: after a header of seven bytes come blocks of 32 KiB, in them fragments with a
head of seven bytes (checksum, length, kind); the fragments of one record together are a protobuf ``Record``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEAD = 7
_BLOCK = 32 * 1024
_FULL, _FIRST, _LAST = 1, 2, 4


@dataclass(frozen=True)
class RunFile:
    """What a run's file holds; nested keys are joined with dots in ``config`` and ``summary``."""

    history: list[dict[str, Any]]
    config: dict[str, Any]
    summary: dict[str, Any]
    exit_code: int | None
    records: list[Any]

    @property
    def summary_keys(self) -> set[str]:
        """The keys of the summary, without their nested ones."""
        return {key.partition(".")[0] for key in self.summary}

    @property
    def trees(self) -> list[dict[str, Any]]:
        """The trace trees, in the order of their logging."""
        return [json.loads(row["trace.root_span_dumps"]) for row in self.history if "trace.root_span_dumps" in row]


def read_run(path: Path) -> RunFile:
    """Read a ``.wandb`` file, also one whose writer was killed."""
    from wandb.proto.wandb_internal_pb2 import Record

    history: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    exit_code: int | None = None
    records: list[Any] = []
    for data in _payloads(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        records.append(record)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            history.append(_items(record.history.item))
        elif kind == "config":
            config |= _items(record.config.update)
        elif kind == "run":
            config |= _items(record.run.config.update)
        elif kind == "summary":
            summary |= _items(record.summary.update)
        elif kind == "exit":
            exit_code = record.exit.exit_code
    return RunFile(history, config, summary, exit_code, records)


def offline_runs(home: Path) -> list[Path]:
    """The run files below a workspace, oldest first."""
    return sorted((home / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_ctime)


def nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A span of a tree and all below it."""
    yield tree
    for child in tree["child_spans"] or ():
        yield from nodes(child)


def _items(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _payloads(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B", "not a W&B file"
    position, pieces = _HEAD, b""
    while position + _HEAD <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _HEAD:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        end = position + _HEAD + length
        if kind == 0 or end > len(data):
            return
        piece = data[position + _HEAD : end]
        pieces = piece if kind in (_FULL, _FIRST) else pieces + piece
        if kind in (_FULL, _LAST):
            yield pieces
        position = end
