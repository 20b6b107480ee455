"""The lexical side: BM25 that is incremental, persistent, and takes any text as a query."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import StoreError
from rag.indexing.lexical_index import LexicalEntry, LexicalIndex, drop_lexical


def entry(number: int, words: str, text: int = 1, page: int = 0) -> LexicalEntry:
    return LexicalEntry(number, text, page, words)


def numbers(found: Sequence[tuple[int, float]]) -> list[int]:
    return [number for number, _ in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lexical" / "notes"


@pytest.fixture
def lexical(folder: Path) -> LexicalIndex:
    return LexicalIndex(folder)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> LexicalIndex:
    """One for tests that only read."""
    index = LexicalIndex(tmp_path_factory.mktemp("lexical"))
    index.write([entry(1, "the old mill by the river"), entry(2, "C++ and C# (with [brackets]): x = y AND z")])
    return index


# Adding, removing, replacing


def test_what_was_added_is_found(lexical: LexicalIndex) -> None:
    lexical.write([entry(1, "the old mill"), entry(2, "a cold river")])
    assert numbers(lexical.search("mill", 10)) == [1]
    assert numbers(lexical.search("river", 10)) == [2]
    assert len(lexical) == 2
    assert lexical.passage_ids() == [1, 2]


def test_what_was_removed_is_not_found(lexical: LexicalIndex) -> None:
    lexical.write([entry(1, "the old mill"), entry(2, "the new mill")])
    lexical.write(remove=[1, 99])
    assert numbers(lexical.search("mill", 10)) == [2]
    assert lexical.passage_ids() == [2]
    assert len(lexical) == 1


def test_a_passage_with_the_same_number_replaces_the_old_one(lexical: LexicalIndex) -> None:
    lexical.write([entry(1, "the old mill")])
    lexical.write([entry(1, "a cold river")])
    assert lexical.search("mill", 10) == []
    assert numbers(lexical.search("river", 10)) == [1]
    assert len(lexical) == 1


def test_one_write_may_remove_and_add(lexical: LexicalIndex) -> None:
    lexical.write([entry(1, "mill"), entry(2, "mill")])
    lexical.write([entry(3, "mill")], remove=[1])
    assert lexical.passage_ids() == [2, 3]


def test_a_write_that_fails_changes_nothing(lexical: LexicalIndex) -> None:
    lexical.write([entry(1, "the old mill")])
    with pytest.raises((StoreError, TypeError, ValueError)):
        lexical.write([entry(2, "mill"), entry("three", "mill")], remove=[1])  # type: ignore[arg-type]
    assert lexical.passage_ids() == [1]
    lexical.write([entry(2, "mill")])
    assert lexical.passage_ids() == [1, 2]


def test_an_empty_index_finds_nothing(lexical: LexicalIndex) -> None:
    assert lexical.search("mill", 10) == []
    assert lexical.passage_ids() == []
    assert len(lexical) == 0
    lexical.write(remove=[1])


def test_it_is_still_there_when_opened_again(lexical: LexicalIndex, folder: Path) -> None:
    lexical.write([entry(1, "the old mill", text=7, page=3)])
    again = LexicalIndex(folder)
    assert again.search("mills", 10, [7], 3) == lexical.search("mill", 10)
    again.write(remove=[1])
    assert len(LexicalIndex(folder)) == 0


def test_another_reader_sees_what_was_written_after_it_refreshes(lexical: LexicalIndex, folder: Path) -> None:
    reader = LexicalIndex(folder)
    lexical.write([entry(1, "the old mill")])
    reader.refresh()
    assert numbers(reader.search("mill", 10)) == [1]


def test_an_index_that_was_dropped_starts_empty(lexical: LexicalIndex, folder: Path) -> None:
    lexical.write([entry(1, "the old mill")])
    drop_lexical(folder)
    assert not folder.exists()
    assert len(LexicalIndex(folder)) == 0
    drop_lexical(folder.parent / "never made")


# Order


def test_rarer_words_and_shorter_passages_come_first(lexical: LexicalIndex) -> None:
    lexical.write(
        [
            entry(1, "stone stone stone stone"),
            entry(2, "stone mill and much more that has little to do with either of the two words"),
            entry(3, "stone mill"),
            *[entry(number, "stone wall") for number in range(4, 10)],
        ]
    )
    found = lexical.search("stone mill", 20)
    assert numbers(found)[:2] == [3, 2]
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert all(score > 0 for _, score in found)


def test_ties_are_ordered_by_number(lexical: LexicalIndex) -> None:
    for number in (5, 3, 9, 1):
        lexical.write([entry(number, "the old mill")])
    assert numbers(lexical.search("mill", 10)) == [1, 3, 5, 9]


def test_no_more_than_the_limit_are_found(lexical: LexicalIndex) -> None:
    lexical.write([entry(number, "mill") for number in range(50)])
    assert len(lexical.search("mill", 7)) == 7
    assert len(lexical.search("mill", 1_000)) == 50


# Filters


def test_no_document_has_a_page_beyond_64_bits(shared: LexicalIndex) -> None:
    assert shared.search("mill", 10, page=2**63) == []


def test_filters_keep_the_scores(lexical: LexicalIndex) -> None:
    lexical.write([entry(n, "mill " * n, text=n % 3, page=n % 2) for n in range(1, 13)])
    free = dict(lexical.search("mill", 20))
    for found in (
        lexical.search("mill", 20, [1, 2]),
        lexical.search("mill", 20, None, 1),
        lexical.search("mill", 20, [0], 1),
    ):
        assert all(free[number] == score for number, score in found)


def test_only_the_texts_and_the_page_that_are_asked_for_are_found(lexical: LexicalIndex) -> None:
    lexical.write([entry(n, "mill", text=n % 3, page=n % 2) for n in range(12)])
    assert numbers(lexical.search("mill", 20, [1, 2])) == [1, 2, 4, 5, 7, 8, 10, 11]
    assert numbers(lexical.search("mill", 20, None, 1)) == [1, 3, 5, 7, 9, 11]
    assert numbers(lexical.search("mill", 20, [0], 1)) == [3, 9]
    assert lexical.search("mill", 20, []) == []
    assert lexical.search("mill", 20, [99]) == []
    assert len(lexical.search("mill", 20, list(range(50_000)))) == 12


# Words


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("the mills were running", "running mill"),
        ("RIVER", "river"),
        ("a café in Orléans", "CAFE orleans"),
        ("snake_case_name", "snake"),
        ("don't", "don"),
        ("in the year 1871", "1871"),
    ],
)
def test_a_word_is_found_in_other_forms(lexical: LexicalIndex, stored: str, asked: str) -> None:
    lexical.write([entry(1, stored)])
    assert numbers(lexical.search(asked, 10)) == [1]


def test_the_words_of_a_text_are_distinct_stemmed_and_no_stop_words(lexical: LexicalIndex) -> None:
    assert lexical.words("The mills, the MILL and a river") == ["mill", "river"]
    assert lexical.words("the of and") == []
    assert lexical.words("") == []
    assert lexical.words("x" * 61) == []


def test_the_frequency_of_a_word_is_the_number_of_passages(lexical: LexicalIndex) -> None:
    lexical.write([entry(1, "mill mill"), entry(2, "mills"), entry(3, "river")])
    assert lexical.frequency("mill") == 2
    assert lexical.frequency("river") == 1
    assert lexical.frequency("stone") == 0


@pytest.mark.parametrize(
    "query",
    [
        "mill AND",
        'mill "unclosed',
        "mill)(",
        "mill^2 ~ *",
        "+mill -river",
        "words:mill passage:1",
        "mill [a TO b}",
        "mill \\",
        "mill\x00",
        "mill 🙂",
        "mill " * 3_000,
    ],
)
def test_nothing_in_a_query_is_syntax(shared: LexicalIndex, query: str) -> None:
    assert 1 in numbers(shared.search(query, 10))


@pytest.mark.parametrize("query", ["", "  ", "the and of", "🙂", "?!", "-", "C++"])
def test_a_query_without_words_is_no_error(shared: LexicalIndex, query: str) -> None:
    assert shared.search(query, 10) in ([], shared.search("c", 10))


@given(st.text(max_size=200))
def test_any_text_may_be_a_query(shared: LexicalIndex, query: str) -> None:
    assert set(numbers(shared.search(query, 10))) <= {1, 2}


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_any_text_may_be_stored_and_is_found_by_its_own_words(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    index = LexicalIndex(tmp_path_factory.mktemp("any"))
    index.write([entry(number, text) for number, text in enumerate(texts)])
    for number, text in enumerate(texts):
        if index.words(text):
            assert number in numbers(index.search(text, 10))


# Several at once


def test_a_second_writer_is_told_that_the_first_one_is_busy(lexical: LexicalIndex, folder: Path) -> None:
    writer = lexical._index.writer(15_000_000, 1)
    try:
        with pytest.raises(StoreError, match="Another ragsmith process is writing") as raised:
            LexicalIndex(folder).write([entry(1, "mill")])
        assert "Another ragsmith process is writing" in raised.value.fix
    finally:
        writer.wait_merging_threads()
    lexical.write([entry(1, "mill")])
    assert len(lexical) == 1


def test_searches_go_on_while_it_is_written(lexical: LexicalIndex) -> None:
    lexical.write([entry(0, "mill")])
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            assert 0 in numbers(lexical.search("mill", 1_000))

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(search) for _ in range(3)]
        for number in range(1, 9):
            lexical.write([entry(number, "mill")])
        done.set()
        for reader in readers:
            reader.result()
    assert len(lexical.search("mill", 1_000)) == 9


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(StoreError, match=str(tmp_path)) as raised:
        LexicalIndex(tmp_path)
    assert "`ragsmith ingest`" in raised.value.fix


# Letters and scripts


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Das Gesamt\u00adkonzept steht.", "Gesamtkonzept"),
        ("Cargo\u200bManifest\u200bBuilder loads it.", "CargoManifestBuilder"),
        ("Die Bru\u0308cke am Markt", "Brücke"),
        ("Die Brücke am Markt", "Bru\u0308cke"),
        ("the o\ufb03ce is \ufb01nished", "office finished"),
        ("\uff34\uff2f\uff2b\uff39\uff2f tower", "tokyo"),
        ("\u1112\u1161\u11a8\u110c\u1165\u11b7을 신청한다", "학점"),
        ("退款将在三个工作日内到账。", "退款"),
        ("返金は三日以内に行われます。", "返金"),
        ("การคืนเงินใช้เวลาสามวัน", "คืนเงิน"),
        ("Кошка спит на окне", "кошки"),
        ("Гарантия на насос два года", "гарантии насоса"),
        ("Ёлка стоит в холле", "елки"),
        ("Η γάτα κοιμάται", "γάτες"),
        ("مدة الضمان سنتان", "الضَّمَانِ"),
        ("قرأت الكتاب أمس", "كتابهم"),
        ("שָׁלוֹם לכולם", "שלום"),
        ("कुत्ते की कीमत", "कुत्ते"),
        ("a wall of 5 μm", "μm"),
        ("The transfor-\n  mation of a port", "transformation"),
        ("Sales of FY2024 rose", "2024"),
        ("Sales of 2024 rose", "FY2024 Q12024"),
    ],
)
def test_a_word_is_found_however_it_is_written_and_inflected(lexical: LexicalIndex, text: str, query: str) -> None:
    lexical.write([entry(1, text), entry(2, "A text about something else, in 1999. 其他 別の อื่น 다른")])
    assert numbers(lexical.search(query, 10)) == [1]


def test_russian_words_that_say_nothing_are_left_out(shared: LexicalIndex) -> None:
    assert shared.words("Что и как?") == []


@given(st.text())
def test_any_text_gives_the_same_words_composed_and_decomposed(shared: LexicalIndex, text: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert shared.words(composed) == shared.words(decomposed)
