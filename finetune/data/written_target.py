"""Full sentences that the untuned base writes from a question, its short answer and a sentence of the evidence.

The base writes bad answers from evidence, but it turns a question and its answer into a sentence well enough that
a filter keeps most of them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finetune.data.found_evidence import FoundEvidence
from finetune.data.target_filter import TargetFilter, has_answer, recase
from finetune.text_sampler import Drawing, TextSampler
from prompts import Message
from rag.models.extractive.evidence_lines import MARK

Origin = Literal["greedy", "sampled", "none"]

# Longer answers are sentences of their own.
MOST_ANSWER_WORDS = 14
# Texts that are drawn where the most probable one is not kept.
SAMPLES, TEMPERATURE = 3, 0.5
# Prompts written at once.
BATCH = 48

_TASK = (
    "You turn a question and its short answer into one full sentence. Use the words of the question and of the "
    "evidence, and nothing else."
)
# Evidence, question, short answer, sentence: about nothing that exists, so that no fact is copied from them.
_EXAMPLES = (
    (
        "The mill at Oderau was rebuilt in **1904** after the flood, and it ground rye until 1951.",
        "When was the mill at Oderau rebuilt?",
        "1904",
        "The mill at Oderau was rebuilt in 1904.",
    ),
    (
        "Unlike the common toad, the marsh toad does not hibernate; it spends the winter in **compost heaps**.",
        "Where does the marsh toad spend the winter?",
        "compost heaps",
        "The marsh toad spends the winter in compost heaps.",
    ),
    (
        "Besides the harbour, the council also pays for **the two lighthouses and the pilot boat**.",
        "What does the council pay for besides the harbour?",
        "the two lighthouses and the pilot boat",
        "Besides the harbour, the council pays for the two lighthouses and the pilot boat.",
    ),
    (
        "Her second novel sold poorly, which **Anna Brehm** blamed on its grey cover.",
        "Who blamed the grey cover for the poor sales of the second novel?",
        "Anna Brehm",
        "Anna Brehm blamed the grey cover for the poor sales of her second novel.",
    ),
)


class WrittenTarget(BaseModel):
    """What was written for a question.

    Attributes:
        id: The id of its evidence.
        question: The question, with a capital and a question mark.
        answer: The short answer.
        number: Number of the passage that contains it.
        line: The sentence of the evidence that contains it, without marks.
        sentence: The written sentence; empty if none was kept.
        origin: Whether it is the most probable text, was drawn, or none was kept.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    question: str
    answer: str
    number: int
    line: str
    sentence: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class TargetRequest:
    """A question whose answer is in its evidence.

    Attributes:
        number, line: The first sentence with the answer, and the number of its passage.
        sources: All sentences and titles, without marks.
    """

    id: str
    question: str
    answer: str
    number: int
    line: str
    sources: tuple[str, ...]

    @property
    def turns(self) -> tuple[Message, ...]:
        """The prompt for the base."""
        start = self.line.casefold().find(self.answer.casefold())
        end = start + len(self.answer)
        marked = f"{self.line[:start]}{MARK}{self.line[start:end]}{MARK}{self.line[end:]}"
        turns = [Message(role="system", content=_TASK)]
        for evidence, question, answer, sentence in _EXAMPLES:
            turns += [
                Message(role="user", content=_asked(evidence, question, answer)),
                Message(role="assistant", content=sentence),
            ]
        evidence = marked if start >= 0 else self.line
        return *turns, Message(role="user", content=_asked(evidence, self.question, self.answer))


def target_request(evidence: FoundEvidence) -> TargetRequest | None:
    """Return what a sentence is written from; None if no line contains the answer, or if the answer is long.

    Questions about policies and technical documents are answered by their sentences.
    """
    if not evidence.answers or evidence.source in ("policyqa", "documents"):
        return None
    # Annotators of SQuAD chose different spans; the first answer to a search question is the usual form.
    answer = min(evidence.answers, key=len) if evidence.source == "squad" else evidence.answers[0]
    if len(answer.split()) > MOST_ANSWER_WORDS:
        return None
    lines = [(line.number, line.text.replace(MARK, "")) for line in evidence.lines]
    found = next(((number, text) for number, text in lines if has_answer(text, answer)), None)
    if found is None:
        return None
    sources = (*(text for _, text in lines), *dict.fromkeys(line.title for line in evidence.lines))
    return TargetRequest(evidence.id, tidy_question(evidence.question), answer, *found, sources)


def write_targets(
    requests: Sequence[TargetRequest], sampler: TextSampler, seed: int
) -> Iterator[list[WrittenTarget]]:
    """Yield the outcome of each request, a batch at a time.

    Args:
        requests: The questions.
        sampler: The base.
        seed: Decides what is drawn, independently of the other requests.
    """
    for at in range(0, len(requests), BATCH):
        batch = requests[at : at + BATCH]
        filters = [TargetFilter(one.question, one.answer, one.sources) for one in batch]
        written = sampler.texts([(one.turns, Drawing()) for one in batch])
        outcomes: list[tuple[str, Origin]] = []
        for one, judge, texts in zip(batch, filters, written, strict=True):
            sentence = _best(texts, judge, one)
            outcomes.append((sentence, "greedy") if sentence else ("", "none"))
        again = [number for number, (sentence, _) in enumerate(outcomes) if not sentence]
        drawn = sampler.texts([(batch[number].turns, _drawing(batch[number], seed)) for number in again])
        for number, texts in zip(again, drawn, strict=True):
            sentence = _best(texts, filters[number], batch[number])
            if sentence:
                outcomes[number] = sentence, "sampled"
        yield [
            WrittenTarget(
                id=one.id,
                question=one.question,
                answer=one.answer,
                number=one.number,
                line=one.line,
                sentence=sentence,
                origin=origin,
            )
            for one, (sentence, origin) in zip(batch, outcomes, strict=True)
        ]


def tidy_question(question: str) -> str:
    """Return a question with a capital at its beginning and a sign at its end."""
    question = question.strip()
    question = question[:1].upper() + question[1:]
    return question if question.endswith(("?", ".", "!")) else f"{question}?"


def _best(texts: Sequence[str], judge: TargetFilter, one: TargetRequest) -> str:
    """Return the most frequent text without a fault; empty if there is none."""
    sentences = [recase(text.replace(MARK, ""), one.sources) for text in texts]
    good = Counter(sentence for sentence in sentences if judge.fault_of(sentence) is None)
    return good.most_common(1)[0][0] if good else ""


def _drawing(one: TargetRequest, seed: int) -> Drawing:
    number = random.Random(f"{seed} target {one.id}").getrandbits(31)
    return Drawing(SAMPLES, TEMPERATURE, seed=number)


def _asked(evidence: str, question: str, answer: str) -> str:
    return f"Evidence: {evidence}\nQuestion: {question}\nShort answer: {answer}"
