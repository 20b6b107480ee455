"""Questions with known answers, and the sentences that our own retrieval and the shipped reader find for them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from finetune.data import open_questions, questions
from finetune.data.retrieved import searching_passages
from finetune.data.splits import SQUAD, TEST, VALIDATION, HeldOut, plain
from finetune.rows import ReadingRow
from rag.evaluation.squad import read_articles
from rag.models.extractive.evidence import Evidence, EvidencePassage
from rag.models.extractive.evidence_lines import evidence_lines
from rag.settings import EncoderSettings
from rag.workspace import Workspace

if TYPE_CHECKING:
    from rag.models.extractive.span_reader import SpanReader
    from rag.retrieval.retriever import Retriever

Item = TypeVar("Item")
Source = Literal["squad", "open-questions", "policyqa", "documents"]

READER = "reader"
SEARCHES = Path("open_qa/nq-open-oracle.jsonl.gz")
POLICIES = Path("open_qa/policyqa-dev.json")
# Questions of SQuAD 2.0 that their paragraph does not answer, and questions about privacy policies.
UNANSWERABLE, OF_POLICIES = 900, 900


class FoundLine(BaseModel):
    """A sentence of a passage.

    Attributes:
        number: Number of the passage in the prompt.
        title: Title of the passage.
        text: The sentence, with the words that probably answer between ``**``.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    title: str
    text: str


class FoundEvidence(BaseModel):
    """A question and what was found for it.

    Attributes:
        answers: The annotated answers; none if the passage does not answer.
        passage: The passage that the question was asked about; a sentence, if it was written about it.
        lines: The sentences that the reader chose; none if it found nothing.
        confidence: Probability that one of them answers, 0 to 1.
    """

    model_config = ConfigDict(frozen=True)

    source: Source
    question: str
    answers: tuple[str, ...]
    passage: str
    lines: tuple[FoundLine, ...]
    confidence: float

    @property
    def id(self) -> str:
        """Hash of question and passage."""
        return _id(self.question, self.passage)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a source."""

    source: Source
    row: ReadingRow

    @property
    def id(self) -> str:
        """The id of the evidence that is found for it."""
        return _id(self.row.question, self.row.passage)

    @property
    def title(self) -> str:
        """Title of the passage."""
        return self.row.place[0] if self.row.place else ""


def asked_questions(data: Path, seed: int, most: int | None = None) -> list[Asked]:
    """Read the questions of all sources in a random order, without held-out text.

    Args:
        data: The folder of the training data.
        seed: Decides the order, and the choice where a source has more questions than are used.
        most: Maximum number of questions of each source, for a trial; None for no limit.

    Raises:
        EvaluationError, TuningError: A file is missing or malformed.
    """
    rng = random.Random(f"{seed} asked")
    articles = [article for article in read_articles(data / SQUAD) if article.title not in VALIDATION + TEST]
    squad = list(questions.reading_rows(articles))
    policies = [row for row in questions.reading_rows(read_articles(data / POLICIES)) if row.answers]
    of_source: dict[Source, list[ReadingRow]] = {
        "squad": [
            *(row for row in squad if row.answers),
            *_sample([row for row in squad if not row.answers], UNANSWERABLE, rng),
        ],
        "open-questions": list(open_questions.reading_rows(data / SEARCHES)),
        "policyqa": _sample(policies, OF_POLICIES, rng),
    }
    held_out = HeldOut(data)
    asked: dict[str, Asked] = {}
    for source, rows in of_source.items():
        kept = [Asked(source, row) for row in rows if not held_out.holds(row.passage)]
        asked |= {one.id: one for one in (kept if most is None else _sample(kept, most, rng))}
    return rng.sample(list(asked.values()), len(asked))


def asked_about(sentence: str, question: str) -> Asked:
    """Return a question that a sentence of a technical document answers."""
    return Asked("documents", ReadingRow(question, sentence, answers=((0, len(sentence)),)))


def find_evidence(
    asked: Sequence[Asked], retriever: Retriever, reader: SpanReader, seed: int
) -> Iterator[FoundEvidence]:
    """Yield the evidence for each question, as the chat would find it.

    Questions about a policy do not name the site, since a person asks them of a single policy: where the search
    finds only other policies, the right passage is put among them.

    Args:
        asked: The questions.
        retriever: Searches the passages of all questions.
        reader: Marks the sentences that answer.
        seed: Decides the place of a passage that was not found.
    """
    from rag.models.extractive.sentence_ranking import SpanRanking

    encoder = retriever.index.encoder
    ranking = SpanRanking(reader, encoder, retriever.index.lexical)
    for one in asked:
        row = one.row
        found: list[tuple[str, str, tuple[str, ...], float | None]] = [
            (hit.passage.text, hit.passage.title, hit.passage.headings, hit.dense_score)
            for hit in retriever.search(row.question)
        ]
        own = plain(row.passage)
        if one.source == "policyqa" and not any(plain(text) in own for text, *_ in found):
            question, passage = encoder.embed([row.question, row.passage])
            place = random.Random(f"{seed} {one.id}").randint(0, max(len(found) - 1, 0))
            found[place:] = [(row.passage, one.title, (), float(question @ passage)), *found[place:-1]]
        passages = tuple(EvidencePassage(number, *fields) for number, fields in enumerate(found, 1))
        ranked = ranking.rank(Evidence(row.question, passages, ""))
        lines = evidence_lines(ranking.choose(ranked)) if ranked else ()
        titles = {passage.number: passage.title for passage in passages}
        yield FoundEvidence(
            source=one.source,
            question=row.question,
            answers=tuple(dict.fromkeys(row.passage[start:end] for start, end in row.answers)),
            passage=row.passage,
            lines=tuple(
                FoundLine(number=line.number, title=titles[line.number], text=line.text) for line in lines
            ),
            confidence=round(ranking.confidence(ranked), 4),
        )


@contextmanager
def searching_asked(asked: Sequence[Asked]) -> Iterator[Retriever]:
    """Index the passages of all questions temporarily and yield a retriever over them.

    Raises:
        TuningError: They cannot be indexed.
    """
    # In a fixed order, so that a resumed run finds the same.
    titles = {one.row.passage: one.title for one in sorted(asked, key=lambda one: one.id)}
    with searching_passages(titles) as retriever:
        yield retriever


def shipped_reader(workspace: Workspace) -> SpanReader:
    """Open the reader; the first use on a machine converts it, which takes about ten seconds.

    Raises:
        AdapterError: The adapter is missing or damaged.
        EncoderError: It cannot be converted.
    """
    from rag.encoders.adapters import find_adapter
    from rag.encoders.encoder_opening import choose_precision
    from rag.encoders.tuned_conversion import converted_network
    from rag.models.extractive.span_reader import SpanReader

    adapter = find_adapter(READER, workspace)
    adapter.check_task(READER)
    folder = converted_network(adapter, workspace.models)
    return SpanReader(folder, adapter, precision=choose_precision(EncoderSettings())[0])


def _sample(rows: list[Item], most: int, rng: random.Random) -> list[Item]:
    return rng.sample(rows, min(most, len(rows)))


def _id(question: str, passage: str) -> str:
    return hashlib.sha256(f"{question}\n{passage}".encode()).hexdigest()[:16]
