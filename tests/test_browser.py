"""The chat page in a real browser, against a real server whose answers are scripted."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from chromium import Chromium, Open, ask, hear, last_answer, settle, taken_back, wait_for_answers, wait_until_ready
from live_server import running
from playwright.sync_api import Page, expect
from scripted_app import SENTENCE, Health, ScriptedApp, a_scripted_app

from rag.tracing.trace_store import Trace


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApp]:
    yield from a_scripted_app(tmp_path_factory)


@pytest.fixture(autouse=True)
def _nothing_of_the_test_before(app: ScriptedApp) -> None:
    app.forget()


def test_a_question_is_answered_with_its_sources(page: Page) -> None:
    ask(page, "How long is a passage?")
    wait_for_answers(page, 1)
    foot = page.locator(".rs-foot").inner_text()
    assert re.fullmatch(
        r"(\d+ ms|\d+\.\d s) · 812 tok · \$0\.00010 · answer@1 · trace ↗ · \+ case · playground · copy", foot
    )
    assert page.locator("#sources mark").all_inner_texts() == [SENTENCE]
    page.locator("#sources .rs-scores summary").first.click()
    expect(page.locator("#sources .rs-scores dl").first).to_be_visible()
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(page.locator(".rs-rest summary").first).to_contain_text("Retrieved, not cited (1)")
    expect(page.locator(".rs-conv.is-on")).to_contain_text("How long is a passage?")
    expect(page.locator("#question textarea")).to_have_value("")


def test_what_an_answer_shows_is_said_again_for_pages_that_are_slow_to_show_it(page: Page) -> None:
    hear(page)
    ask(page, "How long is a passage?")
    wait_for_answers(page, 1)
    assert taken_back(page) == []


def test_what_adding_shows_is_said_again_for_pages_that_are_slow_to_show_it(
    page: Page, app: ScriptedApp, tmp_path: Path
) -> None:
    app.ingest_seconds = 1
    hear(page)
    page.locator("#add .label-wrap").click()
    page.locator("#folder textarea, #folder input").fill(str(tmp_path))
    page.locator("#add-folder").click()
    expect(page.locator("#progress")).to_contain_text("1 added")
    assert taken_back(page) == []


def test_no_event_reports_its_progress_to_what_it_writes(address: str) -> None:
    events = httpx.get(f"{address}/config").json()["dependencies"]
    assert [event["targets"] for event in events if event["show_progress_on"] != []] == []


def test_a_question_that_is_too_long_stays_in_the_input_line(page: Page, app: ScriptedApp) -> None:
    ask(page, "word " * 2_000)
    expect(page.get_by_text("8,000 are allowed")).to_be_visible()
    assert len(page.locator("#question textarea").input_value()) == 10_000
    assert app.asked == []


def test_a_notice_does_not_lie_under_the_strip(open_page: Open, app: ScriptedApp) -> None:
    app.health_now = Health(notices=("The index of the corpus bees is damaged.", "Something else is, too."))
    page = open_page()
    notice = page.locator(".rs-notice").last.bounding_box()
    strip = page.locator("#strip .rs-strip").bounding_box()
    assert notice is not None
    assert strip is not None
    assert strip["y"] >= notice["y"] + notice["height"]
    expect(page.locator("#strip .rs-strip")).to_be_in_viewport()


def test_the_strip_names_the_index_of_the_corpus_that_the_chat_asks(page: Page) -> None:
    expect(page.locator("#strip .rs-strip")).to_contain_text("handbook: 310 passages")
    page.locator("#corpus input").click()
    page.get_by_role("option", name="reports").click()
    expect(page.locator("#strip .rs-strip")).to_contain_text("reports: 12 passages")


def test_a_citation_opens_at_the_marked_sentence_in_a_tab_or_over_the_page(page: Page) -> None:
    ask(page, "How long is a passage?")
    wait_for_answers(page, 1)
    with page.context.expect_page() as opened:
        page.locator("a.rs-cite").first.click(modifiers=["Control"])
    expect(opened.value.locator("mark#cited")).to_have_text(SENTENCE)
    assert page.locator("#rs-dialog").count() == 0
    page.locator("a.rs-cite").first.click()
    frame = page.frame_locator("#rs-dialog iframe")
    expect(frame.locator("mark#cited")).to_have_text(SENTENCE)
    expect(frame.locator("mark#cited")).to_be_in_viewport()
    frame.locator("body").press("Escape")
    expect(page.locator("#rs-dialog")).not_to_be_visible()


def test_a_citation_of_a_pdf_opens_the_image_of_its_page(page: Page, app: ScriptedApp) -> None:
    page.locator("#corpus input").click()
    page.get_by_role("option", name="reports").click()
    ask(page, "How were sales?")
    wait_for_answers(page, 1)
    page.locator("a.rs-cite").first.click()
    image = page.frame_locator("#rs-dialog iframe").locator(".sheet img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.complete && image.naturalWidth > 1000")
    assert app.asked[-1].corpus == "reports"


def test_stop_stops_the_work_and_keeps_what_was_written(page: Page, app: ScriptedApp) -> None:
    ask(page, "a slow answer")
    expect(page.locator(".rs-draft .rs-text")).to_contain_text("goes on and on")
    page.locator("#question .stop-button").click()
    wait_for_answers(page, 1)
    assert app.cancelled.wait(60)
    assert page.locator(".rs-cancelled .rs-badge").inner_text() == "Stopped"
    assert "goes on and on" in last_answer(page)
    assert app.stores.traces.list(limit=1).traces[0].status == "cancelled"
    expect(page.locator("#question .submit-button")).to_be_visible()
    # The conversation goes on.
    ask(page, "How long is a passage?")
    wait_for_answers(page, 2)


def test_closing_the_page_stops_the_work(page: Page, app: ScriptedApp, open_page: Open) -> None:
    ask(page, "a slow answer")
    expect(page.locator(".rs-draft .rs-text")).to_contain_text("goes on and on")
    page.close()
    assert app.cancelled.wait(60)
    again = open_page()
    expect(again.locator(".rs-cancelled .rs-badge")).to_have_text("Stopped")


def test_a_question_that_is_sent_twice_is_asked_once(page: Page, app: ScriptedApp) -> None:
    page.locator("#question textarea").fill("a slow but short answer")
    page.locator("#question .submit-button").evaluate("button => { button.click(); button.click(); }")
    wait_for_answers(page, 1)
    assert len(app.asked) == 1


def test_a_thumb_and_its_comment_are_stored_beside_the_trace(page: Page, app: ScriptedApp) -> None:
    ask(page, "How long is a passage?")
    wait_for_answers(page, 1)
    page.get_by_role("button", name="Dislike").click()
    page.locator("#comment textarea").fill("It cites the old list.")
    page.locator("#correction textarea").fill("A passage has 200 tokens.")
    page.locator("#save-comment").click()
    expect(page.locator("#comment-row")).not_to_be_visible()
    trace = app.stores.traces.list(limit=1).traces[0]
    assert trace.feedback is not None
    assert (trace.feedback.rating, trace.feedback.comment) == ("down", "It cites the old list.")
    assert trace.feedback.correction == "A passage has 200 tokens."
    page.reload()
    expect(page.get_by_role("button", name="Disliked")).to_be_visible()
    page.get_by_role("button", name="Disliked").click()
    for _ in range(50):
        if app.stores.traces.list(limit=1).traces[0].feedback is None:
            break
        time.sleep(0.1)
    assert app.stores.traces.list(limit=1).traces[0].feedback is None


def test_an_edited_question_replaces_itself_and_what_followed(page: Page, app: ScriptedApp) -> None:
    for number in range(3):
        ask(page, f"Question {number}?")
        wait_for_answers(page, number + 1)
    page.locator(".user-row").nth(1).hover()
    page.locator(".rs-edit").nth(1).click()
    expect(page.locator(".rs-editing")).to_be_visible()
    expect(page.locator("#question textarea")).to_have_value("Question 1?")
    ask(page, "Another question?")
    wait_for_answers(page, 2)
    assert page.locator(".rs-asked").all_inner_texts() == ["Question 0?", "Another question?"]
    assert [turn.question for turn in app.asked[-1].history] == ["Question 0?"]
    expect(page.locator(".rs-editing")).not_to_be_visible()


def test_an_edit_can_be_given_up(page: Page) -> None:
    ask(page, "Question 0?")
    wait_for_answers(page, 1)
    page.locator(".user-row").hover()
    page.locator(".rs-edit").click()
    page.locator("#question textarea").press("Escape")
    expect(page.locator(".rs-editing")).not_to_be_visible()
    ask(page, "Question 1?")
    wait_for_answers(page, 2)


def test_regenerate_asks_the_last_question_again(page: Page, app: ScriptedApp) -> None:
    ask(page, "Question 0?")
    wait_for_answers(page, 1)
    before = page.locator(".rs-trace").get_attribute("href")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".rs-trace")).not_to_have_attribute("href", before or "")
    wait_for_answers(page, 1)
    assert [each.question for each in app.asked] == ["Question 0?", "Question 0?"]
    assert app.stores.traces.list(limit=5).total == 2


def test_a_reload_keeps_the_conversation(page: Page, app: ScriptedApp) -> None:
    ask(page, "First conversation?")
    wait_for_answers(page, 1)
    page.locator("#new").click()
    expect(page.locator(".example").first).to_be_visible()
    ask(page, "Second conversation?")
    wait_for_answers(page, 1)
    page.locator(".rs-open-conv", has_text="First conversation?").click()
    expect(page.locator(".rs-asked")).to_have_text("First conversation?")
    settle(page)
    page.reload()
    expect(page.locator(".rs-asked")).to_have_text("First conversation?")
    assert page.locator("#sources mark").count() == 1
    assert app.stores.conversations.list(limit=5).total == 2


def test_the_address_names_the_conversation(page: Page) -> None:
    ask(page, "Question 0?")
    wait_for_answers(page, 1)
    page.wait_for_url("**/?conversation=*")
    first = page.url
    page.locator("#new").click()
    expect(page.locator(".rs-asked")).to_have_count(0)
    expect(page).to_have_url(first.partition("?")[0])
    ask(page, "Question 1?")
    wait_for_answers(page, 1)
    settle(page)
    page.goto(first)
    expect(page.locator(".rs-asked")).to_have_text("Question 0?")
    page.get_by_role("tab", name="Traces").click()
    expect(page).to_have_url(first.partition("?")[0])
    page.get_by_role("tab", name="Chat").click()
    expect(page).to_have_url(first)


def test_conversations_are_renamed_and_deleted(page: Page, app: ScriptedApp) -> None:
    ask(page, "Question 0?")
    wait_for_answers(page, 1)
    page.locator(".rs-conv").hover()
    page.locator(".rs-rename").click()
    page.locator(".rs-rename-box").fill("A <b>better</b> name")
    page.locator(".rs-rename-box").press("Enter")
    expect(page.locator(".rs-conv-title")).to_have_text("A <b>better</b> name")
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator(".rs-conv").hover()
    page.locator(".rs-delete").click()
    expect(page.locator(".rs-conv")).to_have_count(0)
    expect(page.locator(".example").first).to_be_visible()
    assert app.stores.conversations.list(limit=1).total == 0


def test_a_click_on_an_earlier_answer_brings_back_its_sources(page: Page) -> None:
    ask(page, "How long is a passage?")
    wait_for_answers(page, 1)
    ask(page, "an unknown thing")
    wait_for_answers(page, 2)
    expect(page.locator("#sources .rs-head").first).to_have_text("Nearest passages", ignore_case=True)
    page.locator(".rs-answer").first.click()
    expect(page.locator("#sources mark")).to_have_text(SENTENCE)


def test_an_answer_looks_like_what_became_of_it(page: Page) -> None:
    for count, (question, look, text) in enumerate(
        (
            ("please fail", "rs-failed", "The model server did not answer within 60 seconds."),
            ("please raise", "rs-failed", "The model server does not answer. Start it."),
            ("an unknown thing", "rs-abstained", "Not in these documents"),
        ),
        1,
    ):
        ask(page, question)
        wait_for_answers(page, count)
        expect(page.locator(f".{look}").last).to_contain_text(text)
    assert "Traceback" not in page.content()


def test_an_answer_that_a_crash_cut_off_is_shown_as_interrupted(app: ScriptedApp, open_page: Open) -> None:
    app.stores.conversations.append(app.stores.conversations.new("handbook"), "Lost?")
    page = open_page()
    expect(page.locator(".rs-interrupted .rs-badge")).to_have_text("Interrupted")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".rs-answered")).to_be_visible()


def test_hostile_text_does_nothing(page: Page) -> None:
    ask(page, "a hostile one <img src=http://example.org/q.png> __init__ ${x} {{y}} [a](javascript:alert(1))")
    wait_for_answers(page, 1)
    assert page.locator(".rs-asked").inner_text().endswith("__init__ ${x} {{y}} [a](javascript:alert(1))")
    assert page.title() != "owned"
    assert page.locator("#chatbot .rs-text img, #sources img, #chatbot .rs-text script").count() == 0
    hrefs = page.locator("#chatbot a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert all(href.startswith(("/documents/", "/?trace=")) for href in hrefs)
    expect(page.locator(".rs-warn")).to_contain_text("Low support")
    assert "${alert(1)} {{value}} @children" in last_answer(page)
    page.locator("a.rs-trace").click()
    expect(page.locator(".rs-trace-view")).to_contain_text("<script>document.title='owned'</script>")
    assert page.title() != "owned"


def test_the_three_examples_are_there_on_a_fresh_start_and_work(page: Page) -> None:
    expect(page.locator(".example")).to_have_count(3)
    page.locator(".example").nth(1).click()
    wait_for_answers(page, 1)
    expect(page.locator(".example")).to_have_count(0)


def test_copy_takes_the_answer_without_its_footer(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "How long is a passage?")
    wait_for_answers(page, 1)
    page.locator(".rs-copy").click()
    expect(page.locator(".rs-copy")).to_have_text("copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert f"{SENTENCE} [1] There is no overlap [2]." in copied
    assert "812 tok" not in copied


def test_the_trace_of_an_answer_has_an_address_and_opens_in_its_tab(page: Page) -> None:
    ask(page, "How long is a passage?")
    wait_for_answers(page, 1)
    with page.context.expect_page() as opened:
        page.locator("a.rs-trace").click(modifiers=["Control"])
    expect(opened.value.locator(".rs-trace-q")).to_have_text("How long is a passage?")
    page.locator("a.rs-trace").click()
    expect(page.locator(".rs-trace-q")).to_have_text("How long is a passage?")
    expect(page.locator("tr.rs-row.is-on")).to_have_count(1)
    page.wait_for_url("**/?trace=*")
    page.reload()
    expect(page.locator(".rs-trace-q")).to_have_text("How long is a passage?")
    page.wait_for_url("**/?trace=*")
    page.locator(".rs-span summary", has_text="retrieve").click()
    page.locator(".rs-span[open] .rs-raw > summary").click()
    expect(page.locator(".rs-span[open] .rs-raw pre").first).to_contain_text('"query": "How long is a passage?"')


def test_traces_are_filtered_and_paged_and_counted(page: Page, app: ScriptedApp) -> None:
    for number in range(60):
        app.stores.traces.save(
            Trace(f"trace-{number:04d}", 1000.0 + number, "ok" if number % 3 else "error", f"Question {number}?")
        )
    page.get_by_role("tab", name="Traces").click()
    expect(page.locator(".rs-count")).to_have_text("1–50 of 60")
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".rs-count")).to_have_text("51–60 of 60")
    page.get_by_role("button", name="Previous").click()
    expect(page.locator(".rs-count")).to_have_text("1–50 of 60")
    box = page.locator("#trace-text input, #trace-text textarea")
    box.fill("question ~ 5 and stauts = error")
    box.press("Enter")
    expect(page.locator("#trace-error u")).to_have_text("stauts")
    expect(page.locator("#trace-error")).to_contain_text("Did you mean status?")
    expect(page.locator(".rs-count")).to_have_text("1–50 of 60")
    box.fill("question ~ 5")
    box.press("Enter")
    expect(page.locator(".rs-count")).to_have_text("1–15 of 15")
    expect(page.locator("#trace-error u")).to_have_count(0)
    page.locator(".rs-chip", has_text="Errors").click()
    expect(page.locator(".rs-count")).to_have_text("1–5 of 5")
    expect(box).to_have_value("question contains 5 and status = error")


def test_the_figures_of_the_list_of_traces_are_never_truncated(page: Page, app: ScriptedApp) -> None:
    app.stores.traces.save(Trace("cheap", 2.0, "ok", "Cheap?", latency_s=0.258, cost_usd=0.00001))
    app.stores.traces.save(Trace("unknown", 1.0, "ok", "Unknown?"))
    page.get_by_role("tab", name="Traces").click()
    expect(page.locator(".rs-row")).to_have_count(2)
    for width in (1440, 1024):
        page.set_viewport_size({"width": width, "height": 768})
        truncated = (
            "cells => cells.filter(cell => cell.scrollWidth > cell.clientWidth).map(cell => cell.innerText)"
        )
        assert page.locator(".rs-row td:not(.rs-qa)").evaluate_all(truncated) == []


def test_files_are_uploaded_ingested_and_kept(page: Page, app: ScriptedApp, tmp_path: Path) -> None:
    app.ingest_seconds = 1.5
    good, empty = tmp_path / "notes.md", tmp_path / "empty.md"
    good.write_text("# Notes\n")
    empty.write_text("")
    page.locator("#add .label-wrap").click()
    page.locator("#add-corpus input").fill("mine")
    page.locator("#add-corpus input").press("Enter")
    page.locator("#upload input[type=file], input[type=file]").first.set_input_files([good, empty])
    expect(page.locator("#progress")).to_contain_text("of 10 files")
    expect(page.locator("#progress")).to_contain_text("passages/s")
    expect(page.locator("#progress")).to_contain_text("1 added · 12 passages")
    expect(page.locator(".rs-problems li")).to_have_text("empty.md is empty")
    corpus, paths = app.ingested[-1]
    kept = app.workspace.uploads / "mine"
    assert corpus == "mine"
    assert sorted(paths) == [kept / "empty.md", kept / "notes.md"]
    assert (kept / "notes.md").read_text() == "# Notes\n"


def test_adding_is_seen_and_stopped_from_another_window(
    page: Page, open_page: Open, app: ScriptedApp, tmp_path: Path
) -> None:
    # Longer than any wait for the page: it is stopped.
    app.ingest_seconds = 600
    page.locator("#add .label-wrap").click()
    page.locator("#folder textarea, #folder input").fill(str(tmp_path))
    page.locator("#add-folder").click()
    expect(page.locator("#progress")).to_contain_text("of 10 files")
    again = open_page()
    again.locator("#add .label-wrap").click()
    expect(again.locator("#progress")).to_contain_text("of 10 files")
    again.locator("#stop-adding").click()
    expect(again.locator("#progress")).to_contain_text("Stopped")
    expect(page.locator("#progress")).to_contain_text("Stopped")
    assert app.ingested == [("handbook", [tmp_path])]


def test_the_sources_can_be_folded_away(page: Page) -> None:
    wide = page.locator("#centre").bounding_box()
    page.locator(".rs-fold").click()
    expect(page.locator("#sources")).not_to_be_visible()
    wider = page.locator("#centre").bounding_box()
    assert wide is not None
    assert wider is not None
    assert wider["width"] > wide["width"] + 200


def test_a_page_waits_for_its_server_and_goes_on(browser: Chromium, app: ScriptedApp) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        with running(app) as first:
            page.goto(first)
            wait_until_ready(page)
            ask(page, "Question 0?")
            wait_for_answers(page, 1)
        expect(page.locator("#rs-lost")).to_be_visible()
        expect(page.locator(".rs-asked")).to_be_visible()
        page.locator("#question textarea").fill("half a quest")
        with running(app, urlsplit(first).port or 0):
            expect(page.locator("#rs-lost")).to_have_count(0)
            wait_until_ready(page)
            expect(page.locator(".rs-asked")).to_have_text("Question 0?")
            expect(page.locator("#question textarea")).to_have_value("half a quest")
            ask(page, "Question 1?")
            wait_for_answers(page, 2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_at_usual_widths(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    ask(page, "How long is a passage?")
    wait_for_answers(page, 1)
    for width in (1440, 1024):
        page.set_viewport_size({"width": width, "height": 768})
        page.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")
        page.wait_for_function("document.documentElement.scrollHeight <= window.innerHeight + 1")
        for part in ("#left", "#centre", "#right", "#question", "#strip"):
            box = page.locator(part).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width + 1
        states = page.locator(".rs-state > span")
        assert all(states.evaluate_all("texts => texts.map(text => text.scrollWidth <= text.clientWidth)"))
    assert "Gradio" not in page.locator("body").inner_text()


def test_a_message_shows_the_html_of_a_link_as_text(page: Page, address: str) -> None:
    page.goto(
        f"{address}/?trace=%3Ch1%3EExpired%3C%2Fh1%3E%3Ca%20href%3D%22http%3A%2F%2Fx%22%3ESign%20in%3C%2Fa%3E"
    )
    message = page.locator(".toast-body").first
    expect(message).to_contain_text("<h1>Expired</h1>")
    assert message.locator("h1, a").count() == 0


@pytest.mark.parametrize(
    ("query", "problem", "shown"),
    [
        ("tab=nowhere", "The page has no tab 'nowhere'", "#question"),
        ("conversation=nope", "There is no such conversation", "#question"),
        ("trace=nope", "nope", "#trace-rows"),
    ],
)
def test_an_address_of_something_that_is_gone_opens_its_tab_with_one_warning(
    open_page: Open, address: str, query: str, problem: str, shown: str
) -> None:
    page = open_page(f"{address}/?{query}", ready=settle)
    expect(page.locator(".toast-body")).to_have_count(1)
    expect(page.locator(".toast-body")).to_contain_text(problem)
    expect(page.locator(shown)).to_be_visible()
