"""Metrics of an extractive reader: those of SQuAD's official evaluation, and two more.

As in ``evaluate-v2.0.py`` (Rajpurkar, Jia and Liang, arXiv 1806.03822), the most similar of several reference
answers counts, and an unanswerable question counts as right if no answer was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.documents.sentences import split_sentences
from rag.evaluation.squad import Article, Question
from rag.evaluation.text_metrics import TextMetric, best_of, exact, f1
from rag.models.extractive.span_reader import ReadPassage, SpanReader

BINS = 10
# An answer with probability p scores 2/3 p, since a right answer scores two thirds on average, and no answer
# scores 1 - p. Both are equal at 0.6.
DEFAULT_THRESHOLD = 0.6


@dataclass(frozen=True, slots=True)
class Prediction:
    """A reader's best answer to a question.

    Attributes:
        text: The best span, whatever its probability.
        probability: Probability that the passage answers the question, 0 to 1.
        in_sentence: Whether an answer starts in the sentence of the best span; None without answers.
    """

    question: Question
    text: str
    probability: float
    in_sentence: bool | None


@dataclass(frozen=True, slots=True)
class ReadingScores:
    """Scores in percent, except for counts, ``threshold`` and ``calibration_error``.

    Attributes:
        total, answerable: Numbers of questions.
        exact, f1: Scores over all questions.
        answerable_exact, answerable_f1: Scores over the answerable questions; None without any.
        unanswerable: Share of the unanswerable questions without a given answer; None without any.
        right_sentence: Share of the answerable questions whose best span is in the right sentence, whatever its
            probability; None without any.
        best_f1: F1 over all questions with the best threshold for these questions.
        threshold: Minimum probability of a given answer.
        calibration_error: Expected calibration error of the probability in ten bins of equal width (Guo and
            others, arXiv 1706.04599), 0 to 1; None without unanswerable questions.
    """

    total: int
    answerable: int
    exact: float
    f1: float
    answerable_exact: float | None
    answerable_f1: float | None
    unanswerable: float | None
    right_sentence: float | None
    best_f1: float
    threshold: float
    calibration_error: float | None


def predict(reader: SpanReader, articles: Sequence[Article]) -> Iterator[Prediction]:
    """Yield the reader's answers to all questions, article by article."""
    for article in articles:
        place = (article.title.replace("_", " "),) if article.title else ()
        for paragraph in article.paragraphs:
            sentences = split_sentences(paragraph.text)
            for question in paragraph.questions:
                spans = reader.read(question.text, [ReadPassage(paragraph.text, place)])[0]
                best = max(spans, key=lambda span: span.margin, default=None)
                if best is None:
                    yield Prediction(question, "", 0.0, False if question.answers else None)
                    continue
                begins = [
                    any(sentence.start <= start < sentence.end for _, start in question.answers)
                    for sentence in sentences
                    if sentence.start == best.sentence.start
                ]
                yield Prediction(
                    question,
                    paragraph.text[best.start : best.end],
                    reader.probability(best.margin),
                    any(begins) if question.answers else None,
                )


def score(predictions: Sequence[Prediction], threshold: float | None = None) -> ReadingScores:
    """Score predictions.

    Args:
        predictions: At least one prediction.
        threshold: Minimum probability of a given answer; by default ``DEFAULT_THRESHOLD``, or 0 if all
            questions are answerable.
    """
    answerable = [prediction for prediction in predictions if prediction.question.answers]
    unanswerable = [prediction for prediction in predictions if not prediction.question.answers]
    least = (DEFAULT_THRESHOLD if unanswerable else 0.0) if threshold is None else threshold

    def mean(metric: TextMetric, some: Sequence[Prediction]) -> float | None:
        values = [nearest(metric, each.text if each.probability >= least else "", each.question) for each in some]
        return 100 * sum(values) / len(values) if values else None

    return ReadingScores(
        total=len(predictions),
        answerable=len(answerable),
        exact=mean(exact, predictions) or 0.0,
        f1=mean(f1, predictions) or 0.0,
        answerable_exact=mean(exact, answerable),
        answerable_f1=mean(f1, answerable),
        unanswerable=mean(exact, unanswerable),
        right_sentence=100 * sum(bool(each.in_sentence) for each in answerable) / len(answerable)
        if answerable
        else None,
        best_f1=_best_f1(predictions),
        threshold=least,
        calibration_error=calibration_error(
            [(each.probability, bool(each.question.answers)) for each in predictions]
        )
        if unanswerable
        else None,
    )


def nearest(metric: TextMetric, given: str, question: Question) -> float:
    """Return the best value against any reference answer; for an unanswerable question, no answer is right."""
    return best_of(metric, given, [text for text, _ in question.answers])


def calibration_error(outcomes: Sequence[tuple[float, bool]]) -> float:
    """Return the expected calibration error, 0 to 1.

    Args:
        outcomes: Pairs of a probability and whether the event happened; at least one.
    """
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for probability, happened in outcomes:
        bins[min(int(probability * BINS), BINS - 1)].append((probability, happened))
    return sum(
        abs(sum(probability for probability, _ in each) - sum(happened for _, happened in each)) for each in bins
    ) / len(outcomes)


def _best_f1(predictions: Sequence[Prediction]) -> float:
    """Return the best F1 of all thresholds, like the official evaluation."""
    current = best = float(sum(not each.question.answers for each in predictions))
    for each in sorted(predictions, key=lambda each: -each.probability):
        if each.question.answers:
            current += nearest(f1, each.text, each.question)
        elif each.text:
            current -= 1
        best = max(best, current)
    return 100 * best / len(predictions)
