"""The scores of a reader: the published definition of SQuAD 2.0's figures, and the two that it does not have."""

from __future__ import annotations

import json
import math
import re
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.documents.chunking import UNSPACED
from rag.errors import EvaluationError
from rag.evaluation.reading_metrics import DEFAULT_THRESHOLD, Prediction, calibration_error, nearest, score
from rag.evaluation.squad import Question, read_articles
from rag.evaluation.text_metrics import exact, f1, normalised

# The published definition, written down a second time: one letter and one word after the other.


def plainly_normalised(text: str) -> list[str]:
    """The words that count: in lower case, without punctuation and articles."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    words: list[str] = []
    word = ""
    for letter in f"{kept} ":
        if letter.isalnum() or letter == "_":
            word += letter
            continue
        words += [" " if word in ("a", "an", "the") else word, letter]
        word = ""
    return "".join(words).split()


def plain_exact(given: str, right: str) -> int:
    return int(plainly_normalised(given) == plainly_normalised(right))


def plain_f1(given: str, right: str) -> float:
    predicted, gold = plainly_normalised(given), plainly_normalised(right)
    if not predicted or not gold:
        return float(predicted == gold)
    left = list(gold)
    shared = 0
    for word in predicted:
        if word in left:
            left.remove(word)
            shared += 1
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def gold_answers(question: Question) -> list[str]:
    return [text for text, _ in question.answers if plainly_normalised(text)] or [""]


def plain_scores(predictions: list[Prediction], threshold: float) -> tuple[float, float]:
    """Exact match and F1 in percent, where answers below the threshold are withheld."""
    total_exact = total_f1 = 0.0
    for each in predictions:
        told = each.text if each.probability >= threshold else ""
        total_exact += max(plain_exact(told, gold) for gold in gold_answers(each.question))
        total_f1 += max(plain_f1(told, gold) for gold in gold_answers(each.question))
    return 100 * total_exact / len(predictions), 100 * total_f1 / len(predictions)


def plain_best_f1(predictions: list[Prediction]) -> float:
    """The best of all thresholds: the surest so many are told, whatever they are, and the others withheld.

    A question that cannot be answered counts as right while nothing is told of it; one that can counts once it
    is told, by its F1.
    """
    surest = sorted(predictions, key=lambda each: each.probability, reverse=True)
    totals = []
    for told in range(len(surest) + 1):
        total = 0.0
        for place, each in enumerate(surest):
            if each.question.answers:
                if place < told:
                    total += max(plain_f1(each.text, gold) for gold in gold_answers(each.question))
            elif place >= told or not each.text:
                total += 1
        totals.append(total)
    return 100 * max(totals) / len(predictions)


WORDS = st.lists(
    st.sampled_from("The a an mill Mill of, kelm's 1,802 - . x _ thean \n\t naïve ÉTÉ ß привет".split(" ")),
    max_size=6,
)
# In scripts without spaces, ragsmith counts characters.
SPACED = re.compile(f"[^{UNSPACED}]*")
TEXTS = st.one_of(WORDS.map(" ".join), WORDS.map("".join), st.text(max_size=12)).filter(SPACED.fullmatch)
QUESTIONS = st.builds(
    Question, st.just("1"), st.just("?"), st.lists(st.tuples(TEXTS, st.just(0)), max_size=3).map(tuple)
)
PREDICTIONS = st.builds(
    Prediction, QUESTIONS, TEXTS, st.integers(0, 20).map(lambda number: number / 20), st.booleans()
)


@settings(max_examples=100)
@given(TEXTS, TEXTS)
def test_two_answers_compare_as_published(given: str, right: str) -> None:
    assert normalised(given).split() == plainly_normalised(given)
    assert exact(given, right) == plain_exact(given, right)
    assert f1(given, right) == pytest.approx(plain_f1(given, right))


@settings(max_examples=60)
@given(st.lists(PREDICTIONS, min_size=1, max_size=12), st.one_of(st.none(), st.integers(0, 20)))
def test_many_answers_score_as_published(predictions: list[Prediction], twentieths: int | None) -> None:
    found = score(predictions, None if twentieths is None else twentieths / 20)
    usual = DEFAULT_THRESHOLD if any(not each.question.answers for each in predictions) else 0.0
    assert found.threshold == (usual if twentieths is None else twentieths / 20)
    assert (found.exact, found.f1) == pytest.approx(plain_scores(predictions, found.threshold))
    assert found.best_f1 == pytest.approx(plain_best_f1(predictions))
    for known, told_exact, told_f1 in (
        (True, found.answerable_exact, found.answerable_f1),
        (False, found.unanswerable, found.unanswerable),
    ):
        some = [each for each in predictions if bool(each.question.answers) == known]
        if some:
            assert (told_exact, told_f1) == pytest.approx(plain_scores(some, found.threshold))
        else:
            assert told_exact is None
            assert told_f1 is None


@pytest.mark.parametrize(
    ("given", "right", "same", "overlap"),
    [
        ("The Old Mill!", "old mill", 1, 1.0),
        ("an old mill", "the mill", 0, 2 / 3),
        ("mill mill", "mill", 0, 2 / 3),
        ("", "", 1, 1.0),
        ("the", "", 1, 1.0),
        ("", "mill", 0, 0.0),
        ("theatre", "atre", 0, 0.0),
        ("U.S.", "us", 1, 1.0),
        ("twenty-one", "twentyone", 1, 1.0),
    ],
)
def test_answers_compared_by_hand(given: str, right: str, same: int, overlap: float) -> None:
    assert exact(given, right) == same
    assert f1(given, right) == pytest.approx(overlap)


def test_of_several_right_answers_the_nearest_counts() -> None:
    question = Question("1", "Who?", (("Ida", 0), ("Ida Brandt from Kelm", 0), ("the", 0)))
    assert nearest(f1, "Ida Brandt of Kelm", question) == pytest.approx(0.75)
    assert nearest(exact, "ida", question) == 1
    # An answer of articles only is none: it does not make silence right.
    assert nearest(exact, "", question) == 0
    assert nearest(exact, "", Question("1", "Who?", ())) == 1


def prediction(text: str, probability: float, *answers: str, right: bool | None = None) -> Prediction:
    return Prediction(Question("1", "?", tuple((answer, 0) for answer in answers)), text, probability, right)


def test_a_mixed_set_by_hand() -> None:
    found = score(
        [
            prediction("Ida", 0.9, "Ida", right=True),
            prediction("Peter", 0.6, "Ida Brandt", right=False),
            prediction("the mill", 0.4, "mill", right=True),
            prediction("a tower", 0.7),
            prediction("a stone", 0.2),
        ]
    )
    assert (found.total, found.answerable, found.threshold) == (5, 3, 0.6)
    assert found.exact == pytest.approx(40)
    assert found.answerable_exact == pytest.approx(100 / 3)
    assert found.unanswerable == pytest.approx(50)
    assert found.right_sentence == pytest.approx(200 / 3)
    # With the surest one told only, or with all but the last, three of five are right.
    assert found.best_f1 == pytest.approx(60)
    # One in each of five bins.
    assert found.calibration_error == pytest.approx((0.1 + 0.4 + 0.6 + 0.7 + 0.2) / 5)


def test_where_every_question_has_an_answer_each_is_told() -> None:
    found = score([prediction("Ida", 0.01, "Ida", right=True), prediction("x", 0.02, "y", right=False)])
    assert (found.threshold, found.exact, found.f1) == (0.0, 50.0, 50.0)
    assert found.unanswerable is None
    assert found.calibration_error is None
    assert found.best_f1 == 50.0


def test_where_no_question_has_an_answer() -> None:
    found = score([prediction("Ida", 0.9), prediction("Ida", 0.1), prediction("", 1.0)])
    assert found.exact == found.f1 == found.unanswerable == pytest.approx(200 / 3)
    assert found.answerable_exact is found.answerable_f1 is found.right_sentence is None
    assert found.best_f1 == 100


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ([(1.0, True), (0.0, False)], 0.0),
        ([(0.0, True)], 1.0),
        # One bin: on average .55, and half of them happened.
        ([(0.55, True), (0.55, False)], 0.05),
        # Two bins of two: |.15 - .5| and |.95 - 1|.
        ([(0.15, True), (0.15, False), (0.95, True), (0.95, True)], (0.35 + 0.05) / 2),
        # 1 belongs to the last bin, with .9.
        ([(1.0, True), (0.9, False)], 0.45),
    ],
)
def test_calibration_errors_by_hand(told: list[tuple[float, bool]], error: float) -> None:
    assert calibration_error(told) == pytest.approx(error)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_a_calibration_error_lies_between_the_bias_and_1(told: list[tuple[float, bool]]) -> None:
    bias = abs(math.fsum(probability - happened for probability, happened in told)) / len(told)
    assert bias - 1e-9 <= calibration_error(told) <= 1


# Files


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def squad(**changes: object) -> dict[str, object]:
    asked = {"id": "1", "question": "Who?", "answers": [{"text": "Ida", "answer_start": 0}]}
    paragraph = {"context": "Ida did.", "qas": [asked]}
    for name, value in changes.items():
        holder = next(each for each in (asked, paragraph) if name in each)
        if value is None:
            del holder[name]
        else:
            holder[name] = value
    return {"data": [{"title": "T", "paragraphs": [paragraph]}]}


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ({}, "'data' is missing"),
        ([], "list indices"),
        (3, "int"),
        ({"data": ["article"]}, "str"),
        ({"data": [{"title": "T"}]}, "'paragraphs' is missing"),
        (squad(context=None), "'context' is missing"),
        (squad(context=7), "context must be a text"),
        (squad(qas=None), "'qas' is missing"),
        (squad(id=None), "'id' is missing"),
        (squad(question=None), "'question' is missing"),
        (squad(answers="Ida"), "answers must be a list"),
        (squad(answers=[{"text": "Ida"}]), "'answer_start' is missing"),
        (squad(answers=[{"text": "Ida", "answer_start": "first"}]), "invalid literal"),
    ],
)
def test_a_malformed_file_is_told_with_its_name_and_the_reason(held: object, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "questions.json", held)
    with pytest.raises(EvaluationError, match=r"questions\.json must be a file in SQuAD.s format") as raised:
        read_articles(path)
    assert reason in raised.value.message
    assert raised.value.fix
    assert "\n" not in str(raised.value)


def test_files_that_are_missing_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"nowhere\.json.*No such file"):
        read_articles(tmp_path / "nowhere.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(EvaluationError, match=r"binary\.json.*utf-8"):
        read_articles(tmp_path / "binary.json")
    (tmp_path / "cut.json").write_text('{"data": [', encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"cut\.json.*Expecting value"):
        read_articles(tmp_path / "cut.json")


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    twice = [
        {"text": "Ida", "answer_start": 0},
        {"text": "Ida", "answer_start": 0},
        {"text": "did", "answer_start": 4},
    ]
    (found,) = read_articles(write(tmp_path / "a.json", squad(answers=twice)))
    assert found.title == "T"
    (paragraph,) = found.paragraphs
    assert paragraph.text == "Ida did."
    assert paragraph.questions == (Question("1", "Who?", (("Ida", 0), ("did", 4))),)
    (unanswered,) = read_articles(write(tmp_path / "b.json", squad(answers=None)))
    assert unanswered.paragraphs[0].questions[0].answers == ()
