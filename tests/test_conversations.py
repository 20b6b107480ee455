from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import update

from rag.answering.conversation_store import TITLE_LENGTH, UNTITLED, ConversationStore, shorten
from rag.database import open_database, writing
from rag.tables import exchanges
from rag.types import Answer, Citation, Hit, Passage, Turn, Usage
from rag.workspace import Workspace

HIT = Hit(
    Passage(
        3, 7, "/d/a.md", "a.md", "A", "text", 4, 8, ("One", "Two"), 2, {"n": 1, "b": True, "f": 1.5, "s": "x"}
    ),
    0.03,
    dense_rank=1,
    dense_score=0.5,
)
ANSWER = Answer(
    "Yes [1].",
    "answered",
    hits=(HIT,),
    citations=(Citation(1, HIT, 4, 8, 0.9),),
    support=0.9,
    trace_id="t-1",
    latency_s=1.5,
    usage=Usage(10, None),
    cost_usd=None,
    prompt="answer@1",
)


@pytest.fixture
def store(workspace: Workspace) -> ConversationStore:
    return ConversationStore(open_database(workspace))


def test_a_conversation_is_there_again_after_a_restart(workspace: Workspace) -> None:
    first = ConversationStore(open_database(workspace))
    made = first.new("handbook")
    position = first.append(made, "What is a passage?")
    first.finish(made, position, ANSWER)
    first.set_filters(made, ("port=Kiel", "tides.md"))

    loaded = ConversationStore(open_database(workspace)).load(made)

    assert loaded is not None
    assert (loaded.title, loaded.corpus) == ("What is a passage?", "handbook")
    assert loaded.exchanges[0].answer == ANSWER
    assert loaded.filters == ("port=Kiel", "tides.md")


def test_an_answer_that_never_came_is_none(store: ConversationStore) -> None:
    made = store.new("handbook")
    store.append(made, "Will it come?")
    loaded = store.load(made)
    assert loaded is not None
    assert loaded.exchanges[0].answer is None


def test_questions_take_their_places_in_order(store: ConversationStore) -> None:
    made = store.new("handbook")
    assert [store.append(made, f"Question {number}") for number in range(4)] == [0, 1, 2, 3]


def test_two_tabs_do_not_take_the_same_place(store: ConversationStore) -> None:
    made = store.new("handbook")
    threads = [Thread(target=store.append, args=(made, f"q{number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded = store.load(made)
    assert loaded is not None
    assert [exchange.position for exchange in loaded.exchanges] == list(range(8))


def test_the_first_question_is_the_title_and_stays_it(store: ConversationStore) -> None:
    made = store.new("handbook")
    assert store.list(limit=1).conversations[0].title == UNTITLED
    store.append(made, "First?")
    store.append(made, "Second?")
    assert store.list(limit=1).conversations[0].title == "First?"
    store.rename(made, "  A better\nname ")
    store.append(made, "Third?")
    assert store.list(limit=1).conversations[0].title == "A better name"
    store.rename(made, "   ")
    assert store.list(limit=1).conversations[0].title == "A better name"


@pytest.mark.parametrize(("renamed", "title"), [("", "Second try?"), ("My name", "My name")])
def test_a_title_from_a_question_changes_with_it_and_a_chosen_one_stays(
    store: ConversationStore, renamed: str, title: str
) -> None:
    made = store.new("handbook")
    store.append(made, "First try?")
    store.rename(made, renamed)
    store.truncate_from(made, 0)
    store.append(made, "Second try?")
    assert store.list(limit=1).conversations[0].title == title


def test_truncating_drops_a_question_and_what_follows(store: ConversationStore) -> None:
    made = store.new("handbook")
    for number in range(3):
        store.append(made, f"Question {number}")
    store.truncate_from(made, 1)
    loaded = store.load(made)
    assert loaded is not None
    assert [exchange.question for exchange in loaded.exchanges] == ["Question 0"]
    assert store.append(made, "Another") == 1


def test_the_list_shows_what_was_used_last_and_counts_all(store: ConversationStore) -> None:
    ids = [store.new("handbook") for _ in range(5)]
    store.append(ids[0], "Again")
    page = store.list(limit=2)
    assert page.conversations[0].id == ids[0]
    assert (len(page.conversations), page.total) == (2, 5)
    assert {each.id for each in store.list(limit=9, offset=2).conversations} <= set(ids)


def test_a_deleted_conversation_is_gone_and_takes_nothing_more(store: ConversationStore) -> None:
    made = store.new("handbook")
    position = store.append(made, "Hello?")
    store.delete(made)
    store.finish(made, position, ANSWER)
    store.append(made, "Still there?")
    assert store.load(made) is None
    assert store.list(limit=5).total == 0


def test_the_history_of_a_question_is_what_was_answered_before(store: ConversationStore) -> None:
    made = store.new("handbook")
    store.finish(made, store.append(made, "One?"), ANSWER)
    store.append(made, "Two?")
    store.append(made, "Three?")
    loaded = store.load(made)
    assert loaded is not None
    assert loaded.turns_before(2) == (Turn("One?", "Yes [1]."), Turn("Two?", ""))


def test_the_history_leaves_out_what_was_asked_of_another_corpus(store: ConversationStore) -> None:
    made = store.new("handbook")
    store.finish(made, store.append(made, "What does the GPU do?"), ANSWER)
    store.set_corpus(made, "harbour")
    store.append(made, "What is the pilot's fee?")
    loaded = store.load(made)
    assert loaded is not None
    assert loaded.turns_before(2) == (Turn("What is the pilot's fee?", ""),)
    store.set_corpus(made, "handbook")
    back = store.load(made)
    assert back is not None
    assert back.turns_before(2) == (Turn("What does the GPU do?", "Yes [1]."),)


def test_the_corpus_of_a_conversation_can_change(store: ConversationStore) -> None:
    made = store.new("handbook")
    store.set_corpus(made, "reports")
    loaded = store.load(made)
    assert loaded is not None
    assert loaded.corpus == "reports"


def test_an_answer_of_another_shape_keeps_its_text(workspace: Workspace) -> None:
    engine = open_database(workspace)
    store = ConversationStore(engine)
    made = store.new("handbook")
    store.append(made, "Old?")
    with writing(engine) as connection:
        connection.execute(update(exchanges).values(answer={"text": "An old answer", "status": "odd"}))
    loaded = store.load(made)
    assert loaded is not None
    assert loaded.exchanges[0].answer == Answer("An old answer", "answered")


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("short", "short"),
        (" two\n lines ", "two lines"),
        ("word " * 30, ("word " * 11).strip() + "…"),
        ("x" * 200, "x" * (TITLE_LENGTH - 1) + "…"),
    ],
)
def test_titles_are_cut_between_words(text: str, short: str) -> None:
    assert shorten(text) == short
    assert len(shorten(text)) <= TITLE_LENGTH


def test_what_databases_dislike_is_kept(store: ConversationStore, tmp_path: Path) -> None:
    made = store.new("handbook")
    odd = "'; DROP TABLE messages; -- \u202e \U0001f4a9 \t"
    store.append(made, odd)
    loaded = store.load(made)
    assert loaded is not None
    assert loaded.exchanges[0].question == odd
