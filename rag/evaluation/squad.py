"""Files in SQuAD's format: articles, paragraphs, questions with answers or without.

The format is that of SQuAD 1.1 and 2.0 (Rajpurkar and others, arXiv 1606.05250 and 1806.03822).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rag.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class Question:
    """A question and every answer that people gave; none where it has no answer.

    Attributes:
        answers: Text and first character, distinct.
    """

    id: str
    text: str
    answers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph and what was asked about it."""

    text: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Article:
    """An article of several paragraphs."""

    title: str
    paragraphs: tuple[Paragraph, ...]


def read_articles(path: Path) -> list[Article]:
    """Read a file.

    Raises:
        EvaluationError: It is missing, or not in SQuAD's format.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return [
            Article(
                str(article.get("title", "")),
                tuple(
                    Paragraph(_text(paragraph["context"]), tuple(_question(each) for each in paragraph["qas"]))
                    for paragraph in article["paragraphs"]
                ),
            )
            for article in held["data"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise EvaluationError(
            f"{path} cannot be read as SQuAD questions: {reason}.",
            fix="Give a JSON file with data → paragraphs → context and qas.",
        ) from error


def _text(held: object) -> str:
    if not isinstance(held, str):
        raise TypeError("context is no text")
    return held


def _question(held: dict[str, object]) -> Question:
    answers = held.get("answers") or []
    if not isinstance(answers, list):
        raise TypeError("answers is no list")
    distinct = dict.fromkeys((str(each["text"]), int(each["answer_start"])) for each in answers)
    return Question(str(held["id"]), str(held["question"]), tuple(distinct))
