"""The traces tab in a real browser: from "it was wrong yesterday, and slow" to the step that did it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from chromium import Open, settle
from playwright.sync_api import Page, expect
from scripted_app import ScriptedApp
from stored_traces import BAD, store_days

from ui.app.app import App


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    made = ScriptedApp(tmp_path_factory.mktemp("traces"))
    store_days(made.stores.traces)
    yield made
    made.close()


@pytest.fixture
def page(open_page: Open, address: str) -> Page:
    opened = open_page(f"{address}/?tab=traces", ready=settle)
    expect(opened.locator(".rs-row").first).to_be_visible()
    return opened


def count(page: Page, shown: str) -> None:
    expect(page.locator("#trace-count .rs-count span").first).to_have_text(shown)


def test_yesterdays_slow_thumbs_down_is_found_by_chips_and_its_slow_step_is_seen(page: Page) -> None:
    count(page, "1–50 of 56")
    expect(page.locator("#trace-count")).to_contain_text("6 hidden: evaluation and lab")
    page.locator(".rs-chip", has_text="Yesterday").click()
    page.locator(".rs-chip[title='feedback = down']").click()
    page.locator(".rs-chip", has_text="Slow").click()
    count(page, "1–1 of 1")
    expect(page.locator("#trace-text textarea, #trace-text input")).to_have_value(
        re.compile(r"feedback = down and latency >= \d+(\.\d)?s")
    )
    page.locator(".rs-row").click()
    expect(page.locator(".rs-trace-view")).to_contain_text("It says 300, the handbook says 200.")
    slow = page.locator(".rs-span:has(.rs-bar.is-hot) .rs-span-name")
    expect(slow).to_have_text("ChatOpenAI")
    page.locator(".rs-span > summary", has_text="ChatOpenAI").click()
    expect(page.locator(".rs-span[open]")).to_contain_text("of these cached")
    settle(page)
    page.wait_for_url(f"**/?trace={BAD}*")
    page.reload()
    expect(page.locator(".rs-trace-view")).to_contain_text("It says 300")
    count(page, "1–1 of 1")
    expect(page.locator(".rs-chip.is-on")).to_have_count(3)
    assert "range=yesterday" in page.url


def test_a_citation_leads_to_its_passage_and_the_passage_to_its_other_answers(page: Page, address: str) -> None:
    page.goto(f"{address}/?trace={BAD}")
    page.locator(".rs-ref").click()
    card = page.locator("#rs-passage-1")
    expect(card.locator(".rs-passage")).to_be_visible()
    expect(card).to_contain_text("cited in the answer")
    expect(page.locator(".rs-span[open]")).to_contain_text("Found, but left out (1)")
    card.locator("summary").first.click()
    page.locator(".rs-steps-head button", has_text="Timeline").click()
    expect(page.locator(".rs-tree.is-timeline")).to_be_visible()
    assert "steps=timeline" in page.url
    page.locator(".rs-trace-bar button", has_text="conversation").click()
    expect(page.locator(".rs-answers > li")).to_have_count(2)
    page.locator(".rs-answers .rs-open-trace", has_text="Are you sure?").click()
    expect(page.locator(".rs-trace-q")).to_have_text("Are you sure?")


def test_two_traces_are_compared(page: Page, address: str) -> None:
    page.goto(f"{address}/?trace={BAD}")
    page.locator(".rs-trace-bar button", has_text="compare").click()
    expect(page.locator(".rs-trace-bar")).to_contain_text("choose another trace")
    page.locator("#trace-text textarea, #trace-text input").fill(
        "started > 4d and prompt = answer@1 and not error"
    )
    page.locator("#trace-text textarea, #trace-text input").press("Enter")
    page.locator(".rs-row").nth(1).click()
    expect(page.locator(".rs-compared")).to_contain_text("answer@2")
    settle(page)
    assert f"compare={BAD}" in page.url
    page.reload()
    expect(page.locator(".rs-compared")).to_contain_text("answer@2")


def test_charts_zoom_and_headers_sort_and_the_address_keeps_both(page: Page) -> None:
    slots = page.locator(".rs-chart").first.locator(".rs-slot")
    first, last = slots.first.bounding_box(), slots.nth(20).bounding_box()
    assert first is not None
    assert last is not None
    page.mouse.move(first["x"] + 1, first["y"] + 20)
    page.mouse.down()
    page.mouse.move(last["x"] + 1, last["y"] + 20, steps=4)
    page.mouse.up()
    expect(page.locator(".rs-range.is-on")).to_contain_text("✕")
    page.locator("th button", has_text="Time").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_text(re.compile("Time"))
    settle(page)
    assert "range=" in page.url
    assert "sort=latency" in page.url
    shown = page.locator(".rs-qa button").all_inner_texts()
    page.reload()
    expect(page.locator(".rs-row")).to_have_count(len(shown))
    assert page.locator(".rs-qa button").all_inner_texts() == shown
    page.locator(".rs-range", has_text="All time").click()
    count(page, "1–50 of 56")


def test_a_filter_is_saved_chosen_and_deleted(page: Page) -> None:
    box = page.locator("#trace-text textarea, #trace-text input")
    box.fill("status = error")
    box.press("Enter")
    page.locator(".rs-save-filter").click()
    page.locator(".rs-saved input").fill("failures")
    page.locator(".rs-saved input").press("Enter")
    expect(page.locator(".rs-saved .rs-chip")).to_contain_text("failures")
    box.fill("")
    box.press("Enter")
    count(page, "1–50 of 56")
    page.locator(".rs-saved .rs-chip button", has_text="failures").click()
    expect(box).to_have_value("status = error")
    page.locator(".rs-unsave").click()
    expect(page.locator(".rs-saved .rs-chip")).to_have_count(0)


def test_nothing_is_cut_at_usual_widths(page: Page, address: str) -> None:
    page.goto(f"{address}/?trace={BAD}")
    expect(page.locator(".rs-trace-view")).to_be_visible()
    for width in (1440, 1024):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")
        cut = "parts => parts.filter(part => part.scrollWidth > part.clientWidth + 1).map(part => part.innerText)"
        assert page.locator(".rs-row td:not(.rs-qa):visible, .rs-chip, .rs-span-facts").evaluate_all(cut) == []
        assert page.locator("#trace-detail").evaluate("part => part.scrollWidth <= part.clientWidth + 1")
