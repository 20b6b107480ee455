"""Questions that the shipped questioner writes about sentences of technical documents.

People asked the questions of the public datasets about encyclopedias and policies. The sentences of manuals are
longer, and say what to do with code and names in them; a writer that never saw one shortens it until it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from finetune.data.retrieved import searching
from finetune.data.sentence_forms import is_copyable
from finetune.text_sampler import Drawing, TextSampler
from prompts import find_prompt
from rag.evaluation.candidates import draw_passages, informative_sentence, single_question

if TYPE_CHECKING:
    from rag.retrieval.retriever import Retriever

DOCUMENTS = (Path("docs/fastapi"), Path("docs/peft"), Path("docs/trl"))
QUESTIONER = "questioner"
QUESTIONS = 1_500
# Prompts written at once.
BATCH = 48
# Remains of a page's layout, which no answer should have.
_LAYOUT = re.compile(r"[{}<>|]|https?:|:::|!!!|\]\[")


class WrittenQuestion(BaseModel):
    """A sentence and the question that was written about it; empty if what was written is not one question."""

    model_config = ConfigDict(frozen=True)

    sentence: str
    question: str


@contextmanager
def searching_documents(data: Path) -> Iterator[Retriever]:
    """Index the documents temporarily and yield a retriever over them.

    Raises:
        TuningError: They are missing, or cannot be indexed.
    """
    with searching(*(data / folder for folder in DOCUMENTS)) as retriever:
        yield retriever


def document_sentences(retriever: Retriever, seed: int, most: int) -> list[str]:
    """Return the most informative sentences of passages in random order, those that are answers as they are."""
    passages = draw_passages(retriever.index.engine, retriever.index.id, seed)
    sentences = (informative_sentence(text) for text, _ in passages)
    good = (one for one in sentences if is_copyable(one) and not _LAYOUT.search(one))
    return list(islice(dict.fromkeys(good), most))


def write_questions(sentences: Sequence[str], sampler: TextSampler) -> Iterator[list[WrittenQuestion]]:
    """Yield a question for each sentence, a batch at a time.

    Args:
        sentences: The sentences.
        sampler: The base with the questioner.
    """
    prompt = find_prompt("write-question")
    for at in range(0, len(sentences), BATCH):
        batch = sentences[at : at + BATCH]
        written = sampler.texts([(prompt.render({"text": sentence}), Drawing()) for sentence in batch])
        yield [
            WrittenQuestion(sentence=sentence, question=single_question(texts[0]))
            for sentence, texts in zip(batch, written, strict=True)
        ]
