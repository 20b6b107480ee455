"""Scores of an answer to a case."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from rag.encoders.encoder import Encoder
from rag.evaluation.cases import Case
from rag.evaluation.ranking_metrics import Found, rank_scores
from rag.evaluation.run_store import Score
from rag.evaluation.text_metrics import best_of, exact, f1, normalised, plain_answer, rouge_l
from rag.models.chat_models import EXTRACTIVE
from rag.types import Answer

# Minimum support of a sentence by a passage that it cites.
SUPPORTED = 0.5

Scores = dict[str, Score]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's assessment of an answer.

    Attributes:
        scores: ``judge`` from 1 to 5 with ``judge_errors`` 0, or only ``judge_errors`` 1 if judging failed; empty
            if the answer was not judged.
        reason: The judge's reason, or the error; at most 1,000 characters.
        spent: ``judge_tokens`` and ``judge_cost`` in dollars, as far as known; empty if no model was asked.
    """

    scores: Scores
    reason: str = ""
    spent: Scores = field(default_factory=dict)


class Judge(Protocol):
    """Judges answers."""

    identity: str
    """Model and prompt; empty without a model."""

    async def judge(self, case: Case, answer: Answer) -> Judgement:
        """Judge an answer; a failure is a ``judge_errors`` without points.

        Raises:
            ModelLimited: A limit of the judging model's server is reached.
        """
        ...


class NullJudge:
    """Judges no answers."""

    identity = ""

    async def judge(self, case: Case, answer: Answer) -> Judgement:
        """Return an empty judgement."""
        return Judgement({})


class Scorer:
    """Scores answers in code.

    Args:
        encoder: Encoder for the similarity of answers.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def score(self, case: Case, answer: Answer) -> Scores:
        """Score an answer by the metrics that apply to the case.

        A failed answer is scored like an empty one, so that a variant does not gain by failing.
        """
        answered = answer.status == "answered"
        refused = answer.status == "abstained"
        text = plain_answer(answer.text) if answered else ""
        scores = {"answered": Score(answered), "failed": Score(not answered and not refused)}
        scores["refusal_precision"] = Score(refused and case.must_refuse, refused)
        scores["refusal_recall"] = Score(refused and case.must_refuse, case.must_refuse)
        if answered:
            scores["words"] = Score(len(text.split()))
            if answer.model not in ("", EXTRACTIVE):
                # What only quotes has nothing to replace.
                scores["replaced"] = Score(any(one.quotation for one in answer.replaced))
        correctness = self._correctness(case, text, refused=refused)
        return scores | correctness | _grounded(answer) | _retrieved(case, answer)

    def _correctness(self, case: Case, text: str, *, refused: bool) -> Scores:
        """Compare with the reference answers; as in SQuAD, a refusal is right if there is no answer."""
        if case.must_refuse:
            return {"exact": Score(refused), "f1": Score(refused)}
        if not case.answers:
            return {}
        words = f" {normalised(text)} "
        return {
            "contains": Score(
                any(f" {normalised(right)} " in words for right in case.answers if normalised(right))
            ),
            "exact": Score(best_of(exact, text, case.answers)),
            "f1": Score(best_of(f1, text, case.answers)),
            "rouge_l": Score(best_of(rouge_l, text, case.answers)),
            "similarity": Score(self._similarity(text, case.answers)),
        }

    def _similarity(self, text: str, references: tuple[str, ...]) -> float:
        if not text:
            return 0.0
        vectors = self._encoder.embed([text, *references])
        return max(0.0, min(1.0, float((vectors[1:] @ vectors[0]).max())))


def _grounded(answer: Answer) -> Scores:
    if answer.status != "answered" or not answer.claims:
        return {}
    valid = {citation.marker for citation in answer.citations if citation.support >= SUPPORTED}
    claims = len(answer.claims)
    supported = sum(bool(valid & set(claim.markers)) and claim.support >= SUPPORTED for claim in answer.claims)
    scores = {
        "groundedness": Score(sum(claim.support for claim in answer.claims) / claims),
        "citation_recall": Score(supported / claims),
    }
    if answer.citations:
        scores["citation_precision"] = Score(len(valid) / len(answer.citations))
    return scores


def _retrieved(case: Case, answer: Answer) -> Scores:
    found = rank_scores([Found(hit.passage.name, hit.passage.page) for hit in answer.hits], case.sources)
    if found is None:
        return {}
    return {
        "recall": Score(found.recall),
        "ndcg": Score(found.ndcg),
        "mrr": Score(found.reciprocal_rank),
        "context_precision": Score(found.precision),
    }
