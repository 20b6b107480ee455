"""Cases as other programs export them: spellings of names, nested fields, chats, and objects around the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import DatasetError
from rag.evaluation.case_files import Preview, read_cases
from rag.evaluation.foreign_rows import flattened, rows_in
from rag.types import Turn

FERRY, LEAVES = "When does the ferry leave?", "every 40 minutes"


def table(folder: Path, text: str) -> Preview:
    path = folder / "cases.csv"
    path.write_text(text, encoding="utf-8")
    return read_cases(path)


def lines(folder: Path, *rows: Any) -> Preview:
    path = folder / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_cases(path)


@pytest.mark.parametrize(
    "head",
    [
        "Question,Expected Output",
        "userQuery,expectedOutput",
        "inputs.question,outputs.answer",
        "User-Input,Correct Answer",
        "question,goldenAnswer",
        "sep=,\nquery,reference_output",
        "\n \nquestion,answer",
        '"sep=,"\nprompt,ideal answer',
    ],
)
def test_columns_are_known_in_other_spellings(tmp_path: Path, head: str) -> None:
    found = table(tmp_path, f"{head}\n{FERRY},{LEAVES}\n")
    (case,) = found.cases
    assert (case.question, case.answers, found.problems, found.note) == (FERRY, (LEAVES,), (), "")


def test_the_choices_of_a_question_are_no_answers(tmp_path: Path) -> None:
    found = table(tmp_path, f"question,A,B,answer,response\n{FERRY},never,{LEAVES},{LEAVES},at noon\n")
    assert found.cases[0].answers == (LEAVES,)
    assert found.strange[:2] == ("a", "b")
    assert "response" in found.strange


@pytest.mark.parametrize(
    "text",
    [
        "question|answer\n{0}|{1}",
        '"question, first";"answer, short, of it"\n{0};{1}',
        "question\tanswer\n{0}\t{1}",
    ],
)
def test_the_delimiter_is_the_one_that_names_a_question(tmp_path: Path, text: str) -> None:
    found = table(tmp_path, text.format(FERRY, LEAVES).replace("question, first", "question"))
    assert [case.question for case in found.cases] == [FERRY]


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("inputs,outputs", '"{""question"": ""%s""}","{""answer"": ""%s""}"'),
        ("input,expectedOutput", '"{""text"": ""%s""}","{""text"": ""%s""}"'),
        ("messages,ideal", '"[{""role"": ""user"", ""content"": ""%s""}]",%s'),
        ("question,answers", '%s,"[""%s"", ""at once""]"'),
        ("question,answers", "%s,\"['%s', 'at once']\""),
    ],
)
def test_json_in_cells_is_read(tmp_path: Path, head: str, row: str) -> None:
    found = table(tmp_path, f"{head}\n{row % (FERRY, LEAVES)}\n")
    assert [(case.question, case.answers[0]) for case in found.cases] == [(FERRY, LEAVES)]
    assert (found.problems, found.note) == ((), "")


def test_text_that_only_begins_like_json_stays(tmp_path: Path) -> None:
    found = table(tmp_path, 'question,answer\n[a] or {b}?,[1871\n"{""a"": 1}?",{}\n')
    assert [(case.question, case.answers) for case in found.cases] == [
        ("[a] or {b}?", ("[1871",)),
        ('{"a": 1}?', ("{}",)),
    ]


@pytest.mark.parametrize(("cell", "refuses"), [("Y", True), ("n", False), ("1.0", True), ("F", False)])
def test_yes_and_no_have_other_spellings(tmp_path: Path, cell: str, refuses: bool) -> None:
    (case,) = table(tmp_path, f"question,is_impossible\n{FERRY},{cell}\n").cases
    assert case.must_refuse is refuses


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": FERRY}]


@pytest.mark.parametrize(
    "row",
    [
        {"Question": FERRY, "ExpectedOutput": LEAVES},
        {"inputs": {"question": FERRY}, "outputs": {"answer": LEAVES}},
        {"input": {"question": FERRY}, "expectedOutput": {"answer": LEAVES}},
        {"vars": {"query": FERRY, "expected": LEAVES}},
        {"input": CHAT, "ideal": [LEAVES]},
        {"messages": [*CHAT, {"role": "assistant", "content": LEAVES}]},
        {"question": FERRY, "answers": {"text": [LEAVES], "answer_start": [3]}},
        {"question": FERRY, "answers": [{"text": LEAVES, "answer_start": 3}]},
        {"inputs": {"messages": CHAT}, "outputs": {"output": LEAVES}},
        {"input": {"messages": [{"type": "human", "content": FERRY}]}, "expectedOutput": LEAVES},
        {"input": {"value": FERRY}, "expected": {"value": LEAVES}},
        {"input": [{"role": "user", "content": [{"type": "text", "text": FERRY}]}], "ideal": LEAVES},
        {"item": {"input": FERRY, "ideal": LEAVES}},
        {"conversations": [{"from": "human", "value": FERRY}, {"from": "gpt", "value": LEAVES}]},
        {"vars": {"question": FERRY}, "assert": [{"type": "icontains", "value": LEAVES}, {"type": "cost"}]},
    ],
)
def test_rows_are_known_in_other_forms(tmp_path: Path, row: dict[str, Any]) -> None:
    found = lines(tmp_path, row)
    assert (found.problems, found.note) == ((), "")
    assert [(case.question, case.answers, case.history) for case in found.cases] == [(FERRY, (LEAVES,), ())]


def test_a_chat_has_its_earlier_turns_as_history(tmp_path: Path) -> None:
    earlier = [{"role": "user", "content": "Is there a ferry?"}, {"role": "assistant", "content": "Yes."}]
    (case,) = lines(tmp_path, {"messages": [*earlier, *CHAT]}).cases
    assert (case.question, case.history, case.answers) == (FERRY, (Turn("Is there a ferry?", "Yes."),), ())


def test_without_an_answer_in_squads_form_there_is_nothing_to_answer(tmp_path: Path) -> None:
    (case,) = lines(tmp_path, {"question": FERRY, "answers": {"text": [], "answer_start": []}}).cases
    assert (case.must_refuse, case.answers) == (True, ())


def test_a_number_is_an_answer(tmp_path: Path) -> None:
    (case,) = lines(tmp_path, {"question": "How many?", "answers": [42, 1.5]}).cases
    assert case.answers == ("42", "1.5")


def test_of_two_spellings_one_counts_and_the_other_is_named(tmp_path: Path) -> None:
    found = lines(tmp_path, {"question": FERRY, "Question": "Why?", "metadata": {"answer": "no"}})
    assert (found.cases[0].question, found.strange) == (FERRY, ("Question", "metadata"))


@pytest.mark.parametrize("name", ["cases", "data", "examples", "tests", None])
def test_an_object_around_the_rows_is_opened(tmp_path: Path, name: str | None) -> None:
    row = {"question": FERRY, "answer": LEAVES}
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"version": 1, name: [row, "no row"]} if name else row), encoding="utf-8")
    found = read_cases(path)
    assert [case.answers for case in found.cases] == [(LEAVES,)]
    assert [problem.number for problem in found.problems] == ([2] if name else [])


@pytest.mark.parametrize("columns", [dict, list])
def test_a_table_that_is_stored_by_columns_is_turned(tmp_path: Path, columns: type[Any]) -> None:
    cells = {"0": FERRY, "1": "How?"}, {"0": LEAVES, "1": "So."}
    asked, replied = cells if columns is dict else ([*cell.values()] for cell in cells)
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"question": asked, "answer": replied}), encoding="utf-8")
    assert [(case.question, case.answers) for case in read_cases(path).cases] == [
        (FERRY, (LEAVES,)),
        ("How?", ("So.",)),
    ]


def test_an_object_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    path.write_text('{"settings": {"question": 1}}', encoding="utf-8")
    with pytest.raises(DatasetError, match="must be a JSON list of cases, or in SQuAD's format"):
        read_cases(path)


NAMES = st.sampled_from(["role", "content", "text", "question", "Input", "vars.q", "data", "é"])
LEAF = st.none() | st.booleans() | st.integers() | NAMES
JSON = st.recursive(
    LEAF, lambda one: st.lists(one, max_size=3) | st.dictionaries(NAMES, one, max_size=3), max_leaves=6
)


@given(st.dictionaries(st.sampled_from(["input", "messages", "answers", "data", "outputs", ""]), JSON))
def test_any_object_is_flattened(row: dict[str, Any]) -> None:
    assert isinstance(flattened(row), dict)
    assert isinstance(rows_in(row), list | None)
