"""Tables, JSON records and notebooks."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from rag.documents.loaders import load
from rag.documents.loaders._fields import too_long
from rag.documents.sentences import split_sentences
from rag.errors import LoadError
from rag.types import Document


def read(name: str, source: str | object) -> list[Document]:
    text = source if isinstance(source, str) else json.dumps(source)
    return list(load(Path(name), text.encode()))


def shown(document: Document) -> list[str]:
    return [document.text[b.start : b.end] for b in document.blocks]


# Tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_row_names_its_columns(delimiter: str) -> None:
    rows = [["name", "size", "note"], ["a", "1", ""], ["b", "2", "x, y"]]
    source = "\n".join(delimiter.join(f'"{cell}"' if "," in cell else cell for cell in row) for row in rows)
    (document,) = read("a.csv", source)
    assert shown(document) == ["name: a; size: 1", "name: b; size: 2; note: x, y"]
    assert {b.kind for b in document.blocks} == {"row"}
    assert document.metadata == {"rows": 2, "columns": "name, size, note"}


def test_a_long_row_has_a_line_for_each_column() -> None:
    (document,) = read("a.csv", f'prompt,completion\nq,"{"word " * 100}\nand more"\n')
    assert shown(document)[0].startswith("prompt: q\ncompletion: word word")


def test_a_table_without_header_keeps_its_first_row() -> None:
    (document,) = read("a.tsv", "1\t2.5\n3\t4\n")
    assert shown(document) == ["1 | 2.5", "3 | 4"]


def test_the_row_numbers_of_a_data_frame_are_left_out() -> None:
    (document,) = read("a.csv", ",prompt\n66,Robot\n67,Dalek\n")
    assert shown(document) == ["prompt: Robot", "prompt: Dalek"]


def test_a_header_alone_is_what_there_is_to_read() -> None:
    (document,) = read("a.csv", "name,size\n")
    assert shown(document) == ["name | size"]


def test_ragged_rows_and_cells_of_a_megabyte_are_read() -> None:
    (document,) = read("a.csv", f"a,b\n1,2,3\n\n{'word ' * 200_000},x\n")
    assert shown(document)[0] == "a: 1; b: 2; 3"
    assert len(shown(document)[1]) > 900_000


def test_the_separator_line_of_excel_is_no_row() -> None:
    (document,) = read("a.csv", "sep=;\nname;size\na;1\n")
    assert shown(document) == ["name: a; size: 1"]


# JSON


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["E7", "Oil the hinge."], "E7: Oil the hinge."),
        (["Oslo", 3, 2.5], "Oslo; 3; 2.5"),
        (["When is the mill open?", "On Mondays."], "When is the mill open?\n\nOn Mondays."),
        (["lone"], "lone"),
        (["E7", ["Oil", "Grease"]], "E7: Oil, Grease"),
        (["E7", [["Oil", "hinge"], {"part": "bolt", "size": None}], 3], "E7; Oil, hinge, part: bolt; 3"),
        ([["E7", "Oil"], ["E8", ["Grease", "wait"]]], "E7: Oil\nE8: Grease, wait"),
        ([{"code": "E7", "fix": "Oil"}, {"code": "E8"}], "code: E7; fix: Oil\ncode: E8"),
        (["Oslo", None, 3, None], "Oslo; ; 3"),
    ],
)
def test_a_list_of_values_is_read_as_a_row(values: list[object], text: str) -> None:
    (document,) = read("a.json", [values])
    assert document.text == text


@pytest.mark.parametrize("source", ["[[[]], {}]", "[[], [[[]]]]"])
def test_brackets_alone_are_nothing_to_read(source: str) -> None:
    with pytest.raises(LoadError, match="no text to read"):
        read("a.json", source)


def test_of_a_long_mapping_each_line_can_answer_alone_and_a_few_fields_stay_together() -> None:
    prices = {f"2031-{number}": number * 7 for number in range(100, 140)}
    (document,) = read("a.json", prices)
    assert "2031-117: 819" in [sentence.text for sentence in split_sentences(document.text)]
    (small,) = read("a.json", {"pump": "P-3", "room": "K-12"})
    assert [sentence.text for sentence in split_sentences(small.text)] == ["pump: P-3\nroom: K-12"]


def test_a_record_with_text_is_stored_exactly() -> None:
    text = "First paragraph,\nstill.\n\nSecond.  "
    record = {
        "id": "x1",
        "title": "T",
        "text": text,
        "year": 2020,
        "ok": True,
        "tags": ["a", "b"],
        "deep": {"k": [1]},
    }
    (document,) = read("a.jsonl", record)
    assert document.text == text
    assert shown(document) == ["First paragraph,\nstill.", "Second."]
    assert (document.title, document.record) == ("T", "x1")
    assert document.metadata == {"id": "x1", "year": 2020, "ok": True, "tags": "a, b", "deep": '{"k": [1]}'}


def test_an_underscore_id_is_kept_under_both_names() -> None:
    (document,) = read("a.jsonl", {"_id": "4983", "title": "T", "text": "Words."})
    assert document.record == "4983"
    assert document.metadata == {"id": "4983", "_id": "4983"}


def test_a_record_without_id_is_known_by_its_number() -> None:
    found = read("a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n')
    assert [d.record for d in found] == ["1", "3"]
    assert found[1].metadata == {"id": "3"}
    assert [d.record for d in read("a.json", [{"text": "a"}, "b"])] == ["1", "2"]


def test_a_record_without_text_becomes_lines_of_its_fields() -> None:
    (document,) = read(
        "a.json", [{"id": 7, "question": "Why?", "answer": {"short": "So", "pages": [1, 2]}, "x": None}]
    )
    assert document.text == "id: 7\nquestion: Why?\nanswer.short: So\nanswer.pages: 1, 2"
    assert document.metadata["id"] == 7
    assert document.metadata["question"] == "Why?"


def test_a_record_of_blank_text_falls_back_to_its_other_fields() -> None:
    (document,) = read("a.jsonl", {"_id": "5", "title": "Only a title", "text": " "})
    assert document.text == "_id: 5\ntitle: Only a title\ntext:"


def test_bad_lines_do_not_lose_the_good_ones() -> None:
    problems: list[str] = []
    source = '{"text": "a"}\n{"text": \nnull\n' + "[" * 100_000 + '\n{"text": "\\u200b"}\n{"text": "b"}\n'
    found = list(load(Path("a.jsonl"), source.encode(), on_problem=problems.append))
    assert [d.text for d in found] == ["a", "b"]
    assert problems[0].startswith("line 2: not valid JSON: ")
    assert problems[1] == "line 3: has no text to read"
    assert problems[2] == "line 4: not readable: nested too deeply"
    assert problems[3] == "line 5: has no text to read"


def test_a_file_of_bad_lines_is_refused_with_the_first_reason() -> None:
    with pytest.raises(LoadError, match="line 1: not valid JSON"):
        read("a.jsonl", "one\ntwo\n")


def test_records_are_given_while_the_file_is_read() -> None:
    given = load(Path("a.jsonl"), b'{"text": "a"}\nbroken')
    assert next(given).text == "a"


def test_an_id_used_twice_keeps_both_records() -> None:
    problems: list[str] = []
    source = b'{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n'
    found = list(load(Path("a.jsonl"), source, on_problem=problems.append))
    assert [d.record for d in found] == ["1", "1~2"]
    assert problems == ["line 2: an earlier record has the same id; this one is kept as 1~2"]


def test_line_and_paragraph_separators_inside_a_string_do_not_cut_a_record() -> None:
    (document,) = read("a.jsonl", json.dumps({"text": "a\u2028b\x85c"}, ensure_ascii=False))
    assert document.text == "a\u2028b\x85c"


def test_escaped_nul_and_lone_surrogates_are_replaced() -> None:
    (document,) = read("a.jsonl", '{"text": "a\\u0000b\\ud800c\\r\\nd", "k\\ud800": "\\ud800"}')
    assert document.text == "a\ufffdb\ufffdc\nd"
    assert document.metadata["k\ufffd"] == "\ufffd"


def test_the_only_list_of_an_object_holds_the_records() -> None:
    data = [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]
    assert [d.record for d in read("a.json", {"data": data})] == ["a", "b"]
    found = read("a.json", {"depot": "Lindholm", "data": data, "phone": "1234", "fax": None})
    assert [(d.record, d.text) for d in found] == [
        ("beside", "depot: Lindholm\nphone: 1234"),
        ("a", "x"),
        ("b", "y"),
    ]


def test_the_first_list_of_a_table_names_the_values_of_the_others() -> None:
    found = read("a.json", [["Country", "2019", "2020"], ["Norway", 7685, None], ["Kenya", 7979]])
    assert [d.text for d in found] == ["Country: Norway\n2019: 7685", "Country: Kenya\n2019: 7979"]
    assert found[1].metadata["Country"] == "Kenya"


@pytest.mark.parametrize(
    "rows", [[["E7", "Oil"], ["E8", "Grease"]], [["Oslo", 3], ["Rome", 4]], [["a", "b"], ["x", 1, 2]]]
)
def test_lists_without_names_above_numbers_are_rows_of_their_own(rows: list[list[object]]) -> None:
    assert len(read("a.json", rows)) == len(rows)


def test_short_objects_in_a_list_are_rows_below_its_name() -> None:
    rooms = [{"name": "Fjord", "seats": 12, "beamer": None}, {"name": "Delta", "seats": 40}]
    (document,) = read(
        "a.json", {"site": "North", "rooms": rooms, "staff": [{"name": "Ida", "desk": "B7"}], "fax": 9}
    )
    assert shown(document) == [
        "site: North",
        "rooms",
        "name: Fjord; seats: 12",
        "name: Delta; seats: 40",
        "staff",
        "name: Ida; desk: B7",
        "fax: 9",
    ]
    assert [(block.kind, block.headings) for block in document.blocks[1:3]] == [
        ("heading", ("rooms",)),
        ("row", ("rooms",)),
    ]


def test_a_name_used_twice_in_an_object_keeps_both_values() -> None:
    (document,) = read(
        "a.json", '[{"E7": "Oil.", "E8": {"fix": "a", "fix": "b"}, "E7": "Grease.", "E7 (3)": 1, "E7": 2}]'
    )
    assert document.text == "E7: Oil.\nE8.fix: a\nE8.fix (2): b\nE7 (2): Grease.\nE7 (3): 1\nE7 (3)~: 2"
    (document,) = read("a.jsonl", '{"text": "First.", "text": "Second."}')
    assert document.text == "text: First.\ntext (2): Second."


def test_a_long_field_beside_a_text_is_named() -> None:
    problems: list[str] = []
    source = json.dumps({"text": "x", "body": "word " * 500, "note": ""})
    assert len(list(load(Path("a.jsonl"), source.encode(), on_problem=problems.append))) == 1
    assert problems == ["line 1: the field body was not read: it is longer than 2,000 characters, beside a text"]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('{"text": "x", "title": "%s"}' % ("word " * 60), "the title was cut after 200 characters"),
        (
            '{"a": "hello", "b": "%s"}' % ("b" * 3000),
            "1 run of over 2,000 characters without a space not read (data)",
        ),
    ],
)
def test_what_a_record_loses_is_named(source: str, problem: str) -> None:
    problems: list[str] = []
    assert len(list(load(Path("a.json"), source.encode(), on_problem=problems.append))) == 1
    assert [each.startswith(problem) for each in problems] == [True]


def test_what_is_nested_too_deeply_to_be_written_counts_as_too_long() -> None:
    nested: list[object] = [1]
    for _ in range(5_000):
        nested = [nested]
    assert too_long({"m": nested, "n": [1]}) == ["m"]


def test_fields_whose_names_are_empty_or_alike_are_kept() -> None:
    (document,) = read("a.json", r'{"text": "x", "": "first", "k\ud800": "one", "k\udfff": "two"}')
    assert document.metadata == {"unnamed": "first", "k\ufffd": "one", "k\ufffd (2)": "two"}


def test_a_number_of_more_digits_than_python_converts_stays_as_it_is_written() -> None:
    (document,) = read("a.json", '{"n": %s, "m": 7}' % ("9" * 5000 + " "))
    assert document.text.endswith("m: 7")
    assert "n: 9999" in document.text


def test_a_plain_object_is_one_document() -> None:
    (document,) = read("a.json", {"name": "x", "date": "2024-05-06", "list": [1, 2], "more": {"k": "v"}})
    assert document.record == ""
    assert document.date == date(2024, 5, 6)
    assert shown(document) == ["name: x", "date: 2024-05-06", "list: 1, 2", "more.k: v"]


def test_json_lines_under_the_suffix_of_json_are_read() -> None:
    assert len(read("a.json", '{"text": "a"}\n{"text": "b"}\n')) == 2


def test_broken_json_is_refused_with_its_line() -> None:
    with pytest.raises(LoadError, match="line 2, column"):
        read("a.json", '{"a": 1,\n"b": }')


@pytest.mark.parametrize("source", ["[" * 100_000, '{"a":' * 100_000, '{"text": ' + "9" * 5000 + "}"])
def test_deep_nesting_and_huge_numbers_are_refused(source: str) -> None:
    with pytest.raises(LoadError):
        read("a.json", source)


def test_nesting_that_parses_but_is_no_document_is_refused() -> None:
    with pytest.raises(LoadError, match="nested"):
        read("a.json", '{"a":' * 300 + "1" + "}" * 300)


def test_numbers_that_no_store_holds_become_text() -> None:
    (document,) = read("a.jsonl", '{"text": "x", "big": 99999999999999999999, "nan": NaN, "neg": -1.5}')
    assert document.metadata == {"id": "1", "big": "99999999999999999999", "nan": "nan", "neg": -1.5}


# Notebooks


def notebook(*cells: dict[str, object]) -> dict[str, object]:
    return {
        "cells": list(cells),
        "metadata": {"kernelspec": {"language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def test_a_notebook_gives_its_cells_and_short_outputs() -> None:
    (document,) = read(
        "a.ipynb",
        notebook(
            {"cell_type": "markdown", "source": ["# Report\n", "\n", "Some *words*.\n"]},
            {"cell_type": "markdown", "source": "## Data"},
            {
                "cell_type": "code",
                "source": "plot(x)\n",
                "outputs": [
                    {"output_type": "stream", "name": "stdout", "text": ["\x1b[31mdone\x1b[0m\n"]},
                    {
                        "output_type": "display_data",
                        "data": {"image/png": "iVBORw0K" * 900, "text/plain": "<Figure>"},
                    },
                    {"output_type": "error", "ename": "KeyError", "evalue": "'a'", "traceback": ["…"]},
                    {"output_type": "stream", "text": "long " * 1000},
                ],
            },
            {"cell_type": "raw", "source": "raw words"},
        ),
    )
    assert document.title == "Report"
    assert document.metadata == {"language": "python"}
    pieces = shown(document)
    assert pieces[:7] == [
        "# Report",
        "Some *words*.",
        "## Data",
        "plot(x)",
        "done",
        "<Figure>",
        "KeyError: 'a'",
    ]
    assert len(pieces[7]) <= 1000
    assert pieces[8] == "raw words"
    assert "iVBORw0K" not in document.text
    assert document.blocks[3].headings == ("Report", "Data")
    assert [b.kind for b in document.blocks[:4]] == ["heading", "text", "heading", "code"]


def test_a_notebook_of_format_three_is_read() -> None:
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": "x = 1"}]}], "nbformat": 3}
    assert shown(read("a.ipynb", old)[0]) == ["x = 1"]


def test_pictures_and_long_outputs_of_a_notebook_are_named() -> None:
    outputs = [
        {"output_type": "display_data", "data": {"image/png": "iVBO", "text/plain": "<Figure>"}},
        {"output_type": "stream", "text": "loss\n" * 400},
    ]
    cell = {"cell_type": "code", "source": "plot()", "outputs": outputs}
    problems: list[str] = []
    (_,) = load(Path("a.ipynb"), json.dumps({"cells": [cell]}).encode(), on_problem=problems.append)
    assert problems == [
        "1 picture was not read: text in pictures is not recognized",
        "1 long output was not read: only its first 1,000 characters are",
    ]


@pytest.mark.parametrize("source", ["{", '{"a": 1}', "[]", '{"cells": [1, {}]}', '{"cells": null}', "[" * 100_000])
def test_what_is_no_notebook_is_refused(source: str) -> None:
    with pytest.raises(LoadError, match=r"^a\.ipynb"):
        read("a.ipynb", source)
