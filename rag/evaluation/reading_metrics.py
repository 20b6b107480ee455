"""How well a reader reads: the metrics of SQuAD's official evaluation, and two that it does not have.

As in ``evaluate-v2.0.py`` (Rajpurkar, Jia and Liang, arXiv 1806.03822), of several right answers the nearest
counts, and a question without an answer counts as right when none was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.documents.sentences import split_sentences
from rag.evaluation.squad import Article, Question
from rag.evaluation.text_metrics import TextMetric, best_of, exact, f1
from rag.models.extractive.span_reader import ReadPassage, SpanReader

BINS = 10
# Telling an answer whose probability is p earns 2/3 p, since a right answer scores two thirds on average, and
# telling none earns 1 - p: equal at 0.6.
WORTH_TELLING = 0.6


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a reader says to one question.

    Attributes:
        text: The best span, whether or not it would be told.
        probability: That the passage answers the question, 0 to 1.
        in_sentence: Whether an answer begins in the sentence of the best span; None without answers.
    """

    question: Question
    text: str
    probability: float
    in_sentence: bool | None


@dataclass(frozen=True, slots=True)
class ReadingScores:
    """All in percent, but ``total``, ``threshold`` and ``calibration_error``.

    Attributes:
        exact, f1: Over all questions.
        answerable_exact, answerable_f1: Over those with an answer; None where there are none.
        unanswerable: Of those without an answer, the share for which none was given; None where there are none.
        right_sentence: Of those with an answer, the share whose best span stands in the right sentence, told or
            not; None where there are none.
        best_f1: Over all, had the best threshold for these questions been known.
        threshold: Probability under which no answer was given; 0 where every question was answered.
        calibration_error: Expected calibration error of the probability in ten bins of equal width (Guo and
            others, arXiv 1706.04599), 0 to 1; None where every question has an answer.
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
    """Read every paragraph for each of its questions, article by article."""
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
                    any(each.start <= start < each.end for _, start in question.answers)
                    for each in sentences
                    if each.start == best.sentence.start
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
        predictions: At least one.
        threshold: Probability under which no answer is given; by default ``WORTH_TELLING``, or none at all where
            every question has an answer.
    """
    answerable = [each for each in predictions if each.question.answers]
    unanswerable = [each for each in predictions if not each.question.answers]
    least = (WORTH_TELLING if unanswerable else 0.0) if threshold is None else threshold
    told = {id(each): each.text if each.probability >= least else "" for each in predictions}

    def mean(metric: TextMetric, some: Sequence[Prediction]) -> float | None:
        values = [nearest(metric, told[id(each)], each.question) for each in some]
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
    """The best value against any right answer; no answer is right where there is none."""
    return best_of(metric, given, [text for text, _ in question.answers])


def calibration_error(told: Sequence[tuple[float, bool]]) -> float:
    """Expected calibration error: how far probabilities lie from what happened, 0 to 1.

    Args:
        told: Probability, and whether it happened; at least one.
    """
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for probability, happened in told:
        bins[min(int(probability * BINS), BINS - 1)].append((probability, happened))
    return sum(
        abs(sum(probability for probability, _ in each) - sum(happened for _, happened in each)) for each in bins
    ) / len(told)


def _best_f1(predictions: Sequence[Prediction]) -> float:
    """As the official evaluation finds it: thresholds tried from the surest answer down."""
    current = best = float(sum(not each.question.answers for each in predictions))
    for each in sorted(predictions, key=lambda each: -each.probability):
        if each.question.answers:
            current += nearest(f1, each.text, each.question)
        elif each.text:
            current -= 1
        best = max(best, current)
    return 100 * best / len(predictions)
