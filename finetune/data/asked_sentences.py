"""Sentences and the questions that people asked about them (SQuAD format)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from finetune.data.questions import reading_rows
from finetune.data.splits import SQUAD, TEST, VALIDATION, HeldOut
from finetune.rows import ChatRow, ReadingRow
from prompts import find_prompt
from rag.documents.sentences import split_sentences
from rag.evaluation.squad import read_articles

# Share of the rows that use the shipped prompt.
SHIPPED = 0.7
WORDINGS = (
    "Write a question that this text answers.",
    "Ask one question about the text.",
    "Which question does this text answer? Write it down.",
    "Make a question for a quiz out of this text.",
)
# Words of a sentence; shorter ones are headings and remains of lists.
WORDS = range(5, 61)


def read_asked(data: Path, *, validation: bool = False) -> list[tuple[str, str]]:
    """Return pairs of a sentence and a question that it answers, without held-out paragraphs.

    Args:
        data: The folder of the training data.
        validation: Whether to read the articles for model selection instead of those to train on.

    Raises:
        DatasetError: The file is missing or malformed.
    """
    articles = read_articles(data / SQUAD)
    if validation:
        rows = reading_rows([article for article in articles if article.title in VALIDATION])
    else:
        held_out = HeldOut(data)
        known = [article for article in articles if article.title not in VALIDATION + TEST]
        rows = (row for row in reading_rows(known) if not held_out.holds(row.passage))
    pairs = ((sentence_of_answer(row), row.question.strip()) for row in rows if row.answers)
    return [(sentence, question) for sentence, question in pairs if len(sentence.split()) in WORDS]


def question_rows(pairs: list[tuple[str, str]], seed: int) -> Iterator[ChatRow]:
    """Yield the prompt that asks for a question about each sentence, and the question."""
    rng = random.Random(f"{seed} questions")
    prompt = find_prompt("write-question")
    for sentence, question in pairs:
        turns = list(prompt.render({"text": sentence}))
        if rng.random() >= SHIPPED:
            turns[0] = turns[0].model_copy(update={"content": rng.choice(WORDINGS)})
        yield ChatRow(tuple(turns), question[:1].upper() + question[1:])


def sentence_of_answer(row: ReadingRow) -> str:
    """Return the sentence that contains the first answer."""
    start, _ = row.answers[0]
    found = next(sentence for sentence in split_sentences(row.passage) if sentence.end > start)
    return " ".join(found.text.split())
