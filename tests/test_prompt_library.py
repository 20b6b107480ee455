"""Versions of prompts never change, labels move, and nobody's work is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_prompts import ANY_TEXT, GREETING, template, written

from prompts import PRODUCTION, PromptLibrary, PromptTemplate, PromptTemplateError, find_prompt
from prompts.files import as_draft, as_yaml, parse_draft, parse_prompt
from prompts.labels import FILE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace's prompts: greeting 1, 2 and 10, and an answer 1 of its own."""
    for version in (1, 2, 10):
        written(tmp_path, version=version, description=f"number {version}")
    shipped = find_prompt("answer@1").model_dump(mode="json", exclude_defaults=True)
    written(tmp_path, **shipped | {"description": "my own"})
    return tmp_path


@pytest.fixture
def library(folder: Path) -> PromptLibrary:
    return PromptLibrary(folder)


def saved(
    library: PromptLibrary, text: str = "Hello {{who}}.", name: str = "greeting", **told: Any
) -> PromptTemplate:
    draft = template(name=name, messages=[{"role": "user", "content": text}], **told)
    return library.save(draft, by="ida", message="why not")


# Finding


def test_a_name_alone_is_its_newest_version_by_number_where_no_label_was_moved(library: PromptLibrary) -> None:
    assert library.find("greeting").label == "greeting@10"
    assert library.find("greeting@2").description == "number 2"
    assert library.find("greeting@production").label == "greeting@10"


def test_the_workspace_wins_over_what_ships(library: PromptLibrary) -> None:
    assert library.find("answer@1").description == "my own"
    assert find_prompt("answer@1").description != "my own"
    assert library.find("condense") == find_prompt("condense")
    assert library.names() == sorted([*PromptLibrary().names(), "greeting"])
    assert library.versions("greeting") == [1, 2, 10]


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("greeting@3", r"There is no prompt greeting@3; versions of greeting: 1, 2, 10; labels: production\."),
        ("greeting@", r"There is no prompt greeting@; versions of greeting: 1, 2, 10;"),
        ("greeting@newest", r"versions of greeting: 1, 2, 10;"),
        ("greeting@²", r"versions of greeting: 1, 2, 10;"),
        ("greeting@01", r"versions of greeting: 1, 2, 10;"),
        pytest.param("greeting@" + "9" * 5000, r"versions of greeting: 1, 2, 10;", id="long"),
        ("greeting@-1", r"versions of greeting: 1, 2, 10;"),
        ("farewell@1", r"versions of farewell: none\."),
        ("farewell", r"There is no prompt farewell; there are: answer, .*condense, .*greeting\b"),
        ("", r"there are: answer, .*condense, .*greeting\b"),
        ("../greeting/greeting", r"there are: answer, .*condense, .*greeting\b"),
        ("*", r"there are: answer, .*condense, .*greeting\b"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(library: PromptLibrary, reference: str, told: str) -> None:
    with pytest.raises(PromptTemplateError, match=told):
        library.find(reference)


def test_many_versions_are_told_as_a_range(library: PromptLibrary) -> None:
    for _ in range(4):
        saved(library)
    with pytest.raises(PromptTemplateError, match=r"versions of greeting: 1, 2, 10–14;"):
        library.find("greeting@99")


def test_a_missing_folder_and_other_files_in_it_are_no_prompts(folder: Path) -> None:
    (folder / "greeting" / "notes.yaml").write_text("not: a prompt")
    (folder / "greeting" / "3.yml").write_text("not: a prompt")
    (folder / "README.md").write_text("my prompts")
    (folder / "empty").mkdir()
    library = PromptLibrary(folder)
    assert library.versions("greeting") == [1, 2, 10]
    assert "empty" not in library.names()
    assert PromptLibrary(folder / "nowhere").names() == PromptLibrary().names()


@pytest.mark.parametrize("damage", [lambda path: path.write_text("x: ["), lambda path: path.write_text("x: 1")])
def test_a_damaged_version_of_ones_own_is_told_and_not_skipped(
    folder: Path, damage: Callable[[Path], object]
) -> None:
    damage(folder / "answer" / "1.yaml")
    with pytest.raises(PromptTemplateError, match=str(folder)):
        PromptLibrary(folder).find("answer")
    assert PromptLibrary(folder).find("greeting").version == 10


def test_a_file_that_was_replaced_is_read_again(folder: Path, library: PromptLibrary) -> None:
    assert library.find("greeting@1").description == "number 1"
    written(folder, description="another text")
    assert library.find("greeting@1").description == "another text"


# Saving


def test_a_saved_draft_is_the_next_version_with_who_when_and_why(folder: Path, library: PromptLibrary) -> None:
    made = saved(library, version=2)
    assert made.label == "greeting@11"
    assert made.saved is not None
    assert (made.saved.by, made.saved.message, made.saved.sha256) == ("ida", "why not", made.sha256)
    assert made.saved.at.tzinfo is not None
    assert PromptLibrary(folder).find("greeting@11") == made


def test_saving_changes_nothing_that_is_there_and_nothing_that_the_chat_runs(library: PromptLibrary) -> None:
    before = {name: library.find(name) for name in ("answer", "answer@1", "condense")}
    draft = find_prompt("condense").model_copy(update={"description": "tried out"})
    assert library.save(draft, by="ida", message="").label == "condense@2"
    assert {name: library.find(name) for name in before} == before
    # Nor does a second version of a prompt of one's own.
    assert saved(library, name="mine").version == 1
    assert saved(library, name="mine").version == 2
    assert library.find("mine").version == 1


def test_a_version_that_was_changed_afterwards_is_refused(folder: Path, library: PromptLibrary) -> None:
    saved(library)
    path = folder / "greeting" / "11.yaml"
    path.write_text(path.read_text().replace("Hello", "Good day"))
    with pytest.raises(PromptTemplateError, match="changed since it was saved, but versions are immutable"):
        library.find("greeting@11")
    # What does not count for the identity may be corrected.
    path.write_text(path.read_text().replace("Good day", "Hello").replace("Says hello", "Greets"))
    assert library.find("greeting@11").description == "Greets."


def test_what_ships_alone_is_not_written() -> None:
    with pytest.raises(PromptTemplateError, match="open a workspace to save"):
        saved(PromptLibrary())


@pytest.mark.parametrize("name", ["../answer", "Big", "a/b", ""])
def test_nothing_is_written_outside_the_folder(library: PromptLibrary, folder: Path, name: str) -> None:
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(PromptTemplateError, match=r"The prompt name .* is invalid"):
        library.keep_draft(name, "text")
    assert sorted(folder.parent.rglob("*")) == before


def test_a_draft_that_includes_what_is_not_there_is_not_saved(library: PromptLibrary) -> None:
    with pytest.raises(PromptTemplateError, match="There is no prompt nothing"):
        saved(library, "{{> nothing}} {{who}}")
    assert library.versions("greeting") == [1, 2, 10]


def test_an_included_prompt_follows_its_label(library: PromptLibrary) -> None:
    for text in ("Be brief.", "Be kind."):
        saved(library, text, name="manner", variables=[])
    saved(library, "{{> manner@production}} Hello {{who}}!", name="whole")
    assert library.find("whole").render({"who": "Bo"})[0].content == "Be brief. Hello Bo!"
    library.move("manner", PRODUCTION, 2, by="ida", message="kinder")
    assert library.find("whole").render({"who": "Bo"})[0].content == "Be kind. Hello Bo!"
    assert library.load("whole").includes == ("manner@production",)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "prompts").write_text("a file")
    with pytest.raises(PromptTemplateError, match="cannot be written"):
        saved(PromptLibrary(tmp_path / "prompts"))


SAVING = """
import sys
from pathlib import Path
from prompts import PromptLibrary, find_prompt
library, who = PromptLibrary(Path(sys.argv[1])), sys.argv[2]
for number in range(12):
    draft = find_prompt("condense").model_copy(update={"description": f"{who} {number}"})
    library.save(draft, by=who, message="")
    library.move("condense", who, 1, by=who, message=str(number))
"""


def test_two_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    writers = [
        subprocess.Popen([sys.executable, "-c", SAVING, str(tmp_path), who], cwd=root) for who in ("ann", "bob")
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    library = PromptLibrary(tmp_path)
    versions = library.versions("condense")
    assert versions == list(range(1, 26))
    found = [library.load(f"condense@{version}") for version in versions[1:]]
    for who in ("ann", "bob"):
        assert [each.description for each in found if each.saved and each.saved.by == who] == [
            f"{who} {number}" for number in range(12)
        ]
        moves = [move.message for move in library.moves("condense") if move.label == who]
        assert moves == [str(number) for number in range(12)]


# Labels


def test_a_label_points_where_it_was_moved_and_back(library: PromptLibrary) -> None:
    library.move("greeting", PRODUCTION, 2, by="ida", message="better")
    library.move("greeting", "staging", 10, by="bo", message="try it")
    assert library.labels("greeting") == {"production": 2, "staging": 10}
    assert library.find("greeting").version == 2
    assert library.find("greeting@staging").version == 10
    library.move("greeting", PRODUCTION, 1, by="ida", message="back")
    library.move("greeting", "staging", None, by="bo", message="done")
    assert library.labels("greeting") == {"production": 1}
    told = [(each.label, each.version, each.by, each.message) for each in library.moves("greeting")]
    assert told == [
        ("production", 2, "ida", "better"),
        ("staging", 10, "bo", "try it"),
        ("production", 1, "ida", "back"),
        ("staging", None, "bo", "done"),
    ]


def test_production_of_what_ships_is_its_newest_until_it_is_moved(library: PromptLibrary) -> None:
    draft = find_prompt("condense")
    library.save(draft, by="ida", message="")
    assert library.labels("condense") == {"production": 1}
    library.move("condense", PRODUCTION, 2, by="ida", message="")
    assert library.find("condense").version == 2
    library.move("condense", PRODUCTION, None, by="ida", message="")
    assert library.find("condense").version == 1


@pytest.mark.parametrize(
    ("label", "version", "told"),
    [
        ("production", 3, "There is no prompt greeting@3"),
        ("Production", 1, "The label .* is invalid"),
        ("7", 1, "The label .* is invalid"),
        ("a b", 1, "The label .* is invalid"),
        ("staging", None, "has no label staging to remove"),
    ],
)
def test_a_move_to_nowhere_is_refused(library: PromptLibrary, label: str, version: int | None, told: str) -> None:
    with pytest.raises(PromptTemplateError, match=told):
        library.move("greeting", label, version, by="ida", message="")
    assert library.moves("greeting") == ()


def test_a_label_to_a_version_that_was_deleted_falls_back(folder: Path, library: PromptLibrary) -> None:
    library.move("greeting", PRODUCTION, 2, by="ida", message="")
    (folder / "greeting" / "2.yaml").unlink()
    assert library.find("greeting").version == 10


def test_a_move_that_a_crash_cut_off_did_not_happen(folder: Path, library: PromptLibrary) -> None:
    library.move("greeting", PRODUCTION, 2, by="ida", message="")
    library.move("greeting", PRODUCTION, 1, by="ida", message="")
    path = folder / "greeting" / FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert library.labels("greeting") == {"production": 2}
    library.move("greeting", "staging", 10, by="ida", message="")
    assert library.labels("greeting") == {"production": 2, "staging": 10}
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_labels_that_were_damaged_by_hand_are_told_with_the_line(folder: Path, library: PromptLibrary) -> None:
    library.move("greeting", PRODUCTION, 2, by="ida", message="")
    with (folder / "greeting" / FILE).open("a") as file:
        file.write("\n{}\n")
    with pytest.raises(PromptTemplateError, match=r"labels\.jsonl are damaged at line 3"):
        library.find("greeting")


# The files


@given(text=ANY_TEXT, message=ANY_TEXT)
def test_what_is_written_is_read_again(text: str, message: str) -> None:
    prompt = template(
        description=text,
        tags=[text],
        messages=[{"role": "system", "content": text}, {"role": "user", "content": "{{who}}"}],
        variables=sorted({"who", *find_places(text)}),
        fragments={"part": text},
    )
    assert parse_prompt(as_yaml(prompt)) == prompt
    assert parse_draft(as_draft(prompt), prompt.name, prompt.version) == prompt


def find_places(text: str) -> list[str]:
    from prompts.template import split_placeholders

    return [name for _, name in split_placeholders(text) if name]


@given(
    st.lists(st.sampled_from(["a line", " moved in", "", "  ", "- item", "# no comment", "key: value", "\ttab"]))
)
def test_lines_are_kept_as_they_are(lines: list[str]) -> None:
    text = "\n".join([*lines, "{{who}}"])
    prompt = template(messages=[{"role": "user", "content": text}])
    assert parse_prompt(as_yaml(prompt)) == prompt


def test_a_text_of_several_lines_is_written_as_a_person_would(folder: Path) -> None:
    made = saved(PromptLibrary(folder), "Hello {{who}}.\n\n- one\n- two\n")
    text = (folder / "greeting" / f"{made.version}.yaml").read_text()
    assert "content: |\n    Hello {{who}}.\n\n    - one\n    - two\n" in text
    assert yaml.safe_load(text)["saved"]["by"] == "ida"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "must be valid YAML"),
        ("just words", "description: Field required"),
        ("", "description: Field required"),
        (yaml.safe_dump(GREETING | {"messages": 3}), "messages: "),
        (
            yaml.safe_dump(GREETING | {"temperature": 3}),
            r"unknown field `temperature` \(did you mean `settings.temperature`\?\)",
        ),
        ("!!python/object/apply:os.getcwd []", "must be valid YAML"),
    ],
)
def test_a_draft_that_is_no_prompt_is_told_by_its_place(text: str, told: str) -> None:
    with pytest.raises(PromptTemplateError, match=told) as caught:
        parse_draft(text, "greeting", 1)
    assert "\n" not in str(caught.value)
