"""Evaluations in a real browser, with everything behind them real."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Open, ask, settle, wait_for_answers
from playwright.sync_api import Page, expect
from run_cells import case, cell, failed

from prompts import PromptSettings
from rag.evaluation.case_files import read_cases
from rag.evaluation.run_store import Cell, Plan
from rag.evaluation.variants import Variant
from rag.settings import Settings
from ui.app.app import App, open_app
from ui.pages.evaluate.datasets_tab import SAVED

QUESTIONS = Path(__file__).parent.parent / "corpora" / "handbook" / "questions.jsonl"
CASES = 12
QUESTION = "What does the Stop button do?"
NASTY = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> {{question}} **b**"


@pytest.fixture(scope="module")
def app(handbook_home: Path) -> Iterator[App]:
    made = open_app(Settings(home=handbook_home, tracking={"wandb": "off"}))
    cases = random.Random(1).sample(read_cases(QUESTIONS).cases, CASES)
    made.evaluations.datasets.save("dozen", cases, by="a test", message="a dozen questions")
    yield made
    made.close()


def tab(page: Page, name: str, inner: str = "") -> None:
    page.locator("#tabs > .tab-wrapper").get_by_role("tab", name=name).click()
    if inner:
        page.locator("#evaluate-tabs > .tab-wrapper").get_by_role("tab", name=inner).click()


def kept(app: App, name: str, *variants: list[Cell], cases: int = 40) -> str:
    """The id of a finished run with these answers."""
    store, datasets = app.evaluations.runs, app.evaluations.datasets
    version = datasets.save(name, [case(at) for at in range(cases)], by="a test", message="")
    plan = Plan(
        variants=tuple(Variant(name=f"{name}-{number}") for number in range(len(variants))),
        states=("",) * len(variants),
        corpus="handbook",
    )
    run = store.begin(plan, name=name, dataset=name, version=version.version, sha256=version.sha256)
    for cells in variants:
        store.keep(run.id, cells)
    store.end(run.id, "finished")
    return run.id


def shows_a_run(page: Page) -> None:
    expect(page.locator(".rs-figures")).to_be_visible()
    expect(page.locator(".rs-grid, #grid .rs-none")).to_be_visible()


def show(open_page: Open, address: str, query: str) -> Page:
    """Open the page at a run."""
    return open_page(f"{address}/?tab=evaluate&{query}", ready=shows_a_run)


@pytest.mark.slow
def test_two_versions_answer_every_case_and_the_table_shows_what_differs(page: Page, app: App) -> None:
    prompts = app.stores.prompts
    shorter = prompts.load("answer@1").model_copy(update={"settings": PromptSettings(style="sentence")})
    prompts.save(shorter, by="a test", message="Answers were too long")
    tab(page, "Evaluate")
    page.locator("#new-run .label-wrap").click()
    page.locator("#new-run-dataset input").click()
    page.get_by_role("option", name="dozen@1").click()
    page.locator("#new-run-variants textarea").fill("before: prompt=answer@1\nshorter: prompt=answer@2")
    page.locator("#new-run-start").click()
    expect(page.locator("#run-head")).to_contain_text("finished", timeout=180_000)
    assert app.evaluations.runs.list()[0].status == "finished"
    row = page.locator(".rs-figures tbody tr", has_text="shorter")
    words = [head.inner_text() for head in page.locator(".rs-figures thead th").all()].index("Words")
    expect(row.locator("td, th").nth(words).locator(".rs-delta")).to_contain_text("−")
    expect(page.locator("#grid .rs-count")).to_contain_text(f"of {CASES}")


def test_the_grid_shows_what_fits_and_an_answer_opens(open_page: Open, app: App, address: str) -> None:
    right = [cell(0, at) for at in range(39)]
    mixed = [cell(1, at, float(at % 4 > 0)) for at in range(38)]
    run = kept(app, "filtered", right, [*mixed, failed(1, 38)])
    page = show(open_page, address, f"run={run}")
    expect(page.locator("#grid .rs-count")).to_have_text("1–25 of 40")
    page.locator("#grid-on").click()
    expect(page.locator("#grid .rs-count")).to_have_text("26–40 of 40")
    page.locator("#grid-show label", has_text="errors").click()
    expect(page.locator(".rs-grid tbody tr")).to_have_count(1)
    page.locator(".rs-grid td.is-failed button").click()
    expect(page.locator("#run-cell .rs-error")).to_have_text("no connection")
    page.locator("#grid-show label", has_text="failures").click()
    expect(page.locator(".rs-grid tbody tr")).to_have_count(11)
    page.locator("#grid-search").locator("textarea, input").fill("question 12?")
    page.locator("#grid-search").locator("textarea, input").press("Enter")
    expect(page.locator(".rs-grid tbody tr")).to_have_count(1)
    page.wait_for_url("**q=question+12*")
    tab(page, "Chat")
    expect(page).to_have_url(f"{address}/")
    tab(page, "Evaluate", "Datasets")
    expect(page).to_have_url(f"{address}/")
    tab(page, "Evaluate", "Runs")
    expect(page).to_have_url(re.compile(r"q=question\+12"))
    page.reload()
    expect(page.locator(".rs-grid tbody tr")).to_have_count(1)
    expect(page.locator(".rs-grid .rs-asked-of")).to_have_text("Question 12?")


def test_another_run_is_compared_and_a_banner_says_what_differs(open_page: Open, app: App, address: str) -> None:
    bad = kept(app, "earlier", [cell(0, at, float(at % 2)) for at in range(40)])
    good = kept(app, "later", [cell(0, at) for at in range(30)], cases=30)
    page = show(open_page, address, f"run={good}")
    expect(page.locator("#run-head .rs-warn")).to_have_count(0)
    page.locator("#run-other input").click()
    page.get_by_role("option", name=bad).click()
    expect(page.locator("#run-head .rs-warn")).to_contain_text("different datasets, earlier@1 and later@1")
    contains = page.locator(".rs-figures tbody tr").nth(1).locator("td").first
    expect(contains.locator(".rs-delta")).to_have_text("▲ +50.0 points")


def test_a_better_figure_is_better_whatever_its_direction(open_page: Open, app: App, address: str) -> None:
    slow = [cell(0, at, latency_s=2.0) for at in range(40)]
    quick = [cell(1, at, latency_s=1.0) for at in range(40)]
    page = show(open_page, address, f"run={kept(app, 'quick', slow, quick)}")
    delta = page.locator(".rs-figures tbody tr").nth(1).locator(".rs-delta", has_text="1.00 s").first
    expect(delta).to_have_text("▲ −1.00 s")


def test_mark_up_in_cases_and_answers_is_text(open_page: Open, app: App, address: str) -> None:
    store, datasets = app.evaluations.runs, app.evaluations.datasets
    version = datasets.save(
        "marked", [case(0, question=NASTY, answers=(NASTY,), notes=NASTY)], by=NASTY, message=NASTY
    )
    plan = Plan(variants=(Variant(name=NASTY[:80]),), states=("",), corpus="handbook")
    run = store.begin(plan, name=NASTY, dataset="marked", version=version.version, sha256=version.sha256)
    store.keep(run.id, [cell(0, 0, answer=NASTY, rationale=NASTY)])
    store.end(run.id, "finished")
    page = show(open_page, address, f"run={run.id}&cell=0%3A0")
    expect(page.locator("#run-cell .rs-said")).to_have_text(NASTY)
    tab(page, "Evaluate", "Datasets")
    page.locator('.rs-run[data-value="marked"]').click()
    expect(page.locator(".rs-cases tbody tr")).to_have_count(1)
    assert page.title() == "ragsmith"
    assert page.locator("#evaluate img, #evaluate script, #datasets img").count() == 0


def test_the_report_opens_from_the_run(open_page: Open, app: App, address: str) -> None:
    run = kept(app, "reported", [cell(0, at) for at in range(40)])
    page = show(open_page, address, f"run={run}")
    href = page.locator("#run-head a", has_text="report").get_attribute("href")
    page.goto(f"{address}{href}")
    expect(page.locator("h1")).to_have_text("reported")


def test_what_retrieval_finds_becomes_a_case_and_a_question(page: Page, app: App) -> None:
    tab(page, "Evaluate", "Retrieval")
    page.locator("#bench-question textarea").fill(QUESTION)
    page.locator("#bench-search").click()
    expect(page.locator(".rs-hit").first).to_be_visible()
    page.locator(".rs-hit button").first.click()
    expect(page.locator(".rs-hit.is-on")).to_have_count(1)
    name = page.locator(".rs-hit.is-on .rs-name").inner_text()
    page.locator("#bench-dataset").locator("textarea, input").fill("from-the-bench")
    page.locator("#bench-save").click()
    expect(page.locator(".toast-body")).to_contain_text("from-the-bench@1")
    datasets = app.evaluations.datasets
    (found,) = datasets.cases(datasets.resolve("from-the-bench"))
    assert (found.question, found.sources) == (QUESTION, (name,))
    page.wait_for_url("**tab=retrieval**")
    page.locator("#bench-chat").click()
    expect(page.locator("#question textarea")).to_have_value(QUESTION)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("k=0", "from 1 to 1000, not '0'"),
        (f"k={'9' * 5000}", "from 1 to 1000, not '9999"),
        ("weight=nan", "from 0 to 1, not 'nan'"),
        ("mode=best", "hybrid, dense or lexical, not 'best'"),
        ("corpus=nope", "There is no corpus nope"),
    ],
    ids=["no passages", "countless passages", "no weight", "unknown mode", "unknown corpus"],
)
def test_a_search_that_an_address_cannot_name_is_one_warning_beside_its_question(
    open_page: Open, address: str, query: str, problem: str
) -> None:
    page = open_page(f"{address}/?tab=retrieval&q=traces&{query}", ready=settle)
    expect(page.locator(".toast-body")).to_have_count(1)
    expect(page.locator(".toast-body")).to_contain_text(problem)
    expect(page.locator("#bench-question textarea")).to_have_value("traces")
    expect(page.locator("#bench-corpus input")).to_have_value("handbook")


def test_an_address_of_a_run_that_is_gone_opens_the_list_of_runs(open_page: Open, address: str) -> None:
    page = open_page(f"{address}/?tab=evaluate&run=nope", ready=settle)
    expect(page.locator(".toast-body")).to_contain_text("There is no run 'nope'")
    expect(page.locator("#runs-left")).to_be_visible()


def test_one_warning_names_everything_of_a_run_that_an_address_names_in_vain(
    open_page: Open, app: App, address: str
) -> None:
    run = kept(app, "outdated", [cell(0, at) for at in range(40)])
    page = show(open_page, address, f"run={run}&baseline=7&other=gone&cell=0:99")
    expect(page.locator(".toast-body")).to_have_count(1)
    expect(page.locator(".toast-body")).to_contain_text(
        f"The run {run} has no variant 7 and no run 'gone' to compare with and no answer '0:99'"
    )


def test_a_dataset_has_an_address_and_one_that_is_gone_is_named(open_page: Open, app: App, address: str) -> None:
    page = open_page()
    tab(page, "Evaluate", "Datasets")
    page.locator('.rs-run[data-value="dozen"]').click()
    page.wait_for_url("**?tab=datasets&dataset=dozen")
    page.reload()
    expect(page.locator(".rs-cases tbody tr")).to_have_count(CASES)
    page.goto(f"{address}/?tab=datasets&dataset=nope")
    expect(page.locator(".toast-body")).to_contain_text("nope")
    expect(page.locator("#dataset-list")).to_be_visible()


def test_a_dataset_is_archived_unless_an_unfinished_run_needs_it(open_page: Open, app: App, address: str) -> None:
    app.evaluations.runs.end(kept(app, "asked", [], cases=2), "stopped")
    app.evaluations.datasets.save("idle", [case(1)], by="a test", message="")
    page = open_page(f"{address}/?tab=datasets&dataset=asked", ready=lambda page: None)
    expect(page.locator("#case-list")).to_contain_text("asked@1")
    page.locator("#dataset-archive").click()
    expect(page.locator(".toast-body")).to_contain_text("is not finished and asks its cases")
    page.locator('.rs-run[data-value="idle"]').click()
    expect(page.locator("#case-list")).to_contain_text("idle@1")
    page.locator("#dataset-archive").click()
    expect(page.locator('.rs-run[data-value="idle"]')).to_have_count(0)
    assert app.stores.dataset_archive.archived() == ["idle"]


def test_an_answer_is_kept_as_a_case_with_one_click_and_completed(page: Page, app: App) -> None:
    page.locator("#new").click()
    expect(page.locator(".rs-answer")).to_have_count(0)
    ask(page, QUESTION)
    wait_for_answers(page, 1)
    expect(page.locator(".rs-foot").last).to_contain_text("+ case")
    page.locator(".rs-foot button", has_text="+ case").last.click()
    expect(page.locator(".toast-body")).to_contain_text(f"{SAVED}@1")
    tab(page, "Evaluate", "Datasets")
    page.locator(f'.rs-run[data-value="{SAVED}"]').click()
    page.locator(".rs-cases button", has_text=QUESTION).click()
    expect(page.locator("#case-sources textarea")).not_to_have_value("")
    page.locator("#case-answers textarea").fill("It ends an answer early.")
    page.locator("#case-save").click()
    expect(page.locator(".rs-cases")).to_contain_text("It ends an answer early.")
    datasets = app.evaluations.datasets
    assert [each.answers for each in datasets.cases(datasets.resolve(f"{SAVED}@2"))] == [
        ("It ends an answer early.",)
    ]


def test_a_file_is_previewed_with_its_bad_rows_before_it_is_saved(page: Page, app: App, tmp_path: Path) -> None:
    file = tmp_path / "faq.jsonl"
    rows = [{"question": "Why?", "answers": ["So."]}, {"question": ""}, {"question": "How?", "colour": "red"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tab(page, "Evaluate", "Datasets")
    page.locator("#import-cases .label-wrap").click()
    page.locator("#import-name").locator("textarea, input").fill("imported")
    page.locator("#import-cases input[type=file]").set_input_files(file)
    preview = page.locator("#import-preview")
    expect(preview).to_contain_text("2 valid")
    expect(preview).to_contain_text("row 2:")
    expect(preview).to_contain_text("colour")
    assert app.evaluations.datasets.newest("imported") is None
    page.locator("#import-save").click()
    expect(page.locator("#case-list")).to_contain_text("imported@1")
    assert app.evaluations.datasets.resolve("imported").size == 2


def test_a_proposed_case_is_accepted_or_rejected(page: Page, app: App) -> None:
    from rag.evaluation.candidates import CandidateStore

    store = CandidateStore(app.stores.engine)
    store.put("proposed", [case(0), case(1)])
    app.evaluations.datasets.save("proposed", [case(9)], by="a test", message="")
    tab(page, "Evaluate", "Datasets")
    page.locator('.rs-run[data-value="proposed"]').click()
    expect(page.locator(".rs-candidate")).to_have_count(2)
    page.locator(".rs-candidate", has_text="Question 0?").get_by_role("button", name="Accept").click()
    expect(page.locator(".rs-candidate")).to_have_count(1)
    page.locator(".rs-candidate").get_by_role("button", name="Reject").click()
    expect(page.locator(".rs-candidate")).to_have_count(0)
    datasets = app.evaluations.datasets
    assert [each.id for each in datasets.cases(datasets.resolve("proposed"))] == ["c9", "c0"]
    assert store.put("proposed", [case(1)]) == 0


def test_what_was_chosen_for_a_new_run_stays(open_page: Open, app: App, address: str) -> None:
    run = kept(app, "beside", [cell(0, at) for at in range(40)])
    page = show(open_page, address, f"run={run}")
    page.locator("#new-run .label-wrap").click()
    dataset = page.locator("#new-run-dataset input")
    expect(dataset).not_to_have_value("")
    other = "dozen@1" if dataset.input_value() != "dozen@1" else "beside@1"
    dataset.click()
    page.get_by_role("option", name=other).click()
    tab(page, "Chat")
    with page.expect_response("**/queue/join*"):
        tab(page, "Evaluate")
    page.locator(f'.rs-run[data-value="{run}"]').click()
    expect(page.locator(".rs-figures")).to_be_visible()
    settle(page)
    expect(dataset).to_have_value(other)


def test_a_mistake_in_a_new_run_is_one_sentence_and_loses_nothing(page: Page) -> None:
    tab(page, "Evaluate")
    page.locator("#new-run .label-wrap").click()
    page.locator("#new-run-dataset input").click()
    page.get_by_role("option", name="dozen@1").click()
    page.locator("#new-run-variants textarea").fill("a: retrieval.k=0")
    page.locator("#new-run-start").click()
    expect(page.locator(".toast-body")).to_contain_text("retrieval.k")
    expect(page.locator("#new-run-variants textarea")).to_have_value("a: retrieval.k=0")
