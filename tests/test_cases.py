"""Cases, the files that hold them, and their split into parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from terminal import ROOT, jsonl

from rag.errors import DatasetError
from rag.evaluation.case_files import BadRow, read_cases, write_cases
from rag.evaluation.cases import Case, bare_question, make_id, source_name, why
from rag.evaluation.split import split
from rag.types import Turn

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
FILLED = TEXT.map(lambda text: f"x{text}")


@st.composite
def a_case(draw: st.DrawFn) -> Case:
    refused = draw(st.booleans())
    return Case(
        id=draw(FILLED),
        question=draw(FILLED),
        history=tuple(Turn(*each) for each in draw(st.lists(st.tuples(TEXT, TEXT), max_size=2))),
        answers=() if refused else tuple(draw(st.lists(FILLED, max_size=3))),
        sources=tuple(draw(st.lists(FILLED, max_size=2))),
        must_refuse=refused,
        tags=tuple(draw(st.lists(FILLED, max_size=2))),
        notes=draw(TEXT),
    )


def several(least: int = 0) -> st.SearchStrategy[list[Case]]:
    return st.lists(
        a_case(), min_size=least, max_size=6, unique_by=(lambda case: case.id, lambda case: case.content_sha256)
    )


def case(number: int, *sources: str, question: str = "") -> Case:
    return Case(id=f"c{number}", question=question or f"Question {number}?", sources=sources)


def refusal(**parts: Any) -> str:
    """Why these parts are no case."""
    with pytest.raises(ValidationError) as caught:
        Case.model_validate({"id": "a", "question": "Why?"} | parts)
    return why(caught.value)


def test_a_case_is_read_again_from_its_json() -> None:
    made = Case(
        id="7",
        question=" Why? ",
        history=(Turn("What?", "That."),),
        answers=("because", "since"),
        sources=("a.md",),
        tags=("hard",),
        notes="n",
    )
    assert made.question == "Why?"
    assert Case.model_validate(made.as_json()) == made
    assert Case.model_validate_json(json.dumps(made.as_json())) == made


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"question": "  "}, "question: it must not be empty"),
        ({"question": "a\x00b"}, "question: it must not contain NUL characters"),
        ({"question": "a\ud800"}, "question: it must not contain lone surrogates"),
        ({"answers": ["x", ""]}, "answers 2: it must not be empty"),
        ({"answers": [1]}, "answers 1: Input should be a valid string"),
        ({"answers": ["x"], "must_refuse": True}, "it must not have answers if it must be refused"),
        ({"must_refuse": 1}, "must_refuse: Input should be a valid boolean"),
        ({"history": [{"question": "a"}]}, "history 1: a turn must consist of the texts question and answer"),
        ({"history": [{"question": "a", "answer": "\udc00"}]}, "history 1: it must not contain lone surrogates"),
        ({"history": [{"question": "a", "answer": "b", "c": "d"}]}, "history 1: a turn must"),
        ({"colour": "red", "size": 2}, "unknown fields: colour, size"),
        ({"id": "x" * 201}, "id: String should have at most 200 characters"),
    ],
)
def test_what_is_no_case_is_told_in_a_clause(parts: dict[str, Any], reason: str) -> None:
    assert refusal(**parts).startswith(reason)


def test_the_question_must_be_there() -> None:
    with pytest.raises(ValidationError) as caught:
        Case.model_validate({"id": "a"})
    assert why(caught.value) == "question is missing"


def test_the_digest_is_of_all_and_the_other_of_all_but_the_id() -> None:
    one, other = Case(id="a", question="Why?"), Case(id="b", question="Why?")
    assert one.sha256 != other.sha256
    assert one.content_sha256 == other.content_sha256
    assert one.content_sha256 != Case(id="a", question="Why?", notes="x").content_sha256
    # Written down, so that a stored digest stays what it is.
    assert one.sha256[:12] == "21bc42450eb4"


def test_an_id_follows_from_question_and_history() -> None:
    assert make_id("Why?") == make_id(" Why? ") == "87bcfe608650"
    assert len({make_id("Why?"), make_id("why?"), make_id("Why?", [Turn("a", "b")])}) == 3


def test_questions_are_compared_without_case_punctuation_and_spaces() -> None:
    assert bare_question(" Who’s  THERE?! ") == bare_question("who s there")
    assert bare_question("ＡＢＣ") == "abc"
    assert bare_question("?!") != bare_question("!!")
    assert source_name("report.pdf", 3) == "report.pdf p.3"
    assert source_name("a.md") == "a.md"


@given(several())
def test_json_lines_give_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, cases: list[Case]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "cases.jsonl"
    assert write_cases(path, cases) == len(cases)
    assert read_cases(path).cases == tuple(cases)
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(cases)


@given(several(), st.sampled_from([".csv", ".tsv"]))
def test_tables_give_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, cases: list[Case], ending: str
) -> None:
    path = tmp_path_factory.mktemp("table") / f"cases{ending}"
    assert write_cases(path, cases) == len(cases)
    found = read_cases(path)
    assert found.problems == ()
    assert found.cases == tuple(cases)


def test_bars_backslashes_and_formulas_survive_a_table(tmp_path: Path) -> None:
    odd = Case(id="1", question="=1+1", answers=("a|b", "C:\\x\\", "\\|", "-2"), sources=("@a", "+b"))
    path = tmp_path / "odd.csv"
    write_cases(path, [odd])
    assert read_cases(path).cases == (odd,)


def test_a_text_that_no_reader_of_tables_takes_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(DatasetError, match="JSON lines"):
        write_cases(path, [case(1), Case(id="long", question="x" * 140_000)])
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(
        "\ufeffQuestion,Expected Answer,answer_1,source,Unanswerable,tags,history\r\n"
        '"Two\nlines?",a | b ,c|d,docs\\a.md | b.md,FALSE,x|y,"[{""question"": ""q"", ""answer"": ""a""}]"\r\n'
        "\r\n"
        "Alone?\r\n"
        "Refused?,,,,yes,,,,\r\n".encode()
    )
    found = read_cases(path)
    assert found.problems == ()
    first, alone, refused = found.cases
    assert (first.question, first.answers) == ("Two\nlines?", ("a", "b", "c|d"))
    assert (first.sources, first.tags) == (("docs\\a.md", "b.md"), ("x", "y"))
    assert (first.history, first.must_refuse) == ((Turn("q", "a"),), False)
    assert alone.id == make_id("Alone?")
    assert refused.must_refuse


@pytest.mark.parametrize("comma", [";", "\t"])
def test_the_separator_is_seen_from_the_first_line(tmp_path: Path, comma: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(f"question{comma}answer\nOne, two or three?{comma}two\n", encoding="utf-8")
    assert read_cases(path).cases[0].answers == ("two",)


def test_bad_rows_of_a_table_are_named_by_their_first_line(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(
        "question,answer,colour,refuse,history\n"
        '"one\n\n?",1,red,,\n'
        ",nothing asked,,,\n"
        "Refused?,yes it is,,maybe,\n"
        "Cells?,a,b,,,more\n"
        "Turns?,,,,{}}\n",
        encoding="utf-8",
    )
    found = read_cases(path)
    assert [each.question for each in found.cases] == ["one\n\n?"]
    assert found.problems == (
        BadRow(5, "question is missing"),
        BadRow(6, "refuse: it must be true or false"),
        BadRow(7, "it has 6 cells, but the first line names 5"),
        BadRow(8, "history: it must be a JSON list of turns"),
    )
    assert found.strange == ("colour",)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "must name a column question"),
        ("answer\nx\n", "must name a column question"),
        ("question,question\na,b\n", "several columns question"),
        ('question,answer\nfine?,a\nbroken?,"a\nb,c\n', "the row from line 3 is malformed"),
        ('question,answer\nbroken?,"a"b\n', "line 2 is malformed"),
    ],
)
def test_a_table_that_is_broken_as_a_whole_says_where(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError, match=part):
        read_cases(path)


def test_other_names_are_understood_and_strange_ones_named(tmp_path: Path) -> None:
    rows: list[object] = [
        {"_id": 3, "question": "a?", "answer": "x", "answers": ["x", "y"], "reference": "z", "source": "a.md"},
        {"question": "b?", "answerable": False, "notes": None},
        {"question": "c?", "refuse": True},
        {"question": "d?", "colour": "red"},
        {"question": "e?", "refuse": True, "unanswerable": False},
        ["f?"],
        "g?",
    ]
    found = read_cases(jsonl(tmp_path / "cases.jsonl", rows))
    first, second, third, _ = found.cases
    assert found.note == "Left out, because cases have no such field: colour."
    assert (first.id, first.answers, first.sources) == ("3", ("x", "y", "z"), ("a.md",))
    assert second.must_refuse
    assert third.must_refuse
    assert [(each.number, each.reason) for each in found.problems] == [
        (5, "it has several values for must_refuse"),
        (6, "it must be a JSON object"),
        (7, "it must be a JSON object"),
    ]


@pytest.mark.parametrize(
    ("header", "strange"),
    [
        ("input,expected_output", ()),
        ("Query,Ground Truth,score", ("score",)),
        ("user_input,reference,retrieved_contexts", ("retrieved_contexts",)),
        ("prompt,ideal,id,must-refuse,latency", ("latency",)),
        ("question,target,input", ("input",)),
    ],
)
def test_the_columns_of_other_programs_are_understood(
    tmp_path: Path, header: str, strange: tuple[str, ...]
) -> None:
    path = tmp_path / "export.csv"
    cells = {"id": "c1", "must-refuse": "no"}
    names = header.split(",")
    values = ["How much?", "12 euros", *(cells.get(name, "0.5") for name in names[2:])]
    path.write_text(f"{header}\n{','.join(values)}\n", encoding="utf-8")
    found = read_cases(path)
    assert [(case.question, case.answers) for case in found.cases] == [("How much?", ("12 euros",))]
    assert (found.problems, found.strange) == ((), strange)


def test_a_name_that_is_nearly_right_is_asked_about(tmp_path: Path) -> None:
    rows = [
        {"question": "a?", "must_refues": True, "latency_ms": 3},
        {"question": "b?", "input": 1},
        {"input": "c?"},
    ]
    found = read_cases(jsonl(tmp_path / "cases.jsonl", rows))
    assert [case.question for case in found.cases] == ["a?", "b?", "c?"]
    assert found.note == (
        "Left out, because cases have no such field: must_refues (did you mean must_refuse?), latency_ms, input."
    )


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_separator_that_a_spreadsheet_names_is_taken(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "cases.csv"
    text = f"sep={separator}\r\nquestion{separator}answers\r\nWhat, and why?{separator}1,50\r\n{separator}x\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read_cases(path)
    assert [(case.question, case.answers) for case in found.cases] == [("What, and why?", ("1,50",))]
    assert found.problems == (BadRow(4, "question is missing"),)


def test_a_cell_may_be_a_whole_page(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(f'question,answers\n"How?","{"so " * 60_000}"\n', encoding="utf-8")
    assert len(read_cases(path).cases[0].answers[0]) > 170_000


def test_lines_that_are_no_json_are_named_and_the_others_read(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(
        '\n{"question": "a?"}\n{"question": \nnull\n{"question": "\\ud800"}\n' + "[" * 100_000 + "\n",
        encoding="utf-8",
    )
    found = read_cases(path)
    assert len(found.cases) == 1
    assert [each.number for each in found.problems] == [3, 4, 5, 6]
    assert "lone surrogate" in found.problems[2].reason


def test_duplicates_are_named_with_the_line_of_the_first(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "question": "one?"},
        {"id": "a", "question": "one?"},
        {"id": "a", "question": "two?"},
        {"id": "b", "question": "one?"},
        {"question": "three?"},
        {"question": "three?", "answer": "x"},
    ]
    found = read_cases(jsonl(tmp_path / "cases.jsonl", rows))
    assert [each.question for each in found.cases] == ["one?", "three?"]
    assert [(each.number, each.reason) for each in found.problems] == [
        (2, "the same case is in line 1"),
        (3, "another case with the id a is in line 1"),
        (4, "the same case is in line 1 under another id"),
        (6, f"another case with the id {make_id('three?')} is in line 5"),
    ]


def test_items_of_a_json_list_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    path.write_text('\ufeff[\n {"question": "a?"},\n\n {"x":\n 1}\n , 3]\n', encoding="utf-8")
    found = read_cases(path)
    assert [each.question for each in found.cases] == ["a?"]
    assert [each.number for each in found.problems] == [4, 6]
    path.write_text(" [ ] ", encoding="utf-8")
    assert read_cases(path).cases == ()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "a list must begin with"),
        ('[{"question": "a?"}\n{"question": "b?"}]', "line 2, must be a JSON list of cases: expected , or ]"),
        ('[{"question": "a?"},\n]', "line 2"),
        ("[1", "expected , or ]"),
        ("[] []", "unexpected text after the list"),
        ('{"subject": "a?"}', "must be a JSON list of cases, or in SQuAD's format"),
    ],
)
def test_a_json_file_that_is_broken_as_a_whole_says_where(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "cases.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        read_cases(path)
    assert part in str(caught.value)


@pytest.mark.parametrize("content", ["Fragé".encode("utf-16"), b"question\nna\xefve\n", b"q\x00u\x00"])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv"])
def test_what_is_not_utf8_is_one_clear_error(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"cases{ending}"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="must be UTF-8 text"):
        read_cases(path)


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path / "cases.docx"):
        with pytest.raises(DatasetError, match="cannot be read"):
            read_cases(path)
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    for path in (folder, tmp_path / "none" / "a.csv", tmp_path / "cases.docx"):
        with pytest.raises(DatasetError, match="cannot be written"):
            write_cases(path, [case(1)])
    assert list(tmp_path.iterdir()) == [folder]


def test_squad_gives_cases_with_its_articles_as_tags(tmp_path: Path) -> None:
    asked = [
        {"id": "q1", "question": "When?", "answers": [{"text": "1871", "answer_start": 0}] * 2},
        {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True},
        {"id": "q3", "question": " ", "answers": []},
    ]
    article = {"title": "The_gauge", "paragraphs": [{"context": "1871 it was.", "qas": asked}]}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [article]}), encoding="utf-8")
    found = read_cases(path)
    assert found.cases == (
        Case(id="q1", question="When?", answers=("1871",), tags=("The gauge",)),
        Case(id="q2", question="Why?", must_refuse=True, tags=("The gauge",)),
    )
    assert found.problems == (BadRow(3, "question: it must not be empty"),)


@pytest.mark.parametrize("name", ["questions", "followups"])
def test_the_questions_of_the_handbook_are_cases(name: str) -> None:
    path = ROOT / "corpora" / "handbook" / f"{name}.jsonl"
    found = read_cases(path)
    assert found.problems == ()
    assert len(found.cases) == len(path.read_text(encoding="utf-8").splitlines())
    assert all(each.sources or each.must_refuse for each in found.cases)


SOURCES = st.lists(
    st.sampled_from([f"{folder}{name}" for folder in ("", "x/", "y/") for name in ("a.md", "b.md", "c.pdf p.1")]),
    max_size=2,
)
ASKED = st.sampled_from(["", "", "", "What is it?", "what is it", "Who?"])


@given(st.lists(st.tuples(SOURCES, ASKED), max_size=40), st.integers(0, 5))
def test_a_split_loses_nothing_and_parts_nothing_that_hangs_together(
    drawn: list[tuple[list[str], str]], seed: int
) -> None:
    cases = [case(number, *sources, question=asked) for number, (sources, asked) in enumerate(drawn)]
    made = split(cases, seed=seed)
    placed = [each for part in made.parts.values() for each in part]
    assert sorted(placed, key=lambda each: each.id) == sorted(cases, key=lambda each: each.id)
    for one, held in made.parts.items():
        for other, others in made.parts.items():
            if one != other:
                assert not {s for c in held for s in c.sources} & {s for c in others for s in c.sources}
                asked = {bare_question(c.question) for c in held}
                assert not asked & {bare_question(c.question) for c in others}
    assert split(cases[::-1], seed=seed).parts.keys() == made.parts.keys()
    again = split(cases[::-1], seed=seed)
    assert {name: set(part) for name, part in again.parts.items()} == {
        name: set(part) for name, part in made.parts.items()
    }
    assert sum(made.shares.values()) == pytest.approx(1 if cases else 0)


@given(st.integers(0, 400), st.integers(0, 9))
def test_cases_that_have_nothing_in_common_are_parted_to_the_nearest_case(count: int, seed: int) -> None:
    made = split([case(number, f"{number}.md") for number in range(count)], seed=seed)
    assert made.groups == count
    for name, part in made.parts.items():
        assert abs(len(part) - made.wanted[name] * count) < 1


def test_another_seed_parts_otherwise() -> None:
    cases = [case(number) for number in range(50)]
    tests = {tuple(each.id for each in split(cases, seed=seed).parts["test"]) for seed in range(5)}
    assert len(tests) == 5


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("report.pdf p.3", "report.pdf p.4", True),
        ("faq.jsonl#1", "faq.jsonl#2", False),
        ("guide/a.md", "a.md", True),
        ("guide/a.md", "notes/a.md", False),
        ("data/faq.jsonl#1", "faq.jsonl", True),
    ],
)
def test_what_counts_as_a_source_in_common(one: str, other: str, together: bool) -> None:
    made = split([case(1, one), case(2, other)], shares={"a": 0.5, "b": 0.5}, seed=0)
    assert (made.groups == 1) is together
    assert (made.largest == 2) is together


def test_cases_hang_together_through_others() -> None:
    made = split([case(1, "a"), case(2, "a", "b"), case(3, "b", "c"), case(4, "d")], seed=0)
    assert (made.groups, made.largest) == (2, 3)
    assert [each.id for each in made.parts["train"]] == ["c1", "c2", "c3"]


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}])
def test_shares_must_make_a_whole(shares: dict[str, float]) -> None:
    with pytest.raises(DatasetError, match="with a sum of 1"):
        split([case(1)], shares=shares, seed=0)


def test_a_part_without_a_share_stays_empty() -> None:
    made = split([case(n) for n in range(5)], shares={"a": 1.0, "b": 0.0}, seed=0)
    assert len(made.parts["a"]) == 5
    assert made.parts["b"] == ()
