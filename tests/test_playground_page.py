"""From a bad answer to a better prompt: the playground in a real browser, with everything behind it real."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chromium import Open, settle
from playwright.sync_api import Page, expect
from scripted_openai import ScriptedOpenAI, says, scripted_openai
from tiny import FOLLOW_UP, QUESTION, answered, open_tiny

from rag.evaluation.variants import Variant
from rag.types import Answer
from ui.app.app import App

REMOTE = "openai:scripted-1"
WORD, BETTER = "You answer questions", "You answer kindly all questions"


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedOpenAI]:
    with scripted_openai(says("The tide gauge was installed in 1871. [1]")) as server:
        yield server


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, converted_models: Path, model: ScriptedOpenAI) -> Iterator[App]:
    served = {"base_url": model.base_url, "max_retries": 0}
    made = open_tiny(tmp_path_factory.mktemp("playground"), converted_models, openai=served)
    yield made
    made.close()


@pytest.fixture(scope="module")
def original(app: App) -> Answer:
    """An answer with settings of its own, to a follow-up."""
    changes = {"model": REMOTE, "retrieval.k": 3, "retrieval.mode": "dense", "decoding.temperature": 0.2}
    variant = Variant(name="odd", changes=changes)
    asking = answered(app.releases.assistant(variant), QUESTION, history=FOLLOW_UP)
    # In a thread of its own: Playwright's loop runs in this one.
    with ThreadPoolExecutor(1) as side:
        return side.submit(asyncio.run, asking).result()


def show_trace(open_page: Open, address: str, trace_id: str) -> Page:
    def shows_the_trace(page: Page) -> None:
        expect(page.locator(".rs-trace-q")).to_have_text(QUESTION)

    return open_page(f"{address}/?trace={trace_id}", ready=shows_the_trace)


def test_a_trace_is_opened_changed_compared_saved_and_kept_as_a_case(
    open_page: Open, address: str, app: App, model: ScriptedOpenAI, original: Answer
) -> None:
    page = show_trace(open_page, address, original.trace_id)
    page.locator(".rs-trace-id .rs-playground").click()
    draft = page.locator("#lab-a-draft textarea")
    expect(draft).to_have_value(draft_of_answer(app))
    expect(page.locator("#lab-original-answer .rs-text")).to_contain_text("installed in 1871")
    expect(page.locator("#lab-a-model input")).to_have_value(REMOTE)
    expect(page.locator("#lab-a-passages input")).to_have_value("3")
    expect(page.locator("#lab-a-mode input")).to_have_value("dense")
    expect(page.locator("#lab-a-more textarea")).to_have_value("decoding.temperature=0.2")
    expect(page.locator("#lab-note")).to_contain_text("All columns read the 3 passages of the original answer")
    expect(page.locator("#lab-note")).to_contain_text("Asked with 1 earlier turn of its conversation.")
    settle(page)

    draft.fill(draft.input_value().replace(WORD, BETTER))
    draft.press("Control+Enter")
    expect(page.locator("#lab-a-answer .rs-lab-compared")).to_have_text(
        "Same answer as the original; steps that differ: prompt."
    )
    settle(page)
    sent = model.received[-1].body
    assert BETTER in sent["messages"][0]["content"]
    assert (sent["messages"][1], sent["temperature"]) == (model.received[-3].body["messages"][1], 0.2)
    again = app.stores.traces.list(limit=1).traces[0]
    assert (again.replay_of, again.purpose) == (original.trace_id, "lab")
    assert again.prompt.startswith("answer@draft-")
    expect(page.locator("#lab-a-answer .rs-foot")).to_contain_text(again.prompt)

    page.reload()
    expect(draft).to_have_value(draft_of_answer(app).replace(WORD, BETTER))
    expect(page.locator("#lab-original-answer .rs-text")).to_contain_text("installed in 1871")

    page.locator("#lab-a-review").click()
    expect(page.locator("#lab-a-changes .rs-change ins")).to_contain_text("kindly")
    page.locator("#lab-a-why textarea").fill("Kinder.")
    settle(page)
    page.locator("#lab-a-save").click()
    expect(page.locator("#lab-a-prompt input")).to_have_value("answer@2")
    expect(draft).to_be_hidden()
    saved = app.stores.prompts.load("answer@2")
    assert saved.saved is not None
    assert (saved.saved.message, BETTER in saved.messages[0].content) == ("Kinder.", True)

    page.locator("#lab-run").click()
    expect(page.locator("#lab-a-answer .rs-foot")).to_contain_text("answer@2")
    page.locator("#lab-a-answer .rs-case").click()
    expect(page.locator(".toast-body", has_text="Added to saved@1")).to_be_visible()
    settle(page)

    page = show_trace(open_page, address, original.trace_id)
    rate(page, "down", "Too curt.", "It was installed in 1871 by Ida Brandt.")
    expect(page.locator(".rs-row.is-on .rs-thumb.is-down")).to_be_visible()
    expect(page.locator(".rs-trace-view")).to_contain_text("Should be: It was installed in 1871 by Ida Brandt.")
    settle(page)
    rated = app.stores.traces.get(original.trace_id).feedback
    assert rated is not None
    assert (rated.rating, rated.comment, rated.review) == ("down", "Too curt.", "pending")

    page.locator("#trace-replay-all").click()
    about = page.locator("#trace-replay-about")
    expect(about).to_contain_text(re.compile(r"1 question of 1 trace, .*: about \d+(\.\d)? m?s for each variant"))
    page.locator("#trace-replay-variants textarea").fill("now:\none: retrieval.k=1")
    settle(page)
    page.locator("#trace-replay-start").click()
    expect(about).to_contain_text("finished")
    expect(page.locator("#trace-replay-stop")).to_be_hidden()
    (run,) = app.evaluations.runs.list()
    assert ([one.name for one in run.plan.variants], run.dataset) == (["now", "one"], "replayed")
    (case,) = app.stores.datasets.cases(app.evaluations.dataset_of(run))
    assert (case.question, len(case.history), case.answers) == (QUESTION, 1, (rated.correction,))
    expect(about.locator("a")).to_have_attribute("href", f"?tab=evaluate&run={run.id}")


def rate(page: Page, rating: str, comment: str, correction: str) -> None:
    page.locator(".rs-rating > summary").click()
    page.locator(f".rs-rating input[value={rating}]").check()
    page.locator(".rs-rating textarea[name=comment]").fill(comment)
    page.locator(".rs-rating textarea[name=correction]").fill(correction)
    page.locator(".rs-rate").click()


def draft_of_answer(app: App) -> str:
    from prompts.files import as_draft

    return as_draft(app.stores.prompts.load("answer@1"))
