"""The lab in a real browser, with everything behind it real."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from chromium import Open, hear, settle, taken_back
from playwright.sync_api import Locator, Page, expect
from scripted_openai import Received, Reply, ScriptedOpenAI, says, scripted_openai
from tiny import CORPUS, QUESTION, SENTENCE, open_tiny

from rag.evaluation.cases import Case
from ui.app.app import App

REMOTE = "openai:scripted-1"


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedOpenAI]:
    with scripted_openai(says("It was in 1871. [1]")) as server:
        yield server


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, converted_models: Path, model: ScriptedOpenAI) -> Iterator[App]:
    served = {"base_url": model.base_url, "max_retries": 0}
    made = open_tiny(tmp_path_factory.mktemp("lab"), converted_models, openai=served)
    yield made
    made.close()


def address_of(address: str, *variants: str, fixed: str = "") -> str:
    """The address of the lab with these columns."""
    query = [("tab", "lab"), ("q", QUESTION), ("fixed", fixed), *(("v", variant) for variant in variants)]
    return f"{address}/?{urlencode(query)}"


def show(open_page: Open, address: str, *variants: str, fixed: str = "") -> Page:
    """Open the lab with these columns."""

    def shows_the_columns(page: Page) -> None:
        expect(page.locator(".rs-lab-column:visible")).to_have_count(len(variants))
        expect(page.locator("#lab-corpus input")).to_have_value(CORPUS)

    return open_page(address_of(address, *variants, fixed=fixed), ready=shows_the_columns)


def run(page: Page, count: int) -> None:
    """Ask, and wait for so many answers."""
    page.locator("#lab-run").click()
    expect(page.locator(".rs-lab-answer .rs-answer:not(.rs-draft)")).to_have_count(count)
    expect(page.locator("#lab-run")).to_be_visible()


def answer(page: Page, letter: str) -> Locator:
    return page.locator(f"#lab-{letter}-answer")


def passages(page: Page, letter: str) -> list[str]:
    """The names of the passages of a column, unfolded."""
    page.locator(f"#lab-{letter}-passages-fold button").first.click()
    names = page.locator(f"#lab-{letter}-sources .rs-name")
    expect(names.first).to_be_attached()
    return names.all_text_contents()


def test_two_columns_answer_in_their_own_ways(open_page: Open, address: str, app: App) -> None:
    page = show(open_page, address, "A:", "short: answer.style=brief retrieval.k=2")
    expect(page.locator("#lab-b-name input")).to_have_value("short")
    expect(page.locator("#lab-a-prompt input")).to_have_value("Default (answer@1)")
    run(page, 2)
    expect(answer(page, "a").locator(".rs-text")).to_contain_text(SENTENCE)
    expect(answer(page, "b").locator(".rs-text")).to_contain_text("1871")
    expect(answer(page, "b").locator(".rs-text")).not_to_contain_text(SENTENCE)
    expect(answer(page, "a").locator(".rs-foot")).to_contain_text("answer@1")
    assert (len(passages(page, "a")), len(passages(page, "b"))) == (5, 2)
    answer(page, "a").locator("a.rs-cite").first.click()
    expect(page.frame_locator("#rs-dialog iframe").locator("mark#cited")).to_contain_text(SENTENCE)
    page.keyboard.press("Escape")
    answer(page, "b").locator("a.rs-trace").click()
    expect(page.locator(".rs-trace-q")).to_have_text(QUESTION)


def test_fixed_passages_are_the_same_in_all_columns(open_page: Open, address: str) -> None:
    page = show(open_page, address, "A: retrieval.k=3", "B: retrieval.k=1", fixed="1")
    expect(page.locator("#lab-note")).to_contain_text(
        "All columns read the passages that A finds: search hybrid, 3"
    )
    run(page, 2)
    found = passages(page, "a")
    assert len(found) == 3
    assert sorted(passages(page, "b")) == sorted(found)
    page.locator("#lab-fixed input").uncheck()
    expect(page.locator("#lab-note")).not_to_contain_text("All columns")


def test_a_column_that_fails_stands_beside_one_that_answers(open_page: Open, address: str, app: App) -> None:
    page = show(open_page, address, "A:", "B: prompt=nowhere", "C: decoding.temperature=9")
    run(page, 3)
    expect(answer(page, "a").locator(".rs-text")).to_contain_text(SENTENCE)
    expect(answer(page, "b").locator(".rs-error")).to_contain_text("nowhere")
    expect(answer(page, "c").locator(".rs-error")).to_contain_text("decoding.temperature")


def test_four_columns_are_not_cut_off_on_a_small_screen(open_page: Open, address: str) -> None:
    page = show(open_page, address, "A:", "B:", "C:", "D:")
    page.set_viewport_size({"width": 1024, "height": 768})
    for column in page.locator(".rs-lab-column").all():
        box = column.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 1024
    page.set_viewport_size({"width": 1440, "height": 900})


def test_what_columns_show_is_said_again_for_pages_that_are_slow_to_show_it(page: Page, address: str) -> None:
    hear(page)
    page.goto(address_of(address, "A: retrieval.k=3", f"B: model={REMOTE}"))
    expect(page.locator(".rs-lab-column:visible")).to_have_count(2)
    expect(page.locator("#lab-corpus input")).to_have_value(CORPUS)
    run(page, 2)
    assert taken_back(page) == []


def test_stop_hangs_up_in_all_columns(open_page: Open, address: str, model: ScriptedOpenAI, app: App) -> None:
    def endless(reply: Reply, _: Received) -> None:
        reply.head()
        reply.drip("and so on ", 0.05)

    before, model.script = model.script, endless
    try:
        page = show(open_page, address, f"A: model={REMOTE}", f"B: model={REMOTE} retrieval.k=2")
        page.locator("#lab-run").click()
        for letter in "ab":
            expect(answer(page, letter).locator(".rs-draft .rs-text")).to_contain_text("and so on and so on")
        page.locator("#lab-stop").click()
        expect(page.locator(".rs-lab-answer .rs-cancelled .rs-badge")).to_have_text(["Stopped", "Stopped"])
        expect(page.locator("#lab-run")).to_be_visible()
        assert model.gone.wait(60)
        assert [each.status for each in app.stores.traces.list(limit=2).traces] == ["cancelled", "cancelled"]
    finally:
        model.script = before


def test_variables_of_a_prompt_become_fields(open_page: Open, address: str, model: ScriptedOpenAI) -> None:
    page = show(open_page, address, "A:", f"B: model={REMOTE}")
    page.locator("#lab-b-prompt input").fill("summarise-source@1")
    page.locator("#lab-b-prompt input").press("Enter")
    expect(page.locator("#lab-values label:visible")).to_have_text(["title", "text"])
    page.get_by_label("title", exact=True).fill("Tides & <b>boats</b>")
    page.get_by_label("text", exact=True).fill("The gauge is read twice a day.")
    settle(page)
    run(page, 2)
    expect(answer(page, "b").locator(".rs-text")).to_contain_text("It was in 1871.")
    expect(answer(page, "b").locator(".rs-foot")).to_contain_text("summarise-source@1")
    sent = model.received[-1].body["messages"][-1]["content"]
    assert "Title: Tides & <b>boats</b>" in sent
    page.locator("#lab-b-remove").click()
    expect(page.locator("#lab-values")).not_to_be_visible()


def test_columns_are_added_copied_and_removed_and_the_address_keeps_them(open_page: Open, address: str) -> None:
    page = show(open_page, address, "first: retrieval.k=3", "B: answer.style=brief")
    page.locator("#lab-add").click()
    expect(page.locator("#lab-c-more textarea")).to_have_value("answer.style=brief")
    page.locator("#lab-a-remove").click()
    expect(page.locator(".rs-lab-column:visible")).to_have_count(2)
    page.locator("#lab-b-passages input").fill("4")
    page.locator("#lab-b-passages input").press("Enter")
    page.locator("#lab-b-copy").click()
    expect(page.locator("#lab-a-passages input")).to_have_value("4")
    wanted = ["A: retrieval.k=4 answer.style=brief", "B: retrieval.k=4 answer.style=brief"]
    page.wait_for_function("text => location.search.includes(text)", arg=urlencode({"v": wanted[0]}))
    assert parse_qs(urlsplit(page.url).query)["v"] == wanted
    # In a window of its own: a page that is left while it asks says that its connection was lost.
    other = open_page()
    other.goto(page.url)
    expect(other.locator("#lab-a-passages input")).to_have_value("4")
    expect(other.locator("#lab-question textarea, #lab-question input").first).to_have_value(QUESTION)


def test_a_link_survives_loading_reloading_and_other_tabs(open_page: Open, address: str) -> None:
    link = address_of(address, "A: retrieval.k=3", "B: model=smollm2")
    page = show(open_page, address, "A: retrieval.k=3", "B: model=smollm2")

    def assert_shown() -> None:
        expect(page.locator("#lab-a-passages").locator("textarea, input")).to_have_value("3")
        expect(page.locator("#lab-b-model input")).to_have_value("smollm2")
        settle(page)
        named = parse_qs(urlsplit(page.url).query)
        assert (named["tab"], named["q"]) == (["lab"], [QUESTION])
        assert named["v"] == parse_qs(urlsplit(link).query)["v"]

    assert_shown()
    page.reload()
    assert_shown()
    page.get_by_role("tab", name="Traces").click()
    settle(page)
    assert "lab" not in page.url
    page.get_by_role("tab", name="Prompts").click()
    assert_shown()
    page.get_by_role("tab", name="Library").click()
    page.wait_for_url("**/?tab=prompts&prompt=answer@1&pane=template")
    page.get_by_role("tab", name="Lab").click()
    assert_shown()
    page.reload()
    assert_shown()


def test_a_link_without_columns_opens_the_lab_and_then_the_library(open_page: Open, address: str) -> None:
    def shows_the_lab(page: Page) -> None:
        expect(page.locator("#lab-corpus input")).to_have_value(CORPUS)

    page = open_page(f"{address}/?tab=lab", ready=shows_the_lab)
    for name in ("Traces", "Prompts", "Library"):
        page.get_by_role("tab", name=name).first.click()
        settle(page)
    expect(page.locator("#prompt-head h2")).to_have_text("answer@1")
    expect(page.locator(".toast-body")).to_have_count(0)


def test_the_address_has_the_values_of_variables(open_page: Open, address: str) -> None:
    page = show(open_page, address, "A: prompt=summarise-source", "B:")
    field = page.locator("#lab-values textarea:visible").first
    field.fill("Tea & bread = breakfast")
    field.blur()
    expect(page).to_have_url(re.compile(r"[?&]set="))
    page.reload()
    expect(page.locator("#lab-values textarea:visible").first).to_have_value("Tea & bread = breakfast")


def test_settings_tell_where_they_come_from_and_markup_stays_text(open_page: Open, address: str) -> None:
    page = show(open_page, address, "<i>mine</i>: decoding.seed=7", "B: prompt='<i>no</i>'")
    for number in range(2):
        page.locator(".rs-lab-column").nth(number).locator(".rs-lab-fold button").first.click()
    row = page.locator("#lab-a-settings tr", has_text="decoding.seed")
    expect(row).to_contain_text("here")
    expect(row).to_contain_text("not honoured")
    expect(page.locator("#lab-a-settings tr", has_text="retrieval.mode")).to_contain_text("process")
    expect(page.locator("#lab-b-settings .rs-error")).to_contain_text("<i>no</i>")
    expect(page.locator("#lab-a-name input")).to_have_value("<i>mine</i>")
    assert page.locator(".rs-lab-column i").count() == 0


def test_columns_run_on_a_dataset(open_page: Open, address: str, app: App) -> None:
    cases = [Case(id="gauge", question=QUESTION, answers=("1871",))]
    app.evaluations.datasets.save("harbour", cases, by="me", message="First.")
    page = show(open_page, address, "A:", "B: retrieval.k=2")
    page.locator("#lab-dataset input").click()
    page.get_by_role("option", name="harbour@1").click()
    page.locator("#lab-evaluate").click()
    expect(page.get_by_role("tab", name="Evaluate")).to_have_attribute("aria-selected", "true")
    (begun,) = app.evaluations.runs.list()
    assert [each.name for each in begun.plan.variants] == ["default", "k=2"]
