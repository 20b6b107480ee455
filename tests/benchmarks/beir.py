"""Test collections in the BEIR layout: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv``."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

NAMES = ("scifact", "cranfield")


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, and queries with what is known about their answers.

    Attributes:
        corpus: The file of documents, one JSON object a line.
        queries: Text by id, only those that are judged.
        qrels: By query, the grade of each judged document.
    """

    name: str
    corpus: Path
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def read_collection(data: Path, name: str, split: str = "test") -> Collection:
    """Read one collection.

    Raises:
        FileNotFoundError: A file of it is missing.
    """
    folder = data / name
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / f"{split}.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    with (folder / "queries.jsonl").open(encoding="utf-8") as file:
        texts = {str(record["_id"]): str(record["text"]) for record in map(json.loads, file)}
    corpus = folder / "corpus.jsonl"
    if not corpus.is_file():
        raise FileNotFoundError(f"There is no {corpus}.")
    return Collection(name, corpus, {query: texts[query] for query in qrels}, qrels)
