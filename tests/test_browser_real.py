"""The chat page in a real browser with everything behind it real: encoder, indexes, reader, stores, W&B."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from chromium import Chromium, Open, ask, wait_for_answers, wait_until_ready, windows
from live_server import running
from playwright.sync_api import Page, expect
from scripted_app import pdf
from scripted_openai import Received, Reply, scripted_openai

from rag.settings import Settings
from ui.app.app import App, open_app
from ui.pages.chat.chat_layout import EXAMPLES

QUESTION = "How are the two searches combined?"
SENTENCE = "merges the two result lists into one"


@pytest.fixture(scope="module")
def app(handbook_home: Path) -> Iterator[App]:
    made = open_app(Settings(home=handbook_home))
    yield made
    made.close()


@pytest.fixture
def page(open_page: Open, app: App) -> Page:
    for conversation in app.stores.conversations.list(limit=100).conversations:
        app.stores.conversations.delete(conversation.id)
    opened = open_page()
    expect(opened.locator(".example")).to_have_count(3)
    return opened


def test_a_citation_of_the_handbook_opens_at_the_marked_sentence(page: Page, app: App) -> None:
    ask(page, QUESTION)
    wait_for_answers(page, 1)
    expect(page.locator(".rs-answered .rs-text")).to_contain_text(SENTENCE)
    page.locator("a.rs-cite").first.click()
    mark = page.frame_locator("#rs-dialog iframe").locator("mark#cited")
    expect(mark).to_contain_text(SENTENCE)
    expect(mark).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(page.locator("#rs-dialog")).not_to_be_visible()
    assert SENTENCE in page.locator("#sources mark").first.inner_text()


def test_the_examples_are_answered(page: Page) -> None:
    for number, answer in enumerate(("does not need a GPU", SENTENCE, "nothing that was retrieved supports")):
        page.locator(".example").nth(number).click()
        wait_for_answers(page, 1)
        expect(page.locator(".rs-asked")).to_have_text(EXAMPLES[number])
        expect(page.locator(".rs-answered .rs-text")).to_contain_text(answer)
        assert page.locator("a.rs-cite").count() >= 1
        page.locator("#new").click()
        expect(page.locator(".example")).to_have_count(3)


def test_what_the_handbook_does_not_know_is_refused(page: Page) -> None:
    ask(page, "What is the capital of Mongolia?")
    wait_for_answers(page, 1)
    expect(page.locator(".rs-abstained .rs-badge")).to_have_text("Not in these documents")
    expect(page.locator("#sources .rs-head").first).to_have_text("Nearest passages", ignore_case=True)


def test_the_trace_has_every_step_and_the_thumb(page: Page, app: App) -> None:
    ask(page, QUESTION)
    wait_for_answers(page, 1)
    page.get_by_role("button", name="Like", exact=True).click()
    page.locator("#comment textarea").fill("Right.")
    page.locator("#comment textarea").press("Enter")
    expect(page.locator("#comment-row")).not_to_be_visible()
    page.locator("a.rs-trace").click()
    for step in ("condense", "retrieve", "prompt", "generate", "ground"):
        expect(page.locator(".rs-span-name", has_text=step).first).to_be_visible()
    expect(page.locator(".rs-said-of")).to_have_text("Right.")
    feedback = app.stores.traces.list(limit=1).traces[0].feedback
    assert feedback is not None
    assert (feedback.rating, feedback.comment) == ("up", "Right.")


def test_an_uploaded_pdf_is_answered_from_and_its_page_shown_marked(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "heron.pdf"
    lines = ["A survey", "The grey heron breeds on the northern island since 1987.", "It was counted in May."]
    file.write_bytes(pdf(["Contents"], lines))
    page.locator("#add .label-wrap").click()
    page.locator("#add-corpus input").fill("birds")
    page.locator("#add-corpus input").press("Enter")
    page.locator("input[type=file]").first.set_input_files(file)
    expect(page.locator("#progress")).to_contain_text("1 added")
    page.locator("#corpus input").click()
    page.get_by_role("option", name="birds").click()
    expect(page.locator(".example")).to_have_count(0)
    ask(page, "Since when does the grey heron breed on the northern island?")
    wait_for_answers(page, 1)
    expect(page.locator(".rs-answered .rs-text")).to_contain_text("since 1987")
    expect(page.locator("#sources .rs-name").first).to_have_text("heron.pdf p. 2")
    page.locator("a.rs-cite").first.click()
    frame = page.frame_locator("#rs-dialog iframe")
    image = frame.locator(".sheet img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.complete && image.naturalWidth > 1000")
    assert frame.locator(".sheet a#cited").count() == 1
    assert frame.locator(".note").count() == 0


def test_a_file_that_cannot_be_read_is_named_with_its_reason(page: Page, tmp_path: Path) -> None:
    good, broken = tmp_path / "good.md", tmp_path / "broken.pdf"
    good.write_text("# Tea\n\nGreen tea is brewed at eighty degrees.\n")
    broken.write_bytes(b"%PDF-1.4 nothing")
    page.locator("#add .label-wrap").click()
    page.locator("input[type=file]").first.set_input_files([good, broken])
    expect(page.locator("#progress .rs-problems li")).to_contain_text("broken.pdf")
    expect(page.locator("#progress")).to_contain_text("1 added")


def test_a_follow_up_is_understood(page: Page) -> None:
    ask(page, "What is reciprocal rank fusion?")
    wait_for_answers(page, 1)
    ask(page, "Why is it used?")
    wait_for_answers(page, 2)
    page.locator("a.rs-trace").last.click()
    page.locator(".rs-span summary", has_text="retrieve").first.click()
    expect(page.locator(".rs-span[open] pre").first).to_contain_text("fusion")


def test_conversations_survive_a_restart_of_everything(page: Page, browser: Chromium, handbook_home: Path) -> None:
    ask(page, "Is this one kept?")
    wait_for_answers(page, 1)
    shown = page.locator(".rs-answer").inner_html()
    app = open_app(Settings(home=handbook_home))
    try:
        with running(app) as second, windows(browser, second) as opened:
            again = opened()
            wait_until_ready(again)
            expect(again.locator(".rs-asked")).to_have_text("Is this one kept?")
            assert unescape(again.locator(".rs-answer").inner_html()) == unescape(shown)
    finally:
        app.close()


def test_stop_hangs_up_on_the_model(page: Page, browser: Chromium, handbook_home: Path) -> None:
    def script(reply: Reply, _received: Received) -> None:
        reply.head()
        reply.drip("and so on ", 0.05)

    with scripted_openai(script) as model:
        settings = Settings(home=handbook_home, model="openai:scripted-1", openai={"base_url": model.base_url})
        app = open_app(settings)
        try:
            with running(app) as at, windows(browser, at) as opened:
                window = opened()
                ask(window, QUESTION)
                expect(window.locator(".rs-draft .rs-text")).to_contain_text("and so on and so on")
                window.locator("#question .stop-button").click()
                expect(window.locator(".rs-cancelled .rs-badge")).to_have_text("Stopped")
                assert model.gone.wait(60)
                assert app.stores.traces.list(limit=1).traces[0].status == "cancelled"
        finally:
            app.close()


def test_the_corpora_are_told_by_the_api(address: str) -> None:
    listed = httpx.get(f"{address}/v1/models").json()["data"]
    assert {"ragsmith", "ragsmith/handbook"} <= {model["id"] for model in listed}
    assert httpx.get(f"{address}/healthz", timeout=60).json()["status"] == "ok"
