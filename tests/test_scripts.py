"""Questions in scripts that the encoder does not know, which their words decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from corpus_stores import take_in, write

from rag.answering.condense import carry_topic
from rag.database import open_database
from rag.encoders import Encoder
from rag.indexing.corpora import Corpora
from rag.indexing.corpus_index import CorpusIndex
from rag.indexing.dense_index import ChromaStore
from rag.models.extractive.evidence import Evidence, EvidencePassage
from rag.models.extractive.script_ranking import ScriptRanking
from rag.models.extractive.sentence_ranking import SentenceRanking
from rag.retrieval.retriever import Retriever
from rag.settings import RetrievalSettings
from rag.types import Turn
from rag.workspace import open_workspace

ROOMS = {
    "灯塔": ("林船长", "四天"),
    "船坞": ("高木匠", "五天"),
    "仓房": ("何渔夫", "六天"),
    "码头": ("罗站长", "七天"),
}
PAGES = {
    f"{room}.md": f"# {room}规定\n\n{room}由{keeper}看管，每隔{days}打扫一次。失物保留{days}。请不要吸烟。"
    for room, (keeper, days) in ROOMS.items()
}
OTHERS = {
    "паром.md": "# Паром\n\nПаром отправляется каждый час. Билет стоит двести рублей. Собаки едут бесплатно.",
    "หอดูดาว.md": "หอดูดาวเปิดทุกวันศุกร์ ค่าเข้าชมแปดสิบบาท\n\nห้ามถ่ายภาพด้วยแฟลช",
    "english.md": "# The ferry\n\nThe ferry leaves every hour. A ticket costs two crowns.",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Iterator[CorpusIndex]:
    home = tmp_path_factory.mktemp("scripts")
    workspace = open_workspace(home / "workspace")
    engine = open_database(workspace)
    made = Corpora(workspace, engine, encoder, 60, ChromaStore(workspace, None)).ensure("scripts")
    take_in(made, write(home / "files", PAGES | OTHERS))
    yield made
    engine.dispose()


@pytest.fixture(scope="module")
def retriever(index: CorpusIndex) -> Iterator[Retriever]:
    made = Retriever(index, RetrievalSettings())
    yield made
    made.close()


@pytest.fixture(scope="module")
def answer(index: CorpusIndex, retriever: Retriever, encoder: Encoder) -> Callable[[str], list[str]]:
    """Finds passages, and returns the sentences that answer; empty for a refusal."""
    ranking = ScriptRanking(SentenceRanking(encoder, index.lexical), index.lexical, encoder.tokens)

    def answered(question: str) -> list[str]:
        passages = tuple(
            EvidencePassage(
                number, hit.passage.text, hit.passage.title or "", hit.passage.headings, hit.dense_score
            )
            for number, hit in enumerate(retriever.search(question), start=1)
        )
        ranked = ranking.rank(Evidence(question, passages, "refusal"))
        if ranking.confidence(ranked) < ranking.min_confidence:
            return []
        return [one.sentence.text for one in ranking.choose(ranked)]

    return answered


@pytest.mark.parametrize("room", ROOMS)
def test_the_room_that_is_named_answers_among_rooms_that_are_alike(
    answer: Callable[[str], list[str]], room: str
) -> None:
    keeper, days = ROOMS[room]
    assert answer(f"{room}由谁看管？") == [f"{room}由{keeper}看管，每隔{days}打扫一次。"]
    # The sentence does not name the room, but its page does.
    assert answer(f"{room}的失物保留几天？") == [f"失物保留{days}。"]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Сколько стоит билет на паром?", "Билет стоит двести рублей."),
        ("ค่าเข้าชมหอดูดาวเท่าไร", "หอดูดาวเปิดทุกวันศุกร์ ค่าเข้าชมแปดสิบบาท"),
        ("What does a ticket of the ferry cost?", "A ticket costs two crowns."),
    ],
)
def test_each_script_is_answered_from_its_own_page(
    answer: Callable[[str], list[str]], question: str, expected: str
) -> None:
    assert expected in answer(question)


@pytest.mark.parametrize("question", ["谁写了红楼梦？", "Кто написал эту книгу?", "12 + 3"])
def test_a_question_without_a_word_of_the_corpus_is_refused(
    answer: Callable[[str], list[str]], question: str
) -> None:
    assert answer(question) == []


def test_what_the_encoder_cannot_read_does_not_spoil_the_search_by_words(retriever: Retriever) -> None:
    words = retriever.search("船坞由谁看管？", retriever.options(mode="lexical"))
    assert retriever.search("船坞由谁看管？") == words
    # Without a word in common, meaning is all that there is.
    assert [hit.dense_rank for hit in retriever.search("рыба")][:2] == [1, 2]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("When does the ferry leave?", True),
        ("Où est le gardien de l'île ?", True),
        ("Is 灯塔 a lighthouse?", True),
        ("", True),
        ("R 2", True),
        ("灯塔由谁看管？", False),
        ("学校の電話番号は何番ですか", False),
        ("등대는 언제 열어요", False),
        ("Когда отправляется паром?", False),
        ("متى تغادر العبارة", False),
    ],
)
def test_the_shipped_encoder_knows_latin_letters_only(encoder: Encoder, text: str, known: bool) -> None:
    assert encoder.tokens.knows(text) is known


def test_an_encoder_that_was_trained_on_a_script_knows_it(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from rag.encoders.encoder_tokens import TokenCounter

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pages = [*PAGES.values(), *OTHERS.values()] * 10
    made.train_from_iterator(pages, trainers.WordPieceTrainer(special_tokens=["[UNK]"], show_progress=False))
    made.save(str(tmp_path / "tokenizer.json"))
    tokens = TokenCounter(tmp_path / "tokenizer.json")
    assert [tokens.knows(text) for text in ("灯塔由林船长看管", "Билет стоит двести рублей")] == [True, True]


def test_a_question_without_spaces_is_not_taken_for_a_follow_up() -> None:
    history = [Turn("灯塔有多高？", "灯塔高三十四米。")]
    assert carry_topic("医院在哪里？", history) == "医院在哪里？"
    assert carry_topic("And the mill?", [Turn("How high is the lighthouse?", "34 metres.")]) != "And the mill?"
