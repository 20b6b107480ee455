"""``ragsmith prompts``: what a prompt engineer does in a terminal, and one clear line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from terminal import assert_harmless, assert_one_line, call, one_object

from prompts import PromptLibrary, find_prompt
from prompts.files import as_draft
from rag.answering.prompt_filling import check_fillable
from rag.workspace import Workspace

VALUES = {"question": "Why?", "passages": "[1] Rye\nNever kneaded.", "refusal": "No."}


@pytest.fixture
def home(workspace: Workspace) -> Path:
    return workspace.root


@pytest.fixture
def library(workspace: Workspace) -> PromptLibrary:
    return PromptLibrary(workspace.prompts)


def changed(tmp_path: Path) -> Path:
    """The prompt ``answer-short`` as a person changed it."""
    path = tmp_path / "changed.yaml"
    text = as_draft(find_prompt("answer-short"))
    path.write_text(text.replace("in a few words, with", "in three words, with"), encoding="utf-8")
    return path


def test_a_change_is_shown_saved_compared_and_put_into_production(
    home: Path, library: PromptLibrary, tmp_path: Path
) -> None:
    edited = call(
        home, "prompts", "edit", "answer-short", "--file", changed(tmp_path), "-m", "shorter", "--by", "ida"
    )
    assert "in [-a few-]{+three+} words" in edited.stdout
    assert "Saved answer-short@2.\nanswer-short@1 stays in production;" in edited.stdout
    assert library.find("answer-short").version == 1
    told = call(home, "prompts", "diff", "answer-short@1", "answer-short@2").stdout
    assert told.startswith("messages 1 content\n")
    assert "{+three+}" in told
    moved = call(home, "prompts", "label", "answer-short", "production", "2", "-m", "better", "--by", "bo")
    assert moved.stdout == "answer-short: production 1 → 2\n"
    assert library.find("answer-short").version == 2
    back = call(home, "prompts", "label", "answer-short", "production", "1", "-m", "worse", "--by", "bo")
    assert back.stdout == "answer-short: production 2 → 1\n"
    log = one_object(call(home, "prompts", "log", "answer-short", "--json"))
    assert [(each["by"], each["what"], each["message"]) for each in log] == [
        ("bo", "production → 1", "worse"),
        ("bo", "production → 2", "better"),
        ("ida", "version 2", "shorter"),
        ("", "version 1", ""),
    ]
    listed = {each["name"]: each for each in one_object(call(home, "prompts", "list", "--json"))}
    assert listed["answer-short"]["versions"] == [1, 2]
    assert listed["answer-short"]["labels"] == {"production": 1}
    lines = call(home, "prompts", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == library.names()


def test_show_prints_the_file_and_json_adds_the_hash(home: Path) -> None:
    shown = yaml.safe_load(call(home, "prompts", "show", "condense").stdout)
    assert shown["name"] == "condense"
    told = one_object(call(home, "prompts", "show", "condense@1", "--json"))
    assert told["sha256"] == find_prompt("condense").sha256
    assert told["messages"] == shown["messages"]


def test_the_editor_opens_on_the_version_and_what_is_saved_is_the_next(
    home: Path, library: PromptLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", "sed -i 's/a few/three/'")
    edited = call(home, "prompts", "edit", "answer-short@1", "-m", "shorter")
    assert "Saved answer-short@2." in edited.stdout
    assert "three words" in library.load("answer-short@2").messages[0].content
    monkeypatch.setenv("EDITOR", "true")
    assert call(home, "prompts", "edit", "answer-short").stdout == "Nothing was changed, so nothing was saved.\n"
    monkeypatch.setenv("EDITOR", "sed -i 's/question/topic/g'")
    assert "Saved mine@1.\n" in call(home, "prompts", "new", "mine").stdout
    assert library.find("mine").variables == ("topic",)


def test_what_was_written_in_the_editor_is_kept_where_it_is_no_prompt(
    home: Path, library: PromptLibrary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDITOR", "sed -i 's/variables/variable/; s/a few/three/'")
    result = call(home, "prompts", "edit", "answer-short")
    assert result.exit_code == 1
    *_, kept, told = result.stderr.splitlines()
    assert told == "Error: The prompt is invalid: unknown field `variable` (did you mean `variables`?)."
    (draft,) = (home / "prompts" / "answer-short").glob("draft-*.yaml")
    assert str(draft) in kept
    assert "three words" in draft.read_text()
    assert library.versions("answer-short") == [1]


def test_a_new_prompt_may_begin_with_another(home: Path, library: PromptLibrary, tmp_path: Path) -> None:
    made = call(home, "prompts", "new", "brief", "--from", "answer-short", "--file", changed(tmp_path), "-m", "x")
    assert "Saved brief@1." in made.stdout
    assert library.find("brief").fragments == find_prompt("answer-short").fragments
    assert_one_line(
        call(home, "prompts", "new", "brief", "--file", changed(tmp_path)), "The prompt brief exists already"
    )


def test_a_prompt_is_copied_under_a_new_name(
    home: Path, library: PromptLibrary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "copy.yaml"
    path.write_text(as_draft(find_prompt("answer-short")), encoding="utf-8")
    made = call(home, "prompts", "new", "twin", "--from", "answer-short", "--file", path, "-m", "x")
    assert made.stdout == "Saved twin@1.\n"
    assert library.find("twin").sha256 == find_prompt("answer-short").sha256
    # An editor that is closed without a change is a person who thought better of it.
    monkeypatch.setenv("EDITOR", "true")
    kept = call(home, "prompts", "new", "third", "--from", "answer-short")
    assert kept.stdout == "Nothing was changed, so nothing was saved.\n"
    assert "third" not in library.names()


def test_render_prints_the_messages_that_are_sent(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    path.write_text(json.dumps(VALUES | {"question": "What?"}))
    result = call(home, "prompts", "render", "answer", "--values", path, "--set", "question=Why=how?", "--json")
    rendered = find_prompt("answer").render(VALUES | {"question": "Why=how?"})
    assert one_object(result) == [message.model_dump() for message in rendered]
    plain = call(home, "prompts", "render", "answer", "--values", "-", input=json.dumps(VALUES)).stdout
    assert plain.startswith("system\n")
    assert "Never kneaded." in plain


def test_a_name_that_a_prompt_cannot_have_opens_no_editor(
    home: Path, library: PromptLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    monkeypatch.setenv("EDITOR", f"touch {opened};:")
    assert_one_line(call(home, "prompts", "new", "Bad Name", "--from", "answer"), "The name 'Bad Name' is invalid")
    assert_one_line(call(home, "prompts", "new", "condense"), "The prompt condense exists already")
    assert not opened.exists()


def test_what_a_label_becomes_is_said_when_it_is_removed(home: Path, library: PromptLibrary) -> None:
    library.save(find_prompt("answer"), by="ida", message="")
    for label in ("production", "staging"):
        call(home, "prompts", "label", "answer", label, "2", "-m", "try")
    told = call(home, "prompts", "label", "answer", "production", "--remove").stdout
    assert told == "Removed the label production from answer@2; without it, answer@production is answer@1.\n"
    told = call(home, "prompts", "label", "answer", "staging", "--remove").stdout
    assert told == "Removed the label staging from answer@2.\n"


@pytest.mark.parametrize("form", ["langchain", "openai", "text"])
def test_an_export_can_be_imported(home: Path, library: PromptLibrary, tmp_path: Path, form: str) -> None:
    target = tmp_path / "exported"
    done = call(home, "prompts", "export", "answer", "--format", form, "--to", target)
    assert "are left out: passage, refusal." in done.stderr
    assert done.stdout == f"Wrote answer@1 to {target}.\n"
    saved = call(home, "prompts", "import", target, "--name", "taken")
    assert saved.stdout == "Saved taken@1.\n"
    added = "Added the default fragments of an answer prompt, which this format lacks: passage, refusal.\n"
    assert saved.stderr == added
    taken = library.find("taken")
    assert taken.messages == find_prompt("answer").messages
    # The format has no fragments, without which the prompt could not answer.
    assert taken.fragments == find_prompt("answer").fragments
    check_fillable(taken)


def test_an_export_as_yaml_is_a_version_that_another_workspace_reads(home: Path, tmp_path: Path) -> None:
    text = call(home, "prompts", "export", "answer").stdout
    path = tmp_path / "answer" / "1.yaml"
    path.parent.mkdir()
    path.write_text(text)
    assert PromptLibrary(tmp_path).find("answer") == find_prompt("answer")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show", "nothing"], "There is no prompt nothing; there are: answer,"),
        (["show", "answer@7"], "There is no prompt answer@7; versions of answer: 1; labels: production."),
        (["show", "\udcff"], "There is no prompt"),
        (["edit", "nothing"], "There is no prompt nothing"),
        (["new", "../x", "--file", "CHANGED"], "The name '../x' is invalid: use lower-case letters"),
        (["import", "/dev/zero", "--name", "x"], "/dev/zero must not be larger than 4,000,000 bytes"),
        (["edit", "answer", "--file", "nowhere.yaml"], "nowhere.yaml cannot be read: No such file"),
        (["log", "nothing"], "There is no prompt nothing"),
        (["label", "answer", "production", "7"], "There is no prompt answer@7"),
        (["label", "answer", "Big", "1"], "The label 'Big' is invalid"),
        (["label", "answer", "staging", "--remove"], "has no label staging"),
        (["render", "answer", "--set", "question=Why?"], "missing passages, refusal"),
        (["render", "answer", "--values", "CHANGED"], "must be valid JSON"),
        (["render", "answer", "--values", "LIST"], "must be a JSON object of strings"),
        (["import", "LIST", "--name", "x"], "OpenAI messages must be"),
        (["import", "CHANGED", "--name", "Big", "--format", "text"], "imported: name: "),
        (["export", "answer", "--to", "nowhere/x"], "cannot be written: No such file"),
    ],
)
def test_a_mistake_is_one_line(home: Path, tmp_path: Path, arguments: list[str], told: str) -> None:
    (tmp_path / "list.json").write_text("[]")
    names = {"CHANGED": changed(tmp_path), "LIST": tmp_path / "list.json"}
    assert_one_line(call(home, "prompts", *(names.get(each, each) for each in arguments)), told)


@pytest.mark.parametrize(
    "arguments", [["label", "answer", "production"], ["label", "answer", "x", "1", "--remove"]]
)
def test_a_label_needs_a_version_or_to_be_removed(home: Path, arguments: list[str]) -> None:
    result = call(home, "prompts", *arguments)
    assert result.exit_code == 2
    assert (
        "'nine' must be the number of a version, such as 2."
        in call(home, "prompts", "label", "answer", "production", "nine").stderr
    )
    assert "Name a version, or pass --remove." in result.stderr


def test_what_others_wrote_does_nothing_to_the_terminal(
    home: Path, library: PromptLibrary, tmp_path: Path
) -> None:
    evil = tmp_path / "evil.json"
    text = "\x1b[2J\x9b31m\u202eHello {{who}}"
    evil.write_text(json.dumps([{"role": "user", "content": text}]))
    call(home, "prompts", "import", evil, "--name", "evil", "-m", text)
    assert library.find("evil").messages[0].content == text
    for arguments in (["list"], ["show", "evil"], ["log", "evil"], ["diff", "evil", "answer"]):
        assert_harmless(call(home, "prompts", *arguments).output)
    assert_harmless(call(home, "prompts", "render", "evil", "--set", f"who={text}").output)


def test_a_request_that_was_saved_with_a_byte_order_mark_is_imported_with_its_settings(
    home: Path, library: PromptLibrary, tmp_path: Path
) -> None:
    body = {"model": "gpt-5", "temperature": 0.4, "messages": [{"role": "user", "content": "Praise {{who}}."}]}
    path = tmp_path / "request.json"
    path.write_text(json.dumps(body), encoding="utf-8-sig")
    result = call(home, "prompts", "import", path, "--name", "praise")
    assert result.stdout == "Saved praise@1.\n"
    assert result.stderr == "Left out, because a prompt has no such setting: model.\n"
    assert library.find("praise").settings.given == {"temperature": 0.4}
    exported = call(home, "prompts", "export", "praise", "--format", "openai")
    assert exported.stderr == "The format has no settings, so these are left out: temperature.\n"
