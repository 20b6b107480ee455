"""Rows from questions about paragraphs (SQuAD format)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finetune.rows import ReadingRow
from rag.evaluation.squad import Article


def reading_rows(articles: Sequence[Article]) -> Iterator[ReadingRow]:
    """Yield a row for every question, except those whose answer is not at its stated offset."""
    for article in articles:
        place = (article.title.replace("_", " "),) if article.title else ()
        for paragraph in article.paragraphs:
            for question in paragraph.questions:
                spans = tuple(
                    (start, start + len(text))
                    for text, start in question.answers
                    if text and paragraph.text[start : start + len(text)] == text
                )
                if question.answers and not spans:
                    continue
                yield ReadingRow(question.text, paragraph.text, place, spans)
