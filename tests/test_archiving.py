"""Prompts and datasets are archived where nothing depends on them, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine
from terminal import assert_one_line, call, jsonl, one_object
from test_prompts import template

from prompts import PromptLibrary, PromptTemplateError, find_prompt
from prompts.archive import PromptArchive
from rag.errors import DatasetError, PromptError
from rag.evaluation.cases import Case
from rag.evaluation.dataset_archive import DatasetArchive
from rag.evaluation.dataset_store import DatasetStore
from rag.evaluation.run_store import Plan, Run, RunStore
from rag.evaluation.variants import Variant
from rag.workspace import Workspace
from ui.app.archiving import PromptArchiving, archive_dataset


@pytest.fixture
def runs(engine: Engine) -> RunStore:
    return RunStore(engine)


@pytest.fixture
def archiving(workspace: Workspace, runs: RunStore) -> PromptArchiving:
    """A library with greeting 1 (in production), 2 and 3, and an answer 2 of one's own."""
    library = PromptLibrary(workspace.prompts)
    for _ in range(3):
        library.save(template(), by="ida", message="")
    library.save(find_prompt("answer"), by="ida", message="")
    return PromptArchiving(library, PromptArchive(workspace.prompts), "answer", lambda: runs)


def begin(runs: RunStore, prompt: str, dataset: str = "faq") -> Run:
    plan = Plan(variants=(Variant(name="a", changes={"prompt": prompt}),), states=("s",), corpus="c")
    return runs.begin(plan, name="r", dataset=dataset, version=1, sha256="0" * 64)


def test_an_archived_version_is_out_of_the_way_and_comes_back_whole(archiving: PromptArchiving) -> None:
    library = archiving.library
    before = library.load("greeting@3")
    assert archiving.put_away("greeting@3") == ["greeting@3"]
    assert library.versions("greeting") == [1, 2]
    with pytest.raises(PromptTemplateError, match="is archived: `ragsmith prompts restore greeting@3`"):
        library.find("greeting@3")
    with pytest.raises(PromptTemplateError, match="greeting@3 is archived"):
        library.move("greeting", "staging", 3, by="ida", message="")
    # Traces name it: no other version ever gets its number.
    assert library.save(template(), by="ida", message="").version == 4
    assert archiving.bring_back("greeting@3") == ["greeting@3"]
    assert library.load("greeting@3") == before
    assert library.versions("greeting") == [1, 2, 3, 4]


def test_a_whole_prompt_is_archived_with_its_labels_and_comes_back_with_them(archiving: PromptArchiving) -> None:
    library = archiving.library
    library.move("greeting", "staging", 2, by="ida", message="")
    labels = library.labels("greeting")
    archiving.put_away("greeting")
    assert "greeting" not in library.names()
    assert archiving.archive.archived() == ["greeting@1", "greeting@2", "greeting@3"]
    archiving.bring_back("greeting")
    assert library.labels("greeting") == labels
    # Of a prompt that ships only what is one's own goes.
    assert archiving.put_away("answer") == ["answer@2"]
    assert library.find("answer").version == 1


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("greeting@1", "the label production names it"),
        ("greeting@2", "the label staging names it"),
        ("greeting@4", "hello@1 includes it"),
        ("greeting", "hello@1 includes it"),
        ("answer@1", "ships with ragsmith"),
        ("condense", "ships with ragsmith"),
        ("greeting@9", "no version greeting@9"),
        ("greeting@staging", "no version greeting@staging"),
        ("farewell", "no prompt farewell"),
        ("../greeting", "no prompt"),
    ],
)
def test_what_something_depends_on_stays(archiving: PromptArchiving, reference: str, why: str) -> None:
    library = archiving.library
    library.move("greeting", "staging", 2, by="ida", message="")
    including = [{"role": "user", "content": "{{> greeting@4}} {{who}}"}]
    single = template(messages=[{"role": "user", "content": "Hello {{who}}!"}])
    fourth = library.save(single, by="ida", message="")
    assert fourth.version == 4
    library.save(template(name="hello", messages=including), by="ida", message="")
    with pytest.raises(PromptError, match=why):
        archiving.put_away(reference)
    assert archiving.archive.archived() == []


def test_the_prompt_of_the_settings_and_of_unfinished_runs_stays(
    archiving: PromptArchiving, runs: RunStore
) -> None:
    fixed = PromptArchiving(archiving.library, archiving.archive, "answer@2", archiving.runs)
    with pytest.raises(PromptError, match="the setting prompt is answer@2"):
        fixed.put_away("answer@2")
    run = begin(runs, "greeting@3")
    with pytest.raises(PromptError, match=f"run {run.id[:8]} is not finished"):
        archiving.put_away("greeting@3")
    runs.end(run.id, "finished")
    archiving.put_away("greeting@3")


def test_a_new_prompt_by_the_name_of_an_archived_one_has_its_first_version_in_production(
    archiving: PromptArchiving,
) -> None:
    library = archiving.library
    archiving.put_away("greeting")
    assert [library.save(template(), by="ida", message="").version for _ in range(2)] == [4, 5]
    assert library.find("greeting").version == 4
    archiving.bring_back("greeting")
    assert library.find("greeting").version == 4


def test_what_is_not_archived_does_not_come_back(archiving: PromptArchiving) -> None:
    with pytest.raises(PromptError, match="greeting@2 is not archived"):
        archiving.bring_back("greeting@2")
    archiving.put_away("greeting@2")
    with pytest.raises(PromptTemplateError, match="is not in this workspace"):
        archiving.archive.archive("greeting", [2])


# Datasets


def test_an_archived_dataset_frees_its_name_and_comes_back(engine: Engine, runs: RunStore) -> None:
    store, archive = DatasetStore(engine), DatasetArchive(engine)
    first = store.save("faq", [Case(id="a", question="one?")], by="ida", message="")
    archive_dataset(archive, runs, "faq")
    assert (store.list(), archive.archived()) == ((), ["faq"])
    for reference in ("faq", "faq@1"):
        with pytest.raises(DatasetError, match=r"dataset faq is archived\. `ragsmith datasets restore faq`"):
            store.resolve(reference)
    store.save("faq", [Case(id="b", question="two?")], by="ida", message="")
    with pytest.raises(DatasetError, match="a dataset faq already"):
        archive.restore("faq")
    archive_dataset(archive, runs, "faq")
    # The one that was archived last comes first.
    archive.restore("faq")
    assert [case.id for case in store.cases(store.resolve("faq"))] == ["b"]
    archive_dataset(archive, runs, "faq")
    assert archive.archived() == ["faq"]
    assert first.size == 1


def test_a_dataset_that_an_unfinished_run_asks_stays_and_a_finished_one_keeps_its_cases(
    engine: Engine, runs: RunStore
) -> None:
    store, archive = DatasetStore(engine), DatasetArchive(engine)
    asked = store.save("faq", [Case(id="a", question="one?")], by="ida", message="")
    run = begin(runs, "answer")
    with pytest.raises(DatasetError, match=f"run {run.id[:8]} is not finished"):
        archive_dataset(archive, runs, "faq")
    runs.end(run.id, "finished")
    archive_dataset(archive, runs, "faq")
    # Its name is free for other cases, with which the run must not be shown.
    for again in (False, True):
        if again:
            store.save("faq", [Case(id="b", question="two?")], by="ida", message="")
        found = store.of_run("faq", 1, asked.sha256)
        assert (found.label, [case.id for case in store.cases(found)]) == ("faq@1", ["a"])
    assert [case.id for case in store.cases(store.resolve("faq@1"))] == ["b"]


def test_names_that_begin_alike_are_not_mixed_up(engine: Engine) -> None:
    store, archive = DatasetStore(engine), DatasetArchive(engine)
    for name in ("faq", "faq-old", "fa"):
        store.save(name, [Case(id=name, question=f"{name}?")], by="ida", message="")
        archive.archive(name)
    assert archive.archived() == ["fa", "faq", "faq-old"]
    archive.restore("faq")
    assert [one.name for one in store.list()] == ["faq"]


@pytest.mark.parametrize("name", ["faq~1", "faq@1", "~", "", "FAQ", "%"])
def test_an_archived_dataset_has_no_other_name(engine: Engine, runs: RunStore, name: str) -> None:
    store, archive = DatasetStore(engine), DatasetArchive(engine)
    store.save("faq", [Case(id="a", question="one?")], by="ida", message="")
    archive.archive("faq")
    for use in (store.resolve, store.versions, lambda name: archive_dataset(archive, runs, name), archive.restore):
        with pytest.raises(DatasetError):
            use(name)
    assert store.newest(name) is None
    archive.restore("faq")
    assert store.resolve("faq").size == 1


# Commands


def test_the_commands_archive_list_and_restore(home: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "faq.jsonl", [{"question": "one?"}])
    call(home, "datasets", "import", "faq", file)
    assert call(home, "datasets", "archive", "faq").stdout == "Archived faq.\n"
    assert one_object(call(home, "datasets", "list", "--archived", "--json")) == ["faq"]
    assert one_object(call(home, "datasets", "list", "--json")) == []
    assert call(home, "datasets", "restore", "faq").stdout == "Restored faq.\n"
    assert_one_line(call(home, "datasets", "restore", "faq"), "No dataset faq is archived")
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("{description: d, variables: [], messages: [{role: user, content: Hello!}]}")
    call(home, "prompts", "new", "hello", "--file", prompt, "-m", "x")
    assert call(home, "prompts", "archive", "hello").stdout == "Archived hello@1.\n"
    assert call(home, "prompts", "list", "--archived").stdout == "hello@1\n"
    assert_one_line(call(home, "prompts", "show", "hello"), "hello is archived: `ragsmith prompts restore hello`")
    assert call(home, "prompts", "restore", "hello").stdout == "Restored hello@1.\n"
    assert_one_line(call(home, "prompts", "archive", "answer"), "ships with ragsmith")
