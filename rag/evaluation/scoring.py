"""The scores of one answer to one case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rag.encoders.encoder import Encoder
from rag.evaluation.cases import Case
from rag.evaluation.ranking_metrics import Found, rank_scores
from rag.evaluation.run_store import Score
from rag.evaluation.text_metrics import best_of, exact, f1, normalised, plain_answer, rouge_l
from rag.types import Answer

# Support from which a passage counts as carrying a sentence.
CARRIES = 0.5

Scores = dict[str, Score]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of an answer.

    Attributes:
        scores: ``judge``, 1 to 5, and ``judge_errors``, 0; where judging failed, ``judge_errors`` alone, 1; empty
            where the answer was not judged.
        reason: Why, in the judge's words, or why there is no judgement; at most 1,000 characters.
    """

    scores: Scores
    reason: str = ""


class Judge(Protocol):
    """Has an opinion of an answer."""

    identity: str
    """Model and prompt; empty for none."""

    async def judge(self, case: Case, answer: Answer) -> Judgement:
        """Its points with their reason; a judgement that fails is a ``judge_errors`` and no points."""
        ...


class NullJudge:
    """Has none."""

    identity = ""

    async def judge(self, case: Case, answer: Answer) -> Judgement:
        """No points."""
        return Judgement({})


class Scorer:
    """Scores answers in code.

    Args:
        encoder: For likeness beyond common words.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def score(self, case: Case, answer: Answer) -> Scores:
        """What can be said of an answer; a metric that says nothing of this case is left out.

        An answer that failed counts as none at all: a variant must not gain by failing.
        """
        answered = answer.status == "answered"
        refused = answer.status == "abstained"
        told = plain_answer(answer.text) if answered else ""
        scores = {"answered": Score(answered), "failed": Score(not answered and not refused)}
        scores["refusal_precision"] = Score(refused and case.must_refuse, refused)
        scores["refusal_recall"] = Score(refused and case.must_refuse, case.must_refuse)
        if answered:
            scores["words"] = Score(len(told.split()))
        return scores | self._right(case, told, refused=refused) | _grounded(answer) | _retrieved(case, answer)

    def _right(self, case: Case, told: str, *, refused: bool) -> Scores:
        """The answer against the right ones; as in SQuAD a refusal is one where there is no answer."""
        if case.must_refuse:
            return {"exact": Score(refused), "f1": Score(refused)}
        if not case.answers:
            return {}
        words = f" {normalised(told)} "
        return {
            "contains": Score(
                any(f" {normalised(right)} " in words for right in case.answers if normalised(right))
            ),
            "exact": Score(best_of(exact, told, case.answers)),
            "f1": Score(best_of(f1, told, case.answers)),
            "rouge_l": Score(best_of(rouge_l, told, case.answers)),
            "similarity": Score(self._similarity(told, case.answers)),
        }

    def _similarity(self, told: str, right: tuple[str, ...]) -> float:
        if not told:
            return 0.0
        vectors = self._encoder.embed([told, *right])
        return max(0.0, min(1.0, float((vectors[1:] @ vectors[0]).max())))


def _grounded(answer: Answer) -> Scores:
    if answer.status != "answered" or not answer.claims:
        return {}
    carried = {citation.marker for citation in answer.citations if citation.support >= CARRIES}
    claims = len(answer.claims)
    with_carrier = sum(bool(carried & set(claim.markers)) and claim.support >= CARRIES for claim in answer.claims)
    scores = {
        "groundedness": Score(sum(claim.support for claim in answer.claims) / claims),
        "citation_recall": Score(with_carrier / claims),
    }
    if answer.citations:
        scores["citation_precision"] = Score(len(carried) / len(answer.citations))
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
