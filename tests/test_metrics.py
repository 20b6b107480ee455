"""The metrics of answers and of retrieval, against their published definitions and the packages that have them."""

from __future__ import annotations

import json
import math
import re
import string
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import calc_aggregate, nDCG
from ir_measures import measures as ir
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import average_precision_score, ndcg_score

from rag.documents.chunking import UNSPACED
from rag.documents.sentences import split_sentences
from rag.evaluation.ranking_metrics import Found, RankingScores, context_precision, matches, rank_scores
from rag.evaluation.text_metrics import best_of, exact, f1, normalised, plain_answer, rouge_l

HANDBOOK = Path(__file__).resolve().parent.parent / "corpora" / "handbook"
ROUGE = RougeScorer(["rougeL"], use_stemmer=False)


def squad_words(text: str) -> list[str]:
    """The words that SQuAD's official evaluation compares."""
    kept = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    parts = re.findall(r"\w+|\W", kept)
    return "".join(" " if part in ("a", "an", "the") else part for part in parts).split()


def has_spaced_words(text: str) -> bool:
    return re.search(f"[{UNSPACED}]", text) is None


def squad_f1(given: str, right: str) -> float:
    ours, theirs = squad_words(given), squad_words(right)
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum(min(ours.count(word), theirs.count(word)) for word in set(ours))
    if not shared:
        return 0.0
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


def package_rouge(given: str, right: str) -> float:
    return float(ROUGE.score(right, given)["rougeL"].fmeasure)


def handbook_pairs() -> list[tuple[str, str]]:
    """Of each question: the sentences with its answer, itself, and the next question's answer, all against it."""
    lines = (HANDBOOK / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [each for each in map(json.loads, lines) if each["answerable"]]
    pairs = []
    for at, question in enumerate(asked):
        text = (HANDBOOK / "pages" / question["source"]).read_text(encoding="utf-8")
        sentences = [each.text for each in split_sentences(text) if question["answer"] in each.text]
        following = asked[(at + 1) % len(asked)]
        for answer in question.get("answers", [question["answer"]]):
            given = [*sentences, answer.upper(), question["question"], following["answer"], text]
            pairs += [(each, answer) for each in given]
        pairs += [(one, other) for one in sentences for other in sentences if one != other]
    return pairs


REAL = handbook_pairs()
WORDS = st.lists(
    st.sampled_from("The a an mill Mill, kelm's 1,802 - x _ thean a–b \n ÉTÉ ß İ привет 東京".split(" "))
)
TEXTS = st.one_of(WORDS.map(" ".join), WORDS.map("".join), st.text())


def test_characters_are_compared_where_words_have_no_spaces() -> None:
    assert normalised("灯塔由林船长看管，每隔4天。") == "灯 塔 由 林 船 长 看 管 每 隔 4 天"
    assert exact("高木匠。", "高木匠") == 1.0
    assert f1("由高木匠看管", "高木匠") == pytest.approx(2 * 3 / 9)
    assert normalised("Café, the “best”!") == "café “best”"


def test_the_metrics_are_the_published_ones_on_the_handbook() -> None:
    assert len(REAL) >= 200
    for ours, right in REAL:
        assert exact(ours, right) == float(squad_words(ours) == squad_words(right)), (ours, right)
        assert f1(ours, right) == pytest.approx(squad_f1(ours, right), abs=1e-12), (ours, right)
        assert rouge_l(ours, right) == pytest.approx(package_rouge(ours, right), abs=1e-9), (ours, right)
    for metric in (exact, f1, rouge_l):
        values = {metric(*pair) for pair in REAL}
        assert {0.0, 1.0} <= values
    assert len({f1(*pair) for pair in REAL}) > 50


@settings(max_examples=100)
@given(TEXTS.filter(has_spaced_words), TEXTS.filter(has_spaced_words))
def test_the_metrics_are_the_published_ones_on_any_text_whose_words_have_spaces(ours: str, right: str) -> None:
    assert exact(ours, right) == float(squad_words(ours) == squad_words(right))
    assert f1(ours, right) == pytest.approx(squad_f1(ours, right), abs=1e-12)
    assert rouge_l(ours, right) == pytest.approx(package_rouge(ours, right), abs=1e-9)


@given(st.lists(st.sampled_from("abc"), max_size=90), st.lists(st.sampled_from("abcd"), max_size=90))
def test_longest_common_subsequences_are_those_of_the_table(ours: list[str], theirs: list[str]) -> None:
    assert rouge_l(" ".join(ours), " ".join(theirs)) == pytest.approx(
        package_rouge(" ".join(ours), " ".join(theirs)), abs=1e-9
    )


@given(TEXTS, TEXTS)
def test_the_metrics_agree_with_each_other(ours: str, right: str) -> None:
    for metric in (exact, f1, rouge_l):
        assert 0 <= metric(ours, right) <= 1
        assert metric(ours, right) == metric(right, ours)
    assert exact(ours, ours) == f1(ours, ours) == 1
    assert exact(ours, right) <= f1(ours, right)


def test_texts_as_long_as_a_book_take_no_long_time() -> None:
    words = [str(number % 997) for number in range(20_000)]
    other = ["x" if at % 10 == 0 else word for at, word in enumerate(words)]
    begun = time.perf_counter()
    assert rouge_l(" ".join(words), " ".join(other)) == pytest.approx(0.9)
    # A table of 20,000 × 20,000 takes a minute and more.
    assert time.perf_counter() - begun < 10


def test_of_several_right_answers_the_nearest_counts() -> None:
    assert best_of(f1, "Ida Brandt of Kelm", ["Ida", "Ida Brandt from Kelm"]) == pytest.approx(0.75)
    assert best_of(exact, "ida", ("Ida", "Ida Brandt")) == 1
    assert best_of(rouge_l, "no", ["yes", "no"]) == 1
    # An answer of articles only makes silence right where it is the only one.
    assert best_of(exact, "", ["Ida", "the"]) == 0
    assert best_of(exact, "", ["the"]) == 1
    assert best_of(rouge_l, "the", ["the"]) == 1


def test_without_a_right_answer_silence_is_right() -> None:
    assert best_of(exact, "", []) == best_of(f1, "", ()) == 1
    assert best_of(exact, "Ida", []) == best_of(f1, "Ida", ()) == 0


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("Ida Brandt [1].", "Ida Brandt."),
        (" In 1802 [1][2], by Ida [3]\n", "In 1802, by Ida"),
        ("[4]", ""),
        ("Take `row[1]`.", "Take `row[1]`."),
        ("No source.", "No source."),
    ],
)
def test_an_answer_is_scored_without_its_citations(text: str, scored: str) -> None:
    assert plain_answer(text) == scored


# Retrieval


@pytest.mark.parametrize(
    ("source", "page", "wanted", "same"),
    [
        ("install.md", None, "install.md", True),
        ("guide/install.md", None, "install.md", True),
        ("/docs/guide/install.md", None, "guide/install.md", True),
        ("reinstall.md", None, "install.md", False),
        ("install.md", None, "guide/install.md", False),
        ("install.md/notes.txt", None, "install.md", False),
        ("a/faq.jsonl#12", None, "faq.jsonl#12", True),
        ("faq.jsonl#12", None, "faq.jsonl", True),
        ("a/faq.jsonl#x#y/z", None, "faq.jsonl", True),
        ("faq.jsonl#12", None, "faq.jsonl#1", False),
        ("faq.jsonl#12", None, "faq.jsonl#2", False),
        ("faq.jsonl#12#3", None, "faq.jsonl#12", False),
        ("faq.jsonl", None, "faq.jsonl#12", False),
        ("c#/notes.md", None, "notes.md", True),
        ("c#.md", None, "c#.md", True),
        ("a/report.pdf", 3, "report.pdf p.3", True),
        ("report.pdf", 3, "report.pdf", True),
        ("report.pdf", 13, "report.pdf p.3", False),
        ("report.pdf", 3, "report.pdf p.13", False),
        ("report.pdf", None, "report.pdf p.3", False),
        ("other.pdf", 3, "report.pdf p.3", False),
        ("report.pdf p.3", None, "report.pdf p.3", True),
        ("Install.md", None, "install.md", False),
    ],
)
def test_which_source_was_expected(source: str, page: int | None, wanted: str, same: bool) -> None:
    assert matches(Found(source, page), wanted) is same


SECOND = 1 / math.log2(3)


@pytest.mark.parametrize(
    ("found", "wanted", "k", "scores"),
    [
        ("a b c", "a", None, (1, 1, 1, 1)),
        ("x a c", "a", None, (1, SECOND, 1 / 2, 1 / 2)),
        ("x y z", "a", None, (0, 0, 0, 0)),
        ("", "a", None, (0, 0, 0, 0)),
        ("", "a", 5, (0, 0, 0, 0)),
        # A source counts where it first stands; each of its passages counts for precision.
        ("x x a a", "a", None, (1, SECOND, 1 / 2, (1 / 3 + 2 / 4) / 2)),
        ("a a b", "b", None, (1, SECOND, 1 / 2, 1 / 3)),
        ("a x b", "a b", None, (1, (1 + 1 / 2) / (1 + SECOND), 1, (1 + 2 / 3) / 2)),
        ("a x y", "a b", None, (1 / 2, 1 / (1 + SECOND), 1, 1)),
        # With one passage asked for, the best order has one source; with three, both.
        ("a x b", "a b", 1, (1 / 2, 1, 1, 1)),
        ("a", "a b", 3, (1 / 2, 1 / (1 + SECOND), 1, 1)),
        ("x y a", "a", 2, (0, 0, 0, 0)),
        # Named twice it is expected once.
        ("a x", "a a", None, (1, 1, 1, 1)),
        # Two files of the expected name are one expected source.
        ("f/a g/a", "a", None, (1, 1, 1, 1)),
        # And one file may be two expected ones.
        ("f/a", "a f/a", None, (1, 1, 1, 1)),
    ],
)
def test_rankings_by_hand(found: str, wanted: str, k: int | None, scores: tuple[float, ...]) -> None:
    given = rank_scores([Found(each) for each in found.split()], wanted.split(), k)
    assert given is not None
    assert (given.recall, given.ndcg, given.reciprocal_rank, given.precision) == pytest.approx(scores)


def test_where_nothing_is_expected_there_are_no_scores() -> None:
    assert rank_scores([Found("a")], []) is None
    assert rank_scores([], ()) is None


def test_pages_and_records_rank_as_what_is_expected() -> None:
    pages = [Found("d/report.pdf", page) for page in (1, 1, 2, 3)]
    by_page = rank_scores(pages, ["report.pdf p.3"])
    assert by_page == RankingScores(1.0, pytest.approx(1 / 2), pytest.approx(1 / 3), 1 / 4)
    assert rank_scores(pages, ["report.pdf"]) == RankingScores(1.0, 1.0, 1.0, 1.0)
    # Pages matter of the source of which one is expected, and of no other.
    others = [Found("other.pdf", 1), Found("other.pdf", 2), Found("report.pdf", 3)]
    assert rank_scores(others, ["report.pdf p.3"]) == RankingScores(1.0, pytest.approx(SECOND), 0.5, 1 / 3)
    records = [Found("faq.jsonl#1"), Found("faq.jsonl#2"), Found("faq.jsonl#3")]
    assert rank_scores(records, ["faq.jsonl#3"]) == RankingScores(1.0, pytest.approx(1 / 2), 1 / 3, 1 / 3)
    assert rank_scores(records, ["faq.jsonl"]) == RankingScores(1.0, 1.0, 1.0, 1.0)


NAMES = st.sampled_from([f"n{number}.md" for number in range(12)])


@given(
    st.lists(NAMES, min_size=1, max_size=15),
    st.lists(NAMES, min_size=1, max_size=6, unique=True),
    st.one_of(st.none(), st.integers(1, 20)),
)
def test_rankings_are_those_of_the_packages(found: list[str], wanted: list[str], k: int | None) -> None:
    given = rank_scores([Found(f"f/{each}") for each in found], wanted, k)
    assert given is not None
    depth = len(found) if k is None else k
    documents = list(dict.fromkeys(found[:depth]))
    qrels = {"q": dict.fromkeys(wanted, 1)}
    run = {"q": {name: -float(at) for at, name in enumerate(documents)}}
    measures = [ir.R @ depth, nDCG @ depth, ir.RR]
    direct = calc_aggregate(measures, qrels, run)
    assert [given.recall, given.ndcg, given.reciprocal_rank] == pytest.approx([direct[each] for each in measures])

    # scikit-learn ranks all that is relevant: what was not found stands below everything else.
    missing = [name for name in wanted if name not in documents]
    gains = [float(name in wanted) for name in documents] + [0.0] * 20 + [1.0] * len(missing)
    order = [-float(at) for at in range(len(gains))]
    assert given.ndcg == pytest.approx(ndcg_score([gains], [order], k=depth, ignore_ties=True))

    relevant = [name in wanted for name in found[:depth]]
    order = [-float(at) for at in range(len(relevant))]
    precision = average_precision_score(relevant, order) if any(relevant) else 0.0
    assert given.precision == context_precision(relevant) == pytest.approx(precision)


@given(st.lists(st.builds(Found, st.text(), st.one_of(st.none(), st.integers(1, 4)))), st.lists(st.text()))
def test_any_names_can_be_ranked(found: list[Found], wanted: list[str]) -> None:
    scores = rank_scores(found, [*wanted, *(each.source for each in found[:2])])
    if not found and not wanted:
        assert scores is None
    else:
        assert scores is not None
        first = 1.0 if found else 0.0
        assert scores.reciprocal_rank == first
        assert 0 <= scores.recall <= 1
        assert 0 <= scores.ndcg <= 1
        assert 0 <= scores.precision <= 1
