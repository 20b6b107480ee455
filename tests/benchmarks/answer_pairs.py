"""Answers of two models side by side, in an order that does not say whose they are, for a person to choose from.

``python -m tests.benchmarks.answer_pairs REPORT.json`` prints the pairs of a report without a choice yet. Choices
are lines of ``answer_choices.jsonl``: the key of a pair, and ``first``, ``second`` or ``equal``. A pair whose
answers change has another key, so that a choice never counts for other answers.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_report import Group, Row

CHOICES = Path(__file__).with_name("answer_choices.jsonl")
PAIRS = 100


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to a question.

    Attributes:
        key: Hash of question and answers.
        written_first: Whether the first one is that of the language model.
    """

    key: str
    question: str
    first: str
    second: str
    written_first: bool


def answer_pairs(
    quoted: Sequence[Mapping[str, Any]], written: Sequence[Mapping[str, Any]], most: int = PAIRS
) -> list[Pair]:
    """Return the answers to some questions that both models were asked, chosen at random.

    Args:
        quoted: What became of the questions with the extractive reader (``bench_handbook.Judged``).
        written: The same with the language model.
        most: Number of questions.
    """
    both = [(one, other) for one, other in zip(quoted, written, strict=True) if one["kind"] != "unanswerable"]
    drawn = random.Random(0).sample(both, min(most, len(both)))
    return [_pair(one["question"], one["answer"], other["answer"]) for one, other in drawn]


def _pair(question: str, quoted: str, written: str) -> Pair:
    digest = hashlib.sha256(json.dumps([question, quoted, written]).encode()).hexdigest()
    written_first = int(digest[:2], 16) % 2 == 0
    first, second = (written, quoted) if written_first else (quoted, written)
    return Pair(digest[:16], question, first, second, written_first)


def pair_group(pairs: Sequence[Pair]) -> Group:
    """Count the choices."""
    choices = read_choices()
    counts = {"written": 0, "equal": 0, "quoted": 0, "not chosen": 0}
    printed = []
    for pair in pairs:
        outcome = outcome_of(pair, choices)
        counts[outcome] += 1
        written, quoted = (pair.first, pair.second) if pair.written_first else (pair.second, pair.first)
        printed.append(f"{pair.question}  \n  written: {written}  \n  quoted: {quoted}  \n  better: **{outcome}**")
    titles = {"written": "the written answer is better", "equal": "equal", "quoted": "the quotation is better"}
    rows = [Row(f"{title}, of {len(pairs)}", str(counts[name])) for name, title in titles.items()]
    if counts["not chosen"]:
        rows.append(Row("without a choice", str(counts["not chosen"])))
    how = (
        "Answers on the handbook, chosen by reading them in an order that hides whose they are; see answer_pairs."
    )
    raw = {"pairs": [asdict(pair) for pair in pairs]}
    return Group("Answers of smollm2 beside those of the extractive reader", tuple(rows), how, raw, tuple(printed))


def outcome_of(pair: Pair, choices: Mapping[str, str]) -> str:
    """Return ``written``, ``quoted``, ``equal`` or ``not chosen``; the same text is equal without a choice."""
    if pair.first == pair.second:
        return "equal"
    choice = choices.get(pair.key, "not chosen")
    if choice in ("equal", "not chosen"):
        return choice
    return "written" if (choice == "first") == pair.written_first else "quoted"


def read_choices() -> dict[str, str]:
    """Return the choices by key."""
    if not CHOICES.is_file():
        return {}
    records = map(json.loads, CHOICES.read_text(encoding="utf-8").splitlines())
    return {record["key"]: record["choice"] for record in records}


def _undecided(report: Path) -> None:
    groups = json.loads(report.read_text(encoding="utf-8"))["groups"]
    choices = read_choices()
    for group in groups:
        for one in group.get("raw", {}).get("pairs", []):
            pair = Pair(**one)
            if outcome_of(pair, choices) == "not chosen":
                print(
                    json.dumps(
                        {"key": pair.key, "question": pair.question, "first": pair.first, "second": pair.second}
                    )
                )


if __name__ == "__main__":
    _undecided(Path(sys.argv[1]))
