"""The Python enhancement proposals as a corpus of size: which files, and what is asked of them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.plan import Plan

SLICE = 40
QUICK_SLICE = 10
SEED = 20

_TITLE = re.compile(r"^Title: *(.+)$", re.MULTILINE)
_PARAGRAPH = re.compile(r"(?:^[A-Z][^\n]*\n(?:[^\s][^\n]*\n)*)", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_UNDERLINE = re.compile(r"^[=\-~^#*+\"'.`]{3,}$", re.MULTILINE)
_WORDS = range(6, 26)


def all_files(plan: Plan) -> list[Path]:
    """Every proposal, or as many as the plan takes, by name.

    Raises:
        FileNotFoundError: The data folder holds none.
    """
    files = sorted((plan.data / "docs" / "peps").glob("*.rst"))
    if not files:
        raise FileNotFoundError(f"There are no docs/peps/*.rst below {plan.data}.")
    return _spread(files, plan.peps or len(files))


def a_slice(plan: Plan) -> list[Path]:
    """Files from beginning to end at equal distances: old and new ones, short and long ones."""
    return _spread(all_files(plan), QUICK_SLICE if plan.quick else SLICE)


def _spread(files: list[Path], wanted: int) -> list[Path]:
    count = min(wanted, len(files))
    return [files[at * len(files) // count] for at in range(count)]


def questions(files: Sequence[Path], count: int) -> list[str]:
    """Titles and sentences of the documents, half of each, every one once, in a fixed random order.

    Args:
        files: Where they are taken from.
        count: How many at most.
    """
    chance = random.Random(SEED)
    titles: dict[str, None] = {}
    sentences: dict[str, None] = {}
    for path in chance.sample(list(files), len(files)):
        text = path.read_text(encoding="utf-8", errors="replace")
        titles.update(dict.fromkeys(title.strip() for title in _TITLE.findall(text)))
        found = list(_sentences(text))
        sentences.update(dict.fromkeys(chance.sample(found, min(len(found), -(-count // len(files)) + 1))))
    half = min(count // 2, len(titles))
    chosen = list(titles)[:half] + list(sentences)[: count - half]
    return chance.sample(chosen, len(chosen))


def _sentences(text: str) -> list[str]:
    found: list[str] = []
    for paragraph in _PARAGRAPH.findall(text):
        if _UNDERLINE.search(paragraph):
            continue
        found += [
            sentence
            for sentence in _SENTENCE.split(" ".join(paragraph.split()))
            if len(sentence.split()) in _WORDS and sentence.endswith((".", "?"))
        ]
    return found
