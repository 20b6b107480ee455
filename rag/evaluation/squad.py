"""Files in SQuAD's format: articles with paragraphs and questions.

The format is that of SQuAD 1.1 and 2.0 (Rajpurkar and others, arXiv 1606.05250 and 1806.03822).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rag.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class Question:
    """A question with all annotated answers; none if the paragraph does not answer it.

    Attributes:
        answers: Distinct pairs of text and start offset.
    """

    id: str
    text: str
    answers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph and its questions."""

    text: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Article:
    """An article and its paragraphs."""

    title: str
    paragraphs: tuple[Paragraph, ...]


def read_articles(path: Path) -> list[Article]:
    """Read a file.

    Raises:
        EvaluationError: The file is missing, or not in SQuAD's format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [
            Article(
                str(article.get("title", "")),
                tuple(
                    Paragraph(_text(paragraph["context"]), tuple(map(_question, paragraph["qas"])))
                    for paragraph in article["paragraphs"]
                ),
            )
            for article in content["data"]
        ]
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise EvaluationError(
            f"{path} must be a file in SQuAD's format: {reason}.",
            fix="Use a JSON file with data → paragraphs → context and qas.",
        ) from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("context must be a text")
    return value


def _question(entry: dict[str, object]) -> Question:
    answers = entry.get("answers") or []
    if not isinstance(answers, list):
        raise TypeError("answers must be a list")
    distinct = dict.fromkeys((str(answer["text"]), int(answer["answer_start"])) for answer in answers)
    return Question(str(entry["id"]), str(entry["question"]), tuple(distinct))
