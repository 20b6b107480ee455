"""What is measured of an answer: each measure with its name, its unit, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal["retrieval", "answer", "grounding", "refusal", "judge", "cost"]
Unit = Literal["share", "s", "words", "tokens", "USD", "points"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    Attributes:
        name: As the command line and the files call it.
        title: For a table's head.
        unit: ``share`` is 0 to 1 and shown in percent.
        higher_is_better: The direction; None where neither is better by itself.
        told: What it is, in one sentence.
        quantile: The quantile over the cases, 0 to 1; None is the mean.
    """

    name: str
    title: str
    group: Group
    unit: Unit
    higher_is_better: bool | None
    told: str
    quantile: float | None = None


MEASURES: tuple[Measure, ...] = (
    Measure("recall", "Recall", "retrieval", "share", True, "Expected sources among those retrieved."),
    Measure(
        "ndcg", "nDCG", "retrieval", "share", True, "Expected sources near the top (Järvelin and Kekäläinen)."
    ),
    Measure("mrr", "MRR", "retrieval", "share", True, "One over the rank of the first expected source."),
    Measure(
        "context_precision",
        "Context prec.",
        "retrieval",
        "share",
        True,
        "Precision at each passage of an expected source, on average.",
    ),
    Measure(
        "contains",
        "Contains",
        "answer",
        "share",
        True,
        "A right answer stands in what was answered, word for word.",
    ),
    Measure("exact", "Exact", "answer", "share", True, "SQuAD's exact match; of a question to refuse, a refusal."),
    Measure("f1", "F1", "answer", "share", True, "SQuAD's F1 of the words; of a question to refuse, a refusal."),
    Measure(
        "rouge_l", "ROUGE-L", "answer", "share", True, "Longest common sequence of words with a right answer."
    ),
    Measure(
        "similarity", "Similarity", "answer", "share", True, "Cosine of answer and right answer, by the encoder."
    ),
    Measure("groundedness", "Grounded", "grounding", "share", True, "Support of the sentences by the passages."),
    Measure(
        "citation_precision", "Cit. prec.", "grounding", "share", True, "Citations that carry their sentences."
    ),
    Measure("citation_recall", "Cit. recall", "grounding", "share", True, "Sentences that a citation carries."),
    Measure("refusal_precision", "Refusal prec.", "refusal", "share", True, "Refusals that were to be refusals."),
    Measure(
        "refusal_recall", "Refusal recall", "refusal", "share", True, "Questions to refuse that were refused."
    ),
    Measure("answered", "Answered", "refusal", "share", None, "Questions that got an answer."),
    Measure("failed", "Failed", "refusal", "share", False, "Questions that got an error."),
    Measure("judge", "Judge", "judge", "points", True, "Points of a judging model by its rubric, 1 to 5."),
    Measure(
        "judge_errors", "Judge errors", "judge", "share", False, "Answers that the judging model failed to judge."
    ),
    Measure("words", "Words", "answer", "words", None, "Length of an answer, without its markers."),
    Measure("latency_p50", "Latency p50", "cost", "s", False, "Half of the questions took at most so long.", 0.5),
    Measure("latency_p95", "Latency p95", "cost", "s", False, "19 of 20 questions took at most so long.", 0.95),
    Measure("input_tokens", "Tokens in", "cost", "tokens", False, "Tokens that the models read, for a question."),
    Measure(
        "output_tokens", "Tokens out", "cost", "tokens", False, "Tokens that the models wrote, for a question."
    ),
    Measure(
        "cost", "Cost", "cost", "USD", False, "Of a question, where it is known; a cached answer costs nothing."
    ),
)

BY_NAME = {measure.name: measure for measure in MEASURES}
