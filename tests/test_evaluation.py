"""A run answers each case once in each way, whatever ends it, and says what it found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted_openai import WRONG_TYPES, refuses, says, scripted_openai
from test_answer_form import served
from test_evaluation_runs import many
from tiny import OFF_TOPIC, QUESTION, SENTENCE, answered, keep, written

from prompts import PromptTemplate, find_prompt
from rag.errors import EvaluationError, PromptError, SettingsError
from rag.evaluation.cases import Case
from rag.evaluation.run_store import Cell, Run
from rag.evaluation.runner import GIVE_UP_AFTER, EvaluationProgress
from rag.evaluation.variants import Variant
from ui.app.app import App, open_app

pytestmark = WRONG_TYPES

CASES = (
    Case(id="gauge", question=QUESTION, answers=("1871",), sources=("tides.md",)),
    Case(id="ferry", question="How much does the ferry cost?", answers=("12 euros",), sources=("ferries.md",)),
    Case(id="oven", question="How hot must the oven be?", answers=("250 degrees",), sources=("bread.md",)),
    Case(id="opera", question=OFF_TOPIC, must_refuse=True),
)
PLAIN = Variant(name="plain")
BRIEF = Variant(name="brief", changes={"answer.style": "brief"})


@pytest.fixture
def dataset(own_app: App) -> Callable[[str, Sequence[Case]], str]:
    def saved(name: str, cases: Sequence[Case]) -> str:
        return own_app.evaluations.datasets.save(name, cases, by="Ada", message="For a test.").label

    return saved


async def worked(app: App, run: Run, **options: Any) -> Run:
    """The run when it has ended."""
    await app.evaluations.work(run, asyncio.Event(), **options)
    return app.evaluations.runs.get(run.id)


def cells_of(app: App, run: Run) -> list[list[Cell]]:
    return [list(app.evaluations.runs.cells(run.id, number)) for number in range(len(run.plan.variants))]


async def test_every_case_is_answered_in_every_way(own_app: App, dataset: Callable[..., str]) -> None:
    progress: list[EvaluationProgress] = []
    label = dataset("every-case", CASES)
    begun = own_app.evaluations.begin(label, [PLAIN, BRIEF])
    assert (begun.status, begun.name, begun.dataset, begun.dataset_version) == (
        "running",
        "plain vs brief",
        "every-case",
        1,
    )
    run = await worked(own_app, begun, on_progress=progress.append)
    assert (run.status, run.error) == ("finished", "")
    assert run.ended is not None
    assert run.ended >= run.started

    plain, brief = cells_of(own_app, run)
    assert [cell.position for cell in plain] == [cell.position for cell in brief] == [0, 1, 2, 3]
    assert [cell.status for cell in plain] == ["answered"] * 3 + ["abstained"]
    for cell, case in zip(plain, CASES, strict=True):
        alone = await answered(own_app.releases.assistant(), case.question)
        assert (cell.answer, cell.status) == (alone.text, alone.status)
        assert (cell.input_tokens, cell.output_tokens) == (alone.usage.input_tokens, alone.usage.output_tokens)
        assert [each.text for each in cell.passages] == [hit.passage.text for hit in alone.hits]
        cited = {citation.marker for citation in alone.citations}
        assert {number for number, each in enumerate(cell.passages, 1) if each.cited} == cited
        assert own_app.stores.traces.get(cell.trace_id).conversation_id == run.id
    assert all(len(short.answer) < len(long.answer) for short, long in zip(brief[:3], plain[:3], strict=True))

    assert [each.done for each in progress] == list(range(1, 9))
    assert {each.total for each in progress} == {8}
    assert not any(each.cached or each.failed for each in progress)
    assert progress[-1].seconds_left == 0.0

    summary = own_app.evaluations.summary(run)
    assert (summary.size, [each.name for each in summary.variants]) == (4, ["plain", "brief"])
    figures = summary.variants[0].figures
    values = {name: figure.estimate.value for name, figure in figures.items() if figure.estimate}
    assert (values["contains"], values["recall"], values["answered"]) == (1.0, 1.0, 0.75)
    assert (values["refusal_precision"], values["refusal_recall"], values["failed"]) == (1.0, 1.0, 0.0)
    shorter = summary.variants[1].figures["words"].change
    assert shorter is not None
    assert shorter.value < 0


async def test_the_same_call_is_made_once_and_a_fresh_one_again(own_app: App, dataset: Callable[..., str]) -> None:
    runs = own_app.evaluations
    label = dataset("cached", CASES)
    ways = [Variant(name="near", changes={"retrieval.candidates": 50})]
    (first,) = cells_of(own_app, await worked(own_app, runs.begin(label, ways)))
    progress: list[EvaluationProgress] = []
    again = await worked(own_app, runs.begin(label, ways), on_progress=progress.append)
    (second,) = cells_of(own_app, again)
    assert not any(cell.cached for cell in first)
    assert all(cell.cached for cell in second)
    assert [replace(cell, cached=False) for cell in second] == first
    assert (progress[-1].cached, progress[-1].seconds_left) == (4, None)
    assert runs.summary(again).variants[0].cached == 4

    (fresh,) = cells_of(own_app, await worked(own_app, runs.begin(label, ways), fresh=True))
    assert not any(cell.cached for cell in fresh)
    assert not {cell.trace_id for cell in fresh} & {cell.trace_id for cell in first}
    assert [cell.answer for cell in fresh] == [cell.answer for cell in first]
    # Another name for the same way asks nothing, and another way does.
    both = [Variant(name="x", changes={"retrieval.candidates": 50}), Variant(name="y", changes={"retrieval.k": 2})]
    one, other = cells_of(own_app, await worked(own_app, runs.begin(label, both)))
    assert all(cell.cached for cell in one)
    assert not any(cell.cached for cell in other)


async def test_a_server_that_is_down_fails_the_run_which_goes_on_when_it_is_back(
    own_app: App, dataset: Callable[..., str]
) -> None:
    label = dataset("down", many(30))
    with scripted_openai(refuses(500, "out of memory")) as server:
        app = served(own_app, server)
        run = await worked(app, app.evaluations.begin(label, [PLAIN], concurrency=3))
        assert run.status == "failed"
        assert "out of memory" in run.error
        assert GIVE_UP_AFTER <= len(server.received) < GIVE_UP_AFTER + 3
        (cells,) = cells_of(app, run)
        assert len(cells) == len(server.received)
        assert {cell.status for cell in cells} == {"failed"}
        assert all("out of memory" in cell.error for cell in cells)
        shown = app.evaluations.summary(run).variants[0]
        assert (shown.done, shown.failed) == (len(cells), len(cells))
        assert shown.figures["failed"].estimate is not None
        assert "latency_p50" not in shown.figures

        server.script = says(f"{SENTENCE} [1]")
        server.received.clear()
        resumed = await worked(app, app.evaluations.resume(run.id))
        assert (resumed.status, resumed.error) == ("finished", "")
        # Failures are no answers: they are asked for again.
        assert len(server.received) == 30
        (cells,) = cells_of(app, run)
        assert len(cells) == 30
        assert {cell.status for cell in cells} <= {"answered", "abstained"}
        app.close()


async def test_a_run_that_was_stopped_goes_on_where_it_was(own_app: App, dataset: Callable[..., str]) -> None:
    label = dataset("stopped", many(12))
    ways = [PLAIN, Variant(name="warm", changes={"decoding.temperature": 1.0})]
    with scripted_openai(says(f"{SENTENCE} [1]")) as server:
        app = served(own_app, server)
        stop = asyncio.Event()

        def after_five(now: EvaluationProgress) -> None:
            if now.done == 5:
                stop.set()

        run = app.evaluations.begin(label, ways, concurrency=2)
        assert await app.evaluations.work(run, stop, after_five) == "stopped"
        # Those that were being given are kept; nothing was begun beyond them.
        asked = len(server.received)
        assert 5 <= asked <= 6
        assert app.evaluations.runs.count(run.id) == asked
        assert app.evaluations.summary(run).variants[0].done == 3

        progress: list[EvaluationProgress] = []
        resumed = app.evaluations.resume(run.id[:6])
        assert (await worked(app, resumed, on_progress=progress.append, fresh=True)).status == "finished"
        assert [each.done for each in progress] == list(range(asked + 1, 25))
        assert len(server.received) == 24
        sent = [
            (request.body["temperature"], request.body["messages"][-1]["content"]) for request in server.received
        ]
        assert len(set(sent)) == 24
        with pytest.raises(EvaluationError, match="is finished and cannot be resumed"):
            app.evaluations.resume(run.id)
        app.close()


async def stopped_run(app: App, label: str, variant: Variant, corpus: str = "") -> Run:
    """A run that was stopped before its first answer."""
    run = app.evaluations.begin(label, [variant], corpus=corpus)
    stop = asyncio.Event()
    stop.set()
    assert await app.evaluations.work(run, stop) == "stopped"
    assert app.evaluations.runs.count(run.id) == 0
    return run


async def test_a_run_whose_settings_have_changed_does_not_go_on(own_app: App, dataset: Callable[..., str]) -> None:
    run = await stopped_run(own_app, dataset("settings-change", CASES), BRIEF)
    other = open_app(
        own_app.settings.model_copy(update={"retrieval": own_app.settings.retrieval.model_copy(update={"k": 3})})
    )
    other.stores.encoder = own_app.stores.encoder
    with pytest.raises(
        EvaluationError, match="cannot be resumed: the settings, a model or the corpus of brief have"
    ) as caught:
        other.evaluations.resume(run.id)
    assert "Begin a new run" in caught.value.fix
    other.close()
    assert own_app.evaluations.runs.get(run.id).status == "stopped"
    assert own_app.evaluations.resume(run.id).status == "running"


async def test_a_run_whose_corpus_has_changed_does_not_go_on(
    own_app: App, dataset: Callable[..., str], tmp_path: Path
) -> None:
    pages = written(tmp_path / "pages", {"one.md": f"# One\n\n{SENTENCE}\n"})
    own_app.stores.ingest("growing", [pages])
    run = await stopped_run(own_app, dataset("corpus-change", CASES), PLAIN, "growing")
    own_app.stores.ingest("growing", [pages])
    assert own_app.evaluations.resume(run.id).status == "running"
    own_app.evaluations.runs.end(run.id, "stopped")
    own_app.stores.ingest("growing", [written(pages, {"two.md": "# Two\n\nThe pier has two lamps.\n"})])
    with pytest.raises(EvaluationError, match="cannot be resumed"):
        own_app.evaluations.resume(run.id)


@pytest.mark.parametrize("name", ["condense", "repair-json"])
async def test_a_run_whose_other_prompts_have_changed_does_not_go_on(
    own_app: App, dataset: Callable[..., str], name: str
) -> None:
    run = await stopped_run(own_app, dataset("prompts-change", CASES), PLAIN)
    shipped = find_prompt(name)
    first, *rest = shipped.model_dump()["messages"]
    changed = shipped.model_dump() | {"messages": [first | {"content": f"{first['content']} Be kind."}, *rest]}
    saved = own_app.stores.prompts.save(PromptTemplate.model_validate(changed), by="Ada", message="Kinder.")
    own_app.stores.prompts.move(name, "production", saved.version, by="Ada", message="Kinder.")
    with pytest.raises(EvaluationError, match="cannot be resumed"):
        own_app.evaluations.resume(run.id)
    own_app.stores.prompts.move(name, "production", None, by="Ada", message="Back.")
    assert own_app.evaluations.resume(run.id).status == "running"


async def test_a_label_means_the_version_that_it_named_when_the_run_began(
    own_app: App, dataset: Callable[..., str]
) -> None:
    keep(own_app, "pinned", passages=1)
    keep(own_app, "pinned", passages=2)
    label = dataset("pinned", CASES[:1])
    run = own_app.evaluations.begin(label, [Variant(name="v", changes={"prompt": "pinned"})])
    assert run.plan.variants[0].changes == {"prompt": "pinned@1"}
    own_app.stores.prompts.move("pinned", "production", 2, by="Ada", message="Better.")
    # A version of the dataset that comes later changes nothing either.
    dataset("pinned", CASES)
    ((cell,),) = cells_of(own_app, await worked(own_app, run))
    assert own_app.stores.traces.get(cell.trace_id).prompt == "pinned@1"
    assert len(cell.passages) == 1


def test_what_cannot_be_run_is_told_before_anything_is_kept(own_app: App, dataset: Callable[..., str]) -> None:
    begin = own_app.evaluations.begin
    label, before = dataset("refused", CASES), len(own_app.evaluations.runs.list())
    with pytest.raises(SettingsError, match="Two variants are called plain"):
        begin(label, [PLAIN, Variant(name="plain", changes={"retrieval.k": 2})])
    with pytest.raises(SettingsError, match=r"retrieval\.k"):
        begin(label, [Variant(name="v", changes={"retrieval.k": 0})])
    with pytest.raises(PromptError, match="There is no prompt answer@9"):
        begin(label, [Variant(name="v", changes={"prompt": "answer@9"})])
    with pytest.raises(EvaluationError, match="There is no dataset nowhere"):
        begin("nowhere", [PLAIN])
    with pytest.raises(EvaluationError, match="is empty"):
        begin(dataset("empty", []), [PLAIN])
    assert len(own_app.evaluations.runs.list()) == before


async def test_a_run_in_the_background_ends_by_itself_or_when_it_is_stopped(
    own_app: App, dataset: Callable[..., str]
) -> None:
    runs = own_app.evaluations
    run = runs.begin(dataset("background", CASES), [Variant(name="v", changes={"retrieval.candidates": 40})])
    assert not runs.stop(run.id)
    runs.start(run)
    assert runs.is_working(run.id)
    assert runs.stop(run.id)
    while runs.is_working(run.id):
        await asyncio.sleep(0.01)
    assert runs.runs.get(run.id).status == "stopped"
    runs.start(runs.resume(run.id))
    while runs.is_working(run.id):
        await asyncio.sleep(0.01)
    assert (runs.runs.get(run.id).status, runs.progress(run.id)) == ("finished", None)
