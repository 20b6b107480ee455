"""The metrics of an evaluation: name, unit, and whether higher is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal["retrieval", "answer", "grounding", "refusal", "judge", "cost"]
Unit = Literal["share", "s", "words", "tokens", "USD", "points"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Its name on the command line and in files.
        title: Its name at the head of a table.
        unit: ``share`` is 0 to 1 and shown as a percentage.
        higher_is_better: The preferred direction; None if there is none.
        description: One sentence.
        quantile: The quantile over the cases, 0 to 1; None for the mean.
    """

    name: str
    title: str
    group: Group
    unit: Unit
    higher_is_better: bool | None
    description: str
    quantile: float | None = None


METRICS: tuple[Metric, ...] = (
    Metric("recall", "Recall", "retrieval", "share", True, "Share of the expected sources that were retrieved."),
    Metric("ndcg", "nDCG", "retrieval", "share", True, "Rank of the expected sources (Järvelin and Kekäläinen)."),
    Metric("mrr", "MRR", "retrieval", "share", True, "Reciprocal rank of the first expected source."),
    Metric(
        "context_precision",
        "Context prec.",
        "retrieval",
        "share",
        True,
        "Mean precision at the rank of every passage of an expected source.",
    ),
    Metric("contains", "Contains", "answer", "share", True, "The answer contains a reference answer verbatim."),
    Metric("exact", "Exact", "answer", "share", True, "SQuAD's exact match; for a question to refuse, a refusal."),
    Metric("f1", "F1", "answer", "share", True, "SQuAD's F1 of the words; for a question to refuse, a refusal."),
    Metric("rouge_l", "ROUGE-L", "answer", "share", True, "Longest common subsequence with a reference answer."),
    Metric(
        "similarity",
        "Similarity",
        "answer",
        "share",
        True,
        "Cosine between answer and reference answer, by the encoder.",
    ),
    Metric("groundedness", "Grounded", "grounding", "share", True, "Support of the sentences by the passages."),
    Metric(
        "citation_precision",
        "Cit. prec.",
        "grounding",
        "share",
        True,
        "Share of the citations that support their sentences.",
    ),
    Metric(
        "citation_recall",
        "Cit. recall",
        "grounding",
        "share",
        True,
        "Share of the sentences that a citation supports.",
    ),
    Metric(
        "replaced",
        "Replaced",
        "grounding",
        "share",
        False,
        "Share of the answers in which quotations replace what a model wrote, because it failed the checks.",
    ),
    Metric(
        "refusal_precision", "Refusal prec.", "refusal", "share", True, "Share of the refusals that were right."
    ),
    Metric(
        "refusal_recall",
        "Refusal recall",
        "refusal",
        "share",
        True,
        "Share of the questions to refuse that were refused.",
    ),
    Metric("answered", "Answered", "refusal", "share", None, "Share of the questions that were answered."),
    Metric("failed", "Failed", "refusal", "share", False, "Share of the questions that failed."),
    Metric("judge", "Judge", "judge", "points", True, "Points by the judging model's rubric, 1 to 5."),
    Metric(
        "judge_errors",
        "Judge errors",
        "judge",
        "share",
        False,
        "Share of the answers that the judging model failed to judge.",
    ),
    Metric(
        "judge_tokens",
        "Judge tokens",
        "judge",
        "tokens",
        None,
        "Tokens that the judging model read and wrote, per answer that it was asked about.",
    ),
    Metric("judge_cost", "Judge cost", "judge", "USD", None, "Known cost of judging, per answer that was judged."),
    Metric("words", "Words", "answer", "words", None, "Words of an answer, without citation markers."),
    Metric("latency_p50", "Latency p50", "cost", "s", False, "Median time to answer.", 0.5),
    Metric("latency_p95", "Latency p95", "cost", "s", False, "95th percentile of the time to answer.", 0.95),
    Metric("input_tokens", "Tokens in", "cost", "tokens", False, "Tokens read by models, per question."),
    Metric("output_tokens", "Tokens out", "cost", "tokens", False, "Tokens written by models, per question."),
    Metric(
        "cost",
        "Cost",
        "cost",
        "USD",
        False,
        "Known cost per question; an answer from the cache costs what it cost when it was asked.",
    ),
)

BY_NAME = {metric.name: metric for metric in METRICS}
