"""Raw tables of prompts and completions: what is read, what is recognized, and what is found in them."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminal import call, one_object

from finetune.prepared.examples import read_examples
from finetune.prepared.exploration import Exploration, Questions, explore
from finetune.prepared.near_texts import near_groups
from finetune.prepared.placeholder_texts import placeholder_reasons
from finetune.prepared.raw_tables import LONGEST_CELL, read_table_file
from finetune.prepared.text_languages import language_of
from rag.errors import TuningError
from rag.workspace import Workspace

LONG = "The keeper of the lighthouse counts {} ships a day and writes each of them into a book that nobody reads."
STORIES = [LONG.format(number) + f" Story {number} ends in harbour {number * 7}." for number in range(12)]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pairs(path: Path) -> list[tuple[str, str]]:
    """Prompt and completion of every example of a file."""
    return [(example.prompt, example.completion) for example in read_examples(read_table_file(path)).examples]


def explored(path: Path, **questions: Any) -> Exploration:
    return explore(read_examples(read_table_file(path)), Questions(**questions), None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'id,Prompt,Completion\n1,Who?,"Ida,\nof course."\n'),
        ("a.csv", "prompt;completion\nWho?;Ida,\\nof course.\n".replace("\\n", " ")),
        ("a.tsv", "question\tanswer\nWho?\tIda, of course.\n"),
        ("a.json", json.dumps({"data": [{"instruction": "Who?", "output": "Ida, of course."}]})),
        ("a.json", json.dumps({"prompt": ["Who?"], "completion": ["Ida, of course."]})),
        ("a.jsonl", json.dumps({"question": "Who?", "answers": ["Ida, of course.", "Ida"]}) + "\n\n"),
        (
            "a.jsonl",
            json.dumps({"messages": [{"role": "user", "content": "Who?"}], "completion": "Ida, of course."}),
        ),
        (
            "openai.jsonl",
            json.dumps({"messages": [{"role": "user", "content": "Who?"},
                                     {"role": "assistant", "content": "Ida, of course."}]}),
        ),
        (
            "sharegpt.json",
            json.dumps([{"conversations": [{"from": "human", "value": "Who?"},
                                           {"from": "gpt", "value": "Ida, of course."}]}]),
        ),
    ],
)  # fmt: skip
def test_tables_and_chats_of_many_programs_are_read(tmp_path: Path, name: str, content: str) -> None:
    ((prompt, completion),) = pairs(written(tmp_path / name, content))
    assert (prompt, " ".join(completion.split())) == ("Who?", "Ida, of course.")


def test_a_chat_keeps_its_turns_and_its_system_message(tmp_path: Path) -> None:
    turns = [("human", "Who?"), ("gpt", "Ida."), ("human", "When?"), ("gpt", "In 1302.")]
    chat = [{"from": role, "value": text} for role, text in turns]
    path = written(tmp_path / "a.json", json.dumps([{"system": "Be brief.", "conversations": chat}]))
    (example,) = read_examples(read_table_file(path)).examples
    assert [turn.role for turn in example.turns] == ["system", "user", "assistant", "user"]
    assert (example.prompt, example.completion) == ("When?", "In 1302.")


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6))
def test_a_table_gives_back_what_was_written_into_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([("prompt", "completion"), *rows])
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    path = written(tmp_path_factory.mktemp("table") / "a.csv", lines.getvalue())
    if filled:
        assert pairs(path) == filled


def test_named_columns_are_read_and_unknown_ones_refused_with_those_there_are(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "episode,plot\nRobot,A robot wakes.\n")
    found = read_examples(read_table_file(path), "episode", "plot").examples
    assert (found[0].prompt, found[0].completion) == ("Robot", "A robot wakes.")
    with pytest.raises(
        TuningError, match=r"recognized as prompts or as completions; its columns are episode, plot"
    ):
        read_examples(read_table_file(path))
    with pytest.raises(TuningError, match="has no column name; its columns are episode, plot"):
        read_examples(read_table_file(path), "name", "plot")


PYARROW = """
import json
class Table:
    def __init__(self, rows): self.rows = rows
    def to_pylist(self): return self.rows
    @staticmethod
    def from_pylist(rows): return Table(rows)
"""
PARQUET = """
import json
from pyarrow import Table
def write_table(table, path): path.write_text("PAR1" + json.dumps(table.rows))
def read_table(path):
    text = path.read_text()
    if not text.startswith("PAR1"):
        raise ValueError("Parquet magic bytes not found in footer.")
    return Table(json.loads(text[4:]))
"""


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, list[dict[str, Any]]], Path]:
    """Writes rows with pyarrow, or with a stand-in where that is missing, since ragsmith does not need it."""
    if importlib.util.find_spec("pyarrow") is None:
        folder = tmp_path / "stand-in" / "pyarrow"
        folder.mkdir(parents=True)
        written(folder / "__init__.py", PYARROW)
        written(folder / "parquet.py", PARQUET)
        monkeypatch.syspath_prepend(folder.parent)
        for name in ("pyarrow", "pyarrow.parquet"):
            # Restored to nothing after the test: other libraries ask for what the stand-in lacks.
            monkeypatch.setitem(sys.modules, name, None)
            monkeypatch.delitem(sys.modules, name)

    def write(path: Path, rows: list[dict[str, Any]]) -> Path:
        table = importlib.import_module("pyarrow").Table.from_pylist(rows)
        importlib.import_module("pyarrow.parquet").write_table(table, path)
        return path

    return write


def test_parquet_is_read_by_rows(
    tmp_path: Path, parquet: Callable[[Path, list[dict[str, Any]]], Path], workspace: Workspace
) -> None:
    rows = [{"prompt": f"Episode {number}", "completion": story} for number, story in enumerate(STORIES)]
    path = parquet(tmp_path / "a.parquet", [*rows, {"prompt": "Long", "completion": "x" * (LONGEST_CELL + 1)}])
    assert pairs(path) == [(row["prompt"], row["completion"]) for row in rows]
    table = read_table_file(path)
    assert (table.unit, table.columns) == ("row", ("prompt", "completion"))
    (problem,) = table.problems
    assert problem.number == len(rows) + 1
    told = call(workspace.root, "data", "prepare", path, "--name", "stories", "--base", "")
    assert told.exit_code == 0, told.output
    assert "11 rows + 1 for validation, from a.parquet" in told.stdout


def test_a_broken_parquet_file_is_refused_with_the_reason(
    tmp_path: Path, parquet: Callable[[Path, list[dict[str, Any]]], Path]
) -> None:
    path = written(tmp_path / "a.pq", "prompt,completion\nWho?,Ida.\n")
    with pytest.raises(TuningError, match=r"a\.pq cannot be read: .*magic bytes not found.*[^.]\.$"):
        read_table_file(path)
    with pytest.raises(TuningError, match=r"b\.pq cannot be read: No such file"):
        read_table_file(tmp_path / "b.pq")


def test_without_pyarrow_parquet_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TuningError, match=r"needs the library pyarrow, .* Run `pip install pyarrow`, or save"):
        read_table_file(written(tmp_path / "a.parquet", "PAR1"))


def test_a_length_of_one_is_in_the_singular(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "prompt,completion\nWho?,I\nWhere?,Up\n")
    assert [row.reason for row in explored(path).shortest] == ["1 character", "2 characters"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "Who?", ', "it is not valid JSON: .* at column 20"),
        (b'{"prompt": "Who?", "completion": ' + b"9" * 5_000 + b"}", "it has an integer with too many digits"),
        (b'["Who?"]', "it is not a JSON object"),
        (b'{"prompt": "caf\xe9", "completion": "x"}', "the cell prompt contains byte 0xe9, which is not UTF-8"),
        (
            b'{"prompt": "Who?", "completion": "' + b"x" * 10_000_000 + b'"}',
            f"the cell completion has 10,000,000 characters, and {LONGEST_CELL:,} are allowed",
        ),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_the_others_are_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    good = b'{"prompt": "Who?", "completion": "Ida."}\n'
    table = read_table_file(written(tmp_path / "a.jsonl", good + line + b"\n" + good))
    assert [row.number for row in table.rows] == [1, 3]
    (problem,) = table.problems
    assert problem.number == 2
    assert re.match(reason, problem.reason)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "prompt,prompt\na,b\n", "has several columns prompt"),
        ("a.csv", 'prompt,completion\na,"b\n', "the row from line 2 is malformed"),
        ("a.csv", "prompt,completion\n", "has no rows that can be used"),
        ("a.csv", "prompt,completion\na,b,c\n", "The first problem is in line 2: it has 3 cells"),
        ("a.json", '[{"prompt": 1},]', "must be valid JSON: .* in line 1, column 1[56]"),
        ("a.json", "[" + "9" * 5_000 + "]", "has an integer with too many digits"),
        ("a.json", "{}", r"has no columns"),
        ("pipe.csv", None, "it is not a regular file"),
        ("a.json", "3", "must be a JSON list of objects"),
        ("a.csv", b"PK\x03\x04\x00\x00", "must be text, but has zero bytes"),
        ("a.xlsx", "", "its format is unknown"),
        ("nowhere/a.csv", None, "cannot be read: No such file or directory"),
        ("folder.csv", None, "cannot be read: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: str | bytes | None, message: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    if content is not None:
        written(tmp_path / name, content)
    with pytest.raises(TuningError, match=message):
        read_examples(read_table_file(tmp_path / name))


def test_another_encoding_is_named_or_marked(tmp_path: Path) -> None:
    text = "prompt,completion\nWo?,Göhren\n"
    assert pairs(written(tmp_path / "a.csv", text.encode("utf-16"))) == [("Wo?", "Göhren")]
    path = written(tmp_path / "b.csv", text.encode("cp1252"))
    with pytest.raises(TuningError, match=r"line 2: the cell completion contains byte 0xf6"):
        read_table_file(path)
    for unusable in ("undefined", "ascii"):
        with pytest.raises(TuningError, match=f"is not {unusable}: .* cannot be decoded. Name its encoding."):
            read_table_file(path, unusable)
    assert read_table_file(path, "cp1252").rows[0].values["completion"] == "Göhren"


# What is found


def test_short_texts_that_are_repeated_among_long_ones_are_placeholders_in_any_words() -> None:
    reasons = placeholder_reasons([*STORIES, *["Noch in Arbeit"] * 3, "Coming soon!", "—", "Unknown", ""])
    assert reasons[: len(STORIES)] == [""] * len(STORIES)
    assert reasons[len(STORIES) :] == [
        *["short and repeated 3 times"] * 3, "stock phrase", "only punctuation", "stock phrase", "",
    ]  # fmt: skip


def test_labels_are_no_placeholders() -> None:
    assert not any(placeholder_reasons(["positive", "negative", "none", "unknown"] * 10))


def test_texts_that_differ_in_a_word_are_near_and_others_are_not() -> None:
    close = STORIES[3].replace("writes", "enters")
    assert near_groups([*STORIES[2:5], close, STORIES[4].upper()]) == [[1, 3], [2, 4]]


def test_languages_are_recognized_by_script_or_frequent_words() -> None:
    texts = {
        "English": STORIES[0],
        "German": "Der Wärter zählt die Schiffe und schreibt sie in ein Buch, das niemand liest.",
        "Russian": "Смотритель маяка считает корабли.",
        "Japanese": "灯台守は船を数えて本に書く。",
        "unknown": "Coming soon",
    }
    assert {text: language_of(text) for text in texts.values()} == {text: name for name, text in texts.items()}


def test_a_report_counts_what_matches_and_groups(tmp_path: Path) -> None:
    rows = [f'{number},"{story}",{("sea", "land")[number % 2]}\n' for number, story in enumerate(STORIES)]
    path = written(
        tmp_path / "a.csv", "".join(["prompt,completion,kind\n", *rows, f'12,"{STORIES[0]}",sea\n', "13,,\n"])
    )
    found = explored(path, contains="HARBOUR 7.", regex=r"Story \d", group_by="kind")
    assert (found.rows, found.empty.count, found.duplicates.count, found.near_duplicates.count) == (14, 1, 0, 1)
    assert found.matches is not None
    assert (found.matches.count, found.matches.rows[0].number) == (1, 3)
    assert found.groups == (("sea", 7), ("land", 6), ("", 1))
    assert [lengths.total for lengths in found.lengths if lengths.what == "completion characters"] == [
        sum(map(len, STORIES)) + len(STORIES[0])
    ]
    with pytest.raises(TuningError, match="is malformed"):
        explored(path, regex="(")
    with pytest.raises(TuningError, match="has no column place to group by"):
        explored(path, group_by="place")


def test_the_command_prints_the_report_as_text_and_json(tmp_path: Path) -> None:
    rows = "".join(f'Episode {number},"{story}"\n' for number, story in enumerate(STORIES))
    path = written(tmp_path / "a.csv", f"prompt,completion\n{rows}X,Coming soon\nY,Coming soon\n")
    shown = call(tmp_path / "home", "data", "explore", path, "--base", "")
    assert shown.exit_code == 0, shown.output
    assert "placeholders: 2\n  line 14, stock phrase: X → Coming soon\n" in shown.stdout
    assert "tokens" not in shown.stdout
    found = one_object(call(tmp_path / "home", "data", "explore", path, "--base", "", "--json"))
    assert found["placeholder_texts"] == [["Coming soon", 2]]


def test_personal_data_and_secrets_are_listed_by_kind(tmp_path: Path) -> None:
    path = tmp_path / "letters.csv"
    path.write_text(
        "prompt,completion\nOne,The tide is high.\n"
        "Two,Write to ann@harbour.example or call +44 20 7946 0958.\nThree,password=hunter22hunter\n"
    )
    found = explored(path).personal
    assert [(row.number, row.reason) for row in found.rows] == [(3, "email, phone"), (4, "secret")]
