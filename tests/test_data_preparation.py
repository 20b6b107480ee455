"""Preparing training data: steps, renderings, splits without leaks, and versions that are never half-written."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminal import assert_one_line, call, one_object
from test_data_tables import STORIES, written

from finetune.data.chat_rows import read_chat_rows
from finetune.prepared import data_versions
from finetune.prepared.data_versions import DataVersions
from finetune.prepared.examples import Example
from finetune.prepared.leakless_split import split_examples
from finetune.prepared.preparation import prepare_examples
from finetune.prepared.preparation_plan import Plan
from finetune.prepared.text_rendering import Rendering
from prompts import Message
from rag.errors import TuningError
from rag.workspace import Workspace

PROMPTS = [f"Episode {number}" for number in range(len(STORIES))]


def example(number: int, prompt: str, completion: str) -> Example:
    return Example(number, (Message(role="user", content=prompt),), completion)


def examples() -> list[Example]:
    return [example(number, *pair) for number, pair in enumerate(zip(PROMPTS, STORIES, strict=True), 1)]


def table(folder: Path, more: str = "") -> Path:
    rows = "".join(f'{prompt},"{story}"\n' for prompt, story in zip(PROMPTS, STORIES, strict=True))
    return written(folder / "stories.csv", f"prompt,completion\n{rows}{more}")


def prepared(home: Path, path: Path, *options: str) -> Any:
    """The version that the command has stored."""
    result = call(home, "data", "prepare", path, "--name", "stories", "--base", "", "--json", *options)
    assert result.exit_code == 0, result.output
    return one_object(result)


def test_every_step_says_how_many_rows_it_touches_with_an_example_before_and_after() -> None:
    given_rows = [
        *examples(),
        example(20, " Robot\n", "Ends soon enough, in the same harbour as it began. "),
        example(21, "Empty", "  "),
        example(22, "Later", "Coming soon"),
        example(23, PROMPTS[0].upper(), STORIES[0]),
        example(24, "Another", STORIES[1].replace("counts", "numbers")),
        example(25, "Key", "The password is password=hunter22hunter and opens the door of the lighthouse."),
        example(26, "Write", "Write to ann@harbour.example or call +44 20 7946 0958 when the lamp is out."),
    ]
    steps = (
        "trim", "redact", "drop-empty", "drop-placeholders", "drop-duplicates", "drop-near-duplicates",
        "separator", "end", "space", "mask",
    )  # fmt: skip
    plan = Plan(steps=steps, end=" END", separator="\n->\n", base="")
    done = prepare_examples(given_rows, plan, None)
    by_name = {step.name: step for step in done.steps}
    assert [step.name for step in done.steps] == list(steps)
    assert {name: step.dropped for name, step in by_name.items() if step.drops} == {
        "drop-empty": (21,), "drop-placeholders": (22,), "drop-duplicates": (23,), "drop-near-duplicates": (24,),
    }  # fmt: skip
    assert (by_name["trim"].touched, by_name["trim"].before, by_name["trim"].after) == (2, " Robot\n", "Robot")
    assert (by_name["redact"].touched, by_name["redact"].row) == (2, 25)
    assert "[redacted]" in by_name["redact"].after
    assert (by_name["drop-duplicates"].row, by_name["drop-duplicates"].after) == (23, "the same as row 1")
    assert by_name["separator"].after.startswith("Episode 0\n->\nThe keeper")
    assert by_name["end"].after.endswith("harbour 0. END")
    assert by_name["mask"].after.startswith("⟦Episode 0\n->\n⟧ The keeper")


def test_a_step_that_leaves_nothing_is_refused_with_what_to_leave_out() -> None:
    with pytest.raises(
        TuningError, match=r"drop-empty drops the last of the rows: the completion is empty.*--without"
    ):
        prepare_examples([example(1, "Who?", "")], Plan(), None)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(texts, texts, texts, texts, st.booleans())
def test_the_template_of_a_plain_rendering_gives_the_same_text_as_its_preview(
    prompt: str, separator: str, end: str, system: str, space: bool
) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendering = Rendering(form="plain", separator=separator, end=end, system=system, space=space)
    turns = rendering.turns((Message(role="user", content=prompt),))
    rendered, _ = render_jinja_template(
        conversations=[[turn.model_dump() for turn in turns]],
        chat_template=rendering.chat_template,
        add_generation_prompt=True,
    )
    assert rendered == [rendering.preview(example(1, prompt, "x"))[0]]


def test_near_duplicates_are_on_the_same_side_for_every_seed() -> None:
    rows = examples()
    rows += [
        example(100 + row.number, row.prompt, "Something else, of its own, entirely new.") for row in rows[:4]
    ]
    rows += [
        example(200 + row.number, f"Copy {row.number}", row.completion.replace("counts", "sees"))
        for row in rows[4:8]
    ]
    for seed in range(8):
        split = split_examples(rows, 0.3, seed)
        assert len(split.training) + len(split.validation) == len(rows)
        assert split.validation
        sides = {row.number: "train" for row in split.training} | {row.number: "check" for row in split.validation}
        assert all(sides[number] == sides[100 + number] for number in range(1, 5))
        assert split_examples(rows[::-1], 0.3, seed).validation[::-1] == split.validation
    drawn = [[row.number for row in split_examples(rows, 0.3, seed).validation] for seed in range(8)]
    assert len(set(map(tuple, drawn))) > 1


def test_rows_that_are_all_the_same_have_no_validation_rows() -> None:
    rows = [example(number, "Who?", "Ida.") for number in range(20)]
    with pytest.raises(TuningError, match=r"There are no validation rows: all 20 rows .* --validation 0"):
        split_examples(rows, 0.1, 1)
    assert len(split_examples(rows, 0, 1).training) == 20
    with pytest.raises(TuningError, match=r"There are no validation rows: there is only one row\."):
        split_examples(rows[:1], 0.1, 1)


def test_a_version_is_named_by_its_contents_and_keeps_how_it_is_rendered(tmp_path: Path) -> None:
    path = table(tmp_path, "X,Coming soon\n")
    first = prepared(tmp_path / "home", path, "--form", "plain", "--end", " END", "--system", "Tell.")
    assert (first["number"], first["rows"], first["validation_rows"], first["raw_rows"]) == (1, 11, 1, 13)
    assert prepared(tmp_path / "home", path, "--form", "plain", "--end", " END", "--system", "Tell.") == first
    second = prepared(tmp_path / "home", path)
    assert (second["number"], second["sha256"] == first["sha256"]) == (2, False)
    versions = DataVersions(tmp_path / "home" / "data")
    folder = versions.folder(versions.resolve("stories@1"))
    row = next(read_chat_rows(folder, "answers"))
    assert [turn.role for turn in row.turns] == ["system", "user"]
    assert row.completion.startswith(" The keeper")
    assert row.completion.endswith(". END")
    assert json.loads((folder / "rendering.json").read_text())["separator"] == "\n\n###\n\n"
    shown = call(tmp_path / "home", "data", "show", f"stories@{first['sha256'][:8]}")
    assert "3. drop-placeholders: drops 1, leaves 12" in shown.stdout
    assert "line 14: “X → Coming soon” – stock phrase" in shown.stdout
    assert [one["number"] for one in one_object(call(tmp_path / "home", "data", "list", "--json"))] == [2]


def test_another_split_has_the_same_rows_and_changes_nothing_of_the_rendering(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepared(home, table(tmp_path), "--form", "plain", "--end", " END", "--system", "Tell.")
    result = call(home, "data", "split", "stories", "--validation", "0.5", "--seed", "3")
    assert result.exit_code == 0, result.output
    versions = DataVersions(home / "data")
    old, new = versions.resolve("stories@1"), versions.resolve("stories@2")
    assert (new.rows, new.validation_rows) == (6, 6)
    assert {(row.turns, row.completion) for row in versions.examples(old)} == {
        (row.turns, row.completion) for row in versions.examples(new)
    }
    assert old.plan.rendering == new.plan.rendering


def test_a_full_disk_leaves_the_versions_as_they_were(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(workspace.root, table(tmp_path))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data_versions.os, "fsync", full)
    result = call(workspace.root, "data", "split", "stories", "--seed", "2", "--validation", "0.5")
    assert_one_line(result, "the disk is full")
    monkeypatch.undo()
    assert [version.number for version in DataVersions(workspace.data).versions("stories")] == [1]
    assert [path.name for path in (workspace.data / "stories").iterdir() if path.name != ".lock"] == [
        DataVersions(workspace.data).resolve("stories").folder_name
    ]


def test_preparing_the_same_rows_again_repairs_a_damaged_version(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = prepared(home, table(tmp_path))
    versions = DataVersions(home / "data")
    version = versions.resolve("stories")
    rows = versions.examples(version)
    (versions.folder(version) / "answers.jsonl").write_text("damaged")
    assert_one_line(call(home, "data", "split", "stories"), "answers.jsonl is damaged. Prepare the data again.")
    assert prepared(home, table(tmp_path)) == first
    assert versions.examples(version) == rows


def test_a_folder_in_place_of_the_lock_is_an_error_of_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "home" / "data" / "stories" / ".lock").mkdir(parents=True)
    result = call(tmp_path / "home", "data", "prepare", table(tmp_path), "--name", "stories", "--base", "")
    assert_one_line(result, "Cannot store the data stories: Is a directory.")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--steps", "trim,wash"], ["There is no step wash.", "The steps are trim, redact"]),
        (["--steps", "chat,separator"], ["the step chat cannot be combined with separator"]),
        (["--end", "END"], ["An end text belongs to the form plain", "--form plain"]),
        (["--validation", "0.99"], ["There are no training rows", "all 12 rows", "Lower --validation."]),
        (["--name", "../x"], ["must have only lower-case letters"]),
        (["--base", "nowhere/at/all"], ["The model folder nowhere/at/all does not exist."]),
    ],
)
def test_a_mistake_in_the_options_is_explained(tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    options = {"--name": "stories", "--base": ""} | dict([arguments])  # type: ignore[list-item]
    flat = [part for option in options.items() for part in option]
    assert_one_line(call(tmp_path / "home", "data", "prepare", table(tmp_path), *flat), *parts)


def test_unknown_data_are_refused_with_those_there_are(tmp_path: Path) -> None:
    prepared(tmp_path / "home", table(tmp_path))
    assert_one_line(
        call(tmp_path / "home", "data", "show", "tales"), "no prepared data tales", "there is: stories"
    )
    assert_one_line(call(tmp_path / "home", "data", "show", "stories@7"), "has no version 7; the newest is 1")
