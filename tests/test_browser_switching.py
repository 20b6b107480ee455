"""Another conversation is shown while an answer is written, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import ask, last_answer, settle, wait_for_answers
from playwright.sync_api import Page, expect
from scripted_app import ScriptedApp, a_scripted_app
from tracked import wait_for


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApp]:
    yield from a_scripted_app(tmp_path_factory)


@pytest.fixture(autouse=True)
def _nothing_of_the_test_before(app: ScriptedApp) -> None:
    app.forget()


def test_another_conversation_is_shown_and_asked_while_an_answer_is_written(page: Page, app: ScriptedApp) -> None:
    ask(page, "Which came first?")
    wait_for_answers(page, 1)
    page.locator("#new").click()
    expect(page.locator(".rs-asked")).to_have_count(0)
    ask(page, "a slow but short answer")
    expect(page.locator(".rs-draft .rs-text")).to_contain_text("goes on and on")
    page.locator(".rs-open-conv", has_text="Which came first?").click()
    expect(page.locator(".rs-conv.is-on")).to_contain_text("Which came first?")
    expect(page.locator(".rs-asked")).to_have_text(["Which came first?"])
    expect(page.locator(".rs-draft")).to_have_count(0)
    # The pane stays, and answers, while the other answer goes on.
    ask(page, "And what came then?")
    wait_for_answers(page, 2)
    expect(page.locator(".rs-asked")).to_have_text(["Which came first?", "And what came then?"])
    assert [asked.question for asked in app.asked] == [
        "Which came first?",
        "a slow but short answer",
        "And what came then?",
    ]
    page.locator(".rs-open-conv", has_text="a slow but short answer").click()
    expect(page.locator(".rs-asked")).to_have_text(["a slow but short answer"])
    expect(page.locator(".rs-draft .rs-text")).to_contain_text("goes on and on")
    expect(page.locator("#question .stop-button")).to_be_visible()
    wait_for_answers(page, 1)
    assert not app.cancelled.is_set()
    assert last_answer(page).count("goes on and on") == 8


def test_an_answer_that_ends_while_another_conversation_is_shown_is_there_later(
    page: Page, app: ScriptedApp
) -> None:
    ask(page, "a slow but short answer")
    expect(page.locator(".rs-draft .rs-text")).to_contain_text("goes on and on")
    page.locator("#new").click()
    expect(page.locator(".rs-asked")).to_have_count(0)
    wait_for(lambda: app.stores.traces.list(limit=1).traces[0].status == "ok")
    settle(page)
    expect(page.locator(".rs-asked")).to_have_count(0)
    expect(page.locator(".example").first).to_be_visible()
    expect(page.locator("#question .submit-button")).to_be_visible()
    page.locator(".rs-open-conv", has_text="a slow but short answer").click()
    wait_for_answers(page, 1)
    assert last_answer(page).count("goes on and on") == 8
