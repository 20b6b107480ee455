"""Answers that were made up get the scores that a person reckons for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.encoders import Encoder
from rag.evaluation.cases import Case
from rag.evaluation.metric_definitions import BY_NAME
from rag.evaluation.scoring import NullJudge, Scorer, Scores
from rag.types import Answer, AnswerStatus, Citation, Claim, Hit, Passage

CASE = Case(
    id="1", question="When was it installed?", answers=("1871", "in 1871 by Ida Brandt"), sources=("a.md", "b.md")
)
REFUSE = Case(id="2", question="Which opera?", must_refuse=True)
ABSTAINED = Answer("The documents do not answer this question.", "abstained")
FAILED = Answer("", "failed", error="The server is down.")
CANCELLED = Answer("In 18", "cancelled")


def hit(name: str, page: int | None = None) -> Hit:
    return Hit(Passage(1, 1, f"/d/{name}", name, name, "text", 0, 4, page=page), 1.0)


def answer(text: str, *names: str, cited: Sequence[float] = (), claims: Sequence[Claim] = ()) -> Answer:
    hits = tuple(hit(name) for name in names)
    citations = tuple(Citation(number, hit("a.md"), 0, 4, support) for number, support in enumerate(cited, 1))
    return Answer(text, "answered", hits=hits, citations=citations, claims=tuple(claims))


@pytest.fixture
def scorer(encoder: Encoder) -> Scorer:
    return Scorer(encoder)


def values(scores: Scores) -> dict[str, float]:
    """The figures of one answer, those that say something."""
    return {name: score.value / score.weight for name, score in scores.items() if score.weight}


def means(*each: Scores) -> dict[str, float]:
    """The figures of several answers."""
    names = {name for scores in each for name in scores}
    sums = {
        name: (sum(s[name].value for s in each if name in s), sum(s[name].weight for s in each if name in s))
        for name in names
    }
    return {name: value / weight for name, (value, weight) in sums.items() if weight}


# The words


@pytest.mark.parametrize(
    ("text", "contains", "exact", "f1"),
    [
        ("1871", 1, 1, 1),
        ("In 1871, by Ida Brandt. [1][2]", 1, 1, 1),
        # Five words of ours are those of the longer right answer, whose five they are; ours are eight.
        ("It was installed in 1871 by Ida Brandt. [1]", 1, 0, 2 * 5 / 13),
        # Of two words one is that of the shorter right answer.
        ("Since 1871", 1, 0, 2 / 3),
        ("In 18710 by someone.", 0, 0, 2 * 2 / 9),
        ("Never.", 0, 0, 0),
        ("[1]", 0, 0, 0),
    ],
)
def test_an_answer_is_held_against_the_right_ones(
    scorer: Scorer, text: str, contains: float, exact: float, f1: float
) -> None:
    scores = values(scorer.score(CASE, answer(text)))
    assert (scores["contains"], scores["exact"]) == (contains, exact)
    assert scores["f1"] == pytest.approx(f1)


def test_words_are_counted_without_markers(scorer: Scorer) -> None:
    assert values(scorer.score(CASE, answer("In 1871 [1], by Ida. [2][3]")))["words"] == 4
    assert "words" not in scorer.score(CASE, ABSTAINED)


def test_likeness_is_the_cosine_with_the_nearest_right_answer(scorer: Scorer, encoder: Encoder) -> None:
    vectors = encoder.embed(["It was in 1871.", *CASE.answers])
    nearest = max(float(vectors[0] @ vector) for vector in vectors[1:])
    scores = values(scorer.score(CASE, answer("It was in 1871. [1]")))
    assert scores["similarity"] == pytest.approx(nearest, abs=1e-3)
    assert values(scorer.score(CASE, answer("1871 [1]")))["similarity"] == pytest.approx(1.0, abs=1e-3)


def test_where_no_right_answer_is_known_the_words_say_nothing(scorer: Scorer) -> None:
    free = Case(id="3", question="Why?")
    scores = values(scorer.score(free, answer("Because.")))
    assert scores == {"answered": 1.0, "failed": 0.0, "words": 1.0}


# Retrieval


def test_retrieval_is_scored_by_the_sources(scorer: Scorer) -> None:
    scores = values(scorer.score(CASE, answer("1871", "x.md", "docs/a.md", "x.md")))
    assert scores["recall"] == 0.5
    assert scores["mrr"] == 0.5
    assert scores["context_precision"] == 0.5
    # Of the two expected one stands second: (1 / log2 3) / (1 / log2 2 + 1 / log2 3).
    second = 1 / math.log2(3)
    assert scores["ndcg"] == pytest.approx(second / (1 + second))
    both = values(scorer.score(CASE, answer("1871", "a.md", "b.md")))
    assert [both[name] for name in ("recall", "ndcg", "mrr", "context_precision")] == [1, 1, 1, 1]
    none = values(scorer.score(CASE, answer("1871", "x.md")))
    assert [none[name] for name in ("recall", "ndcg", "mrr", "context_precision")] == [0, 0, 0, 0]


def test_retrieval_says_nothing_where_no_source_is_expected(scorer: Scorer) -> None:
    scores = scorer.score(Case(id="3", question="Why?", answers=("So.",)), answer("So.", "a.md"))
    assert not {"recall", "ndcg", "mrr", "context_precision"} & set(scores)


def test_what_was_found_counts_also_where_it_was_refused(scorer: Scorer) -> None:
    refused = replace(ABSTAINED, hits=(hit("a.md"), hit("b.md")))
    assert values(scorer.score(CASE, refused))["recall"] == 1.0


# Grounding


def test_grounding_is_the_support_of_the_sentences(scorer: Scorer) -> None:
    claims = (Claim((1,), 1.0), Claim((2,), 0.4), Claim((), 0.9), Claim((1, 2), 0.5))
    scores = values(scorer.score(CASE, answer("Some text.", cited=(0.9, 0.4), claims=claims)))
    assert scores["groundedness"] == pytest.approx(2.8 / 4)
    # Of two citations one carries; it stands behind the first sentence and the last.
    assert scores["citation_precision"] == 0.5
    assert scores["citation_recall"] == 0.5


def test_an_answer_without_citations_has_no_precision_and_carries_nothing(scorer: Scorer) -> None:
    scores = values(scorer.score(CASE, answer("Some text.", claims=(Claim((), 1.0),))))
    assert (scores["groundedness"], scores["citation_recall"]) == (1.0, 0.0)
    assert "citation_precision" not in scores


def test_an_answer_that_claims_nothing_is_not_grounded_or_otherwise(scorer: Scorer) -> None:
    for each in (answer("…"), ABSTAINED, FAILED):
        assert not {"groundedness", "citation_precision", "citation_recall"} & set(scorer.score(CASE, each))


# Refusals and failures


@pytest.mark.parametrize(
    ("case", "given", "right"), [(REFUSE, ABSTAINED, 1), (REFUSE, answer("Aida."), 0), (REFUSE, FAILED, 0)]
)
def test_of_a_question_to_refuse_a_refusal_is_right(
    scorer: Scorer, case: Case, given: Answer, right: float
) -> None:
    scores = values(scorer.score(case, given))
    assert (scores["exact"], scores["f1"], scores["refusal_recall"]) == (right, right, right)
    assert not {"contains", "rouge_l", "similarity"} & set(scores)


def test_refusals_over_several_cases(scorer: Scorer) -> None:
    free = Case(id="3", question="Why?")
    averages = means(
        scorer.score(REFUSE, ABSTAINED),
        scorer.score(REFUSE, answer("Aida.")),
        scorer.score(REFUSE, FAILED),
        scorer.score(CASE, ABSTAINED),
        scorer.score(free, ABSTAINED),
        scorer.score(CASE, answer("1871")),
        scorer.score(CASE, FAILED),
        scorer.score(free, answer("So.")),
    )
    # Three were refused, and one of them rightly; three were to be, and one of them was.
    assert averages["refusal_precision"] == pytest.approx(1 / 3)
    assert averages["refusal_recall"] == pytest.approx(1 / 3)
    assert averages["answered"] == pytest.approx(3 / 8)
    assert averages["failed"] == pytest.approx(2 / 8)
    # Six have a right answer or a refusal as one: two are right.
    assert averages["exact"] == pytest.approx(2 / 6)


@pytest.mark.parametrize("given", [FAILED, CANCELLED])
def test_a_failure_counts_as_no_answer_and_gains_nothing(scorer: Scorer, given: Answer) -> None:
    scores = values(scorer.score(CASE, given))
    right = ("contains", "exact", "f1", "rouge_l", "similarity", "recall", "ndcg", "mrr", "context_precision")
    assert {name: scores[name] for name in right} == dict.fromkeys(right, 0.0)
    assert (scores["failed"], scores["answered"]) == (1.0, 0.0)
    assert "refusal_precision" not in scores
    assert "words" not in scores


STATUSES: tuple[AnswerStatus, ...] = ("answered", "abstained", "failed", "cancelled")


@given(
    text=st.text(st.characters(codec="utf-8"), max_size=60),
    right=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip), max_size=2
    ),
    refuse=st.booleans(),
    status=st.sampled_from(STATUSES),
    supports=st.lists(st.floats(0, 1), max_size=3),
    names=st.lists(st.sampled_from(["a.md", "b.md", "docs/a.md", "x"]), max_size=4),
)
def test_any_answer_gets_shares_under_known_names(
    encoder: Encoder,
    text: str,
    right: list[str],
    refuse: bool,
    status: AnswerStatus,
    supports: list[float],
    names: list[str],
) -> None:
    case = Case(
        id="1", question="Q?", answers=() if refuse else tuple(right), sources=("a.md",), must_refuse=refuse
    )
    claims = [Claim((number,), support) for number, support in enumerate(supports, 1)]
    given = replace(answer(text, *names, cited=supports, claims=claims), status=status)
    for name, score in Scorer(encoder).score(case, given).items():
        assert score.weight in (0, 1)
        assert name in BY_NAME
        if BY_NAME[name].unit == "share":
            assert 0 <= score.value <= score.weight + 1e-9, name


async def test_no_judge_has_no_opinion() -> None:
    judged = await NullJudge().judge(CASE, answer("1871"))
    assert (judged.scores, judged.reason, NullJudge.identity) == ({}, "", "")
