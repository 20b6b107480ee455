"""A follow-up gets the words it is missing, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.answering.condense import CARRIED, LONGEST_REWRITE, carry_topic, is_rewrite, points_back
from rag.types import Turn

if TYPE_CHECKING:
    from rag.retrieval.retriever import Retriever

HANDBOOK = Path(__file__).resolve().parent.parent / "corpora" / "handbook"
FOLLOW_UPS = [json.loads(line) for line in (HANDBOOK / "followups.jsonl").read_text().splitlines()]
QUESTIONS = [json.loads(line) for line in (HANDBOOK / "questions.jsonl").read_text().splitlines()]


def turns(*questions: str) -> tuple[Turn, ...]:
    """A conversation of these questions; the answers are never looked at."""
    return tuple(Turn(question, "Zebras answer this. [1]") for question in questions)


def carried(question: str, *earlier: str) -> list[str]:
    """The words that were added to a question, in order."""
    standalone = carry_topic(question, turns(*earlier))
    assert standalone.startswith(question)
    added = standalone.removeprefix(question)
    assert not added or (added.startswith(" (") and added.endswith(")"))
    return added.strip(" ()").split()


DIALOGUES = [
    # (earlier questions, the follow-up, the words that it needs)
    (["When was the tide gauge installed?"], "And who built it?", ["tide", "gauge"]),
    (["What does a crossing to Norderney cost?"], "Is it cheaper in winter?", ["crossing", "Norderney"]),
    (["How do I install PostgreSQL on Debian?"], "What about on macOS?", ["PostgreSQL"]),
    (["Who wrote the Critique of Pure Reason?"], "When did he die?", ["Critique", "Pure", "Reason"]),
    (["Can employees carry over vacation days?"], "How many?", ["employees", "carry", "vacation", "days"]),
    (["What is the notice period for tenants?"], "And for landlords?", ["notice", "period"]),
    (["Does the warranty cover water damage?"], "Why not?", ["warranty", "water", "damage"]),
    (["How does reciprocal rank fusion work?"], "Which constant does that use?", ["rank", "fusion"]),
    (["What is PEP 440 about?"], "Who are its authors?", ["PEP", "440"]),
    (["Which vaccines are mandatory for school?"], "Are there exemptions?", ["vaccines", "mandatory", "school"]),
    (["How is gross margin defined?"], "Did it rise in 2023?", ["gross", "margin"]),
    (["What is the capital of Mongolia?"], "How cold does it get there?", ["capital", "Mongolia"]),
    (["How do I rotate the API keys?"], "How often should I do that?", ["rotate", "API", "keys"]),
    (
        ["What is LoRA?", "Which rank should I choose for it?"],
        "Does that make it slower?",
        ["LoRA", "rank"],
    ),
    (
        ["How do I reset the controller?", "And the password?"],
        "Where is it printed?",
        ["password", "reset", "controller"],
    ),
    (
        ["Which ports does the server open?", "Why so many?", "Can they be changed?"],
        "How?",
        ["ports", "server", "changed"],
    ),
]


@pytest.mark.parametrize(("earlier", "question", "needed"), DIALOGUES, ids=lambda value: str(value)[:40])
def test_a_follow_up_gets_the_words_of_its_topic(earlier: list[str], question: str, needed: list[str]) -> None:
    added = carried(question, *earlier)
    assert set(needed) <= set(added)
    assert len(added) <= CARRIED


STANDALONE = [
    "How many dimensions do the vectors of MiniLM have?",
    "Which setting changes the number of passages?",
    "Where does ragsmith keep uploaded files?",
    "Where does ragsmith keep its traces?",
    "How do I export traces as CSV?",
    "When was the lighthouse on Sylt built?",
    "Explain reciprocal rank fusion.",
    "database password rotation policy",
    "Can two ingest jobs write at once into one workspace?",
    "What is the collection called that is loaded at the first start?",
]


@pytest.mark.parametrize("question", STANDALONE)
def test_a_question_that_stands_alone_is_not_touched(question: str) -> None:
    assert not points_back(question)
    assert carry_topic(question, turns("What is the notice period for tenants?", "And for landlords?")) == question


def test_most_questions_of_the_handbook_stand_alone() -> None:
    # They were written without a conversation. Some say "it" all the same.
    touched = [each["question"] for each in QUESTIONS if points_back(each["question"])]
    assert len(touched) <= 0.25 * len(QUESTIONS), touched


@pytest.mark.parametrize("question", ["And who built it?", "", "?", "Why?", "it"])
def test_without_a_conversation_nothing_is_added(question: str) -> None:
    assert carry_topic(question, ()) == question


def test_a_new_topic_ends_the_old_one() -> None:
    old = "How does the extractive reader choose sentences?"
    new = "Which formats can be ingested into a corpus?"
    assert carry_topic(new, turns(old)) == new
    # Later follow-ups belong to the new topic and to no other.
    added = carried("And how large may they be?", old, new)
    assert {"formats", "ingested", "corpus"} <= set(added)
    assert not {"extractive", "reader", "choose", "sentences"} & set(added)


@pytest.mark.parametrize(
    ("earlier", "question", "added"),
    [
        # The price list of a garage: what is done, and to which car.
        (
            ["What does an oil check for the Brask 400 cost?", "What about new brakes?", "And a paint job?"],
            "And for the Linden Coupé?",
            "paint job",
        ),
        (["What does an oil check for the Brask 400 cost?"], "And for the Linden Coupé?", "oil check"),
        (["What does an oil check for the Brask 400 cost?"], "What about new brakes?", "Brask 400"),
        (["How do I install PostgreSQL on Debian?"], "What about on macOS?", "install PostgreSQL"),
        (["What is the capital of Mongolia?", "And Peru?"], "How large is it?", "Peru capital"),
        (["Which boats leave in summer?", "And in winter?"], "When do they leave?", "winter boats"),
        # It is not clear which word is meant: better all of them than the wrong one.
        (["What is the price of a ticket?"], "And a season pass?", "price ticket"),
        (["How do I reset the controller?"], "And the password?", "reset controller"),
    ],
)
def test_what_a_follow_up_replaces_is_no_longer_carried(earlier: list[str], question: str, added: str) -> None:
    assert set(carried(question, *earlier)) - {"cost"} == set(added.split())


@pytest.mark.parametrize(
    ("earlier", "question", "standalone"),
    [
        (
            ["How much is an oil check for the Brask 400?", "And new brakes?"],
            "And for the Linden Coupé?",
            "And for the Linden Coupé? (how much new brakes)",
        ),
        (["When does the ferry leave in summer?"], "And in winter?", "And in winter? (when ferry leave)"),
        # It says nothing that the topic does not say, or the follow-up says itself what it asks for.
        (["What is the notice period for tenants?"], "And for landlords?", "And for landlords? (notice period)"),
        (["How much is the ferry?"], "And when does it leave?", "And when does it leave? (ferry)"),
    ],
)
def test_an_elliptic_question_asks_for_the_same_kind_of_answer(
    earlier: list[str], question: str, standalone: str
) -> None:
    assert carry_topic(question, turns(*earlier)) == standalone


def test_neither_question_words_nor_stop_words_are_carried() -> None:
    asked = "Could you please tell me which of these settings would you say that I really need and why?"
    assert carried("And that one?", asked) == ["settings", "really"]


def test_a_word_is_carried_once_and_as_it_was_written() -> None:
    assert carried("Is IT fast?", "How fast is Chroma? I mean CHROMA, chroma!") == ["Chroma"]
    assert carried("Does it support UTF-8?", "Which encodings does utf-8 replace?") == ["encodings", "replace"]


def test_what_was_answered_is_not_carried() -> None:
    # Answers are long, and half of their words belong to something else.
    assert "Zebras" not in carried("And then?", "How do I reset the controller?")


def test_only_so_many_words_and_turns_are_carried() -> None:
    long = " ".join(f"topic{number}" for number in range(50))
    assert carried("And it?", long) == [f"topic{number}" for number in range(CARRIED)]
    old = "How do I install PostgreSQL?"
    assert carried("And it?", old, "And it?", "And that?", "And this?") == []


@given(
    question=st.text(), history=st.lists(st.builds(Turn, st.text(max_size=200), st.text(max_size=50)), max_size=5)
)
def test_any_conversation_leaves_the_question_whole(question: str, history: list[Turn]) -> None:
    standalone = carry_topic(question, history)
    assert standalone.startswith(question)
    assert len(standalone) == len(question) or standalone.endswith(")")


# What a small model writes


TALK = (
    Turn("When was the tide gauge of Norderney installed?", "In 1871, by the harbour master. [1]"),
    Turn("Who reads it?", "Ida Brandt reads the gauge twice a day. [2]"),
)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How often does she read it?", "How often does Ida Brandt read the tide gauge?"),
        ("And the master?", "What did the harbour master install in 1871?"),
        ("Anything else?", "Aside from installing the gauge, what else did the harbour master do?"),
        ("Tell me more.", "Tell me more about the tide gauges of Norderney."),
        ("Twice?", "Is the gauge read two times a day?"),
    ],
)
def test_a_rewriting_from_the_words_of_the_conversation_is_taken(question: str, text: str) -> None:
    assert is_rewrite(text, question, TALK)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "How often does she read it?",
        "how often does she read it",
        "Who reads it?",
        "Ida Brandt reads the gauge twice a day.",
        "How often does Ida Brandt read the gauge?\nTwice a day.",
        "Who is Ida Brandt? How often does she read the gauge?",
        "How often does Ida Brandt read the barometer?",
        "How often did Ida Brandt read the gauge in 1872?",
        f"How often does {'Ida Brandt ' * 30}read the gauge?",
    ],
)
def test_what_a_small_model_echoes_answers_or_invents_is_refused(text: str) -> None:
    assert not is_rewrite(text, "How often does she read it?", TALK)


@given(
    words=st.lists(st.sampled_from("when who how gauge Norderney Ida Brandt 1871 read it".split())),
    text=st.text(max_size=2 * LONGEST_REWRITE),
    history=st.lists(st.builds(Turn, st.text(max_size=50), st.text(max_size=50)), max_size=3),
)
def test_no_text_is_taken_with_a_word_from_nowhere(words: list[str], text: str, history: list[Turn]) -> None:
    rewriting = f"{' '.join(words)} gauges?"
    assert is_rewrite(rewriting, "And then?", TALK) == (len(rewriting) <= LONGEST_REWRITE)
    assert not is_rewrite(f"{rewriting[:-1]} and barometers?", "And then?", TALK)
    # Nor does any other text do harm.
    if is_rewrite(text, "And then?", history):
        assert 0 < len(text) <= LONGEST_REWRITE
        assert len(text.splitlines()) == 1


# With the real index


@pytest.fixture(scope="module")
def retriever(handbook_home: Path) -> Iterator[Retriever]:
    """Searches the handbook."""
    from tiny import settings_at

    from ui.app.app import open_app

    app = open_app(settings_at(handbook_home, corpus="handbook"))
    yield app.releases.retriever()
    app.close()


def sources(retriever: Retriever, query: str) -> list[str]:
    return [Path(hit.passage.source).name for hit in retriever.search(query)]


def test_the_handbooks_follow_ups_find_their_page_among_the_first_five(retriever: Retriever) -> None:
    found, bare = [], []
    for each in FOLLOW_UPS:
        history = [Turn(turn["question"], turn["answer"]) for turn in each["history"]]
        standalone = carry_topic(each["question"], history)
        found.append(each["source"] in sources(retriever, standalone))
        bare.append(each["source"] in sources(retriever, each["question"]))
    assert sum(found) >= 0.8 * len(found), [
        each["id"] for each, hit in zip(FOLLOW_UPS, found, strict=True) if not hit
    ]
    assert sum(found) > sum(bare)


def test_an_earlier_topic_does_not_spoil_a_question_that_stands_alone(retriever: Retriever) -> None:
    history = turns("What is LoRA?", "Which rank should I choose for it?")
    for each in [each for each in QUESTIONS if each["answerable"] and not points_back(each["question"])][:20]:
        assert carry_topic(each["question"], history) == each["question"]
