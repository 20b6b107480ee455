"""The documents of a corpus in a real browser: listed, replaced, removed, added by address, and filtered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Open, ask, last_answer, wait_for_answers
from corpus_stores import write
from playwright.sync_api import Page, expect
from web_site import site

from rag.encoders import Encoder
from rag.settings import Settings
from ui.app.app import App, open_app

RATES = (
    '{"id": "b", "text": "The crane costs 85 euro an hour.", "port": "Bremen"}\n'
    '{"id": "k", "text": "The crane costs 97 euro an hour.", "port": "Kiel"}\n'
    '{"id": "e", "text": \n'
)


@pytest.fixture(scope="module")
def app(converted_models: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("documents")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(converted_models)
    made = open_app(
        Settings(
            home=folder / "home",
            corpus="port",
            tracking={"wandb": "off"},
            ingest={"private_addresses": True},
        )
    )
    vars(made.stores)["encoder"] = encoder
    made.stores.ingest("port", [write(folder, {"docs/rates.jsonl": RATES}) / "docs"])
    yield made
    made.close()


@pytest.fixture
def page(open_page: Open, app: App) -> Page:
    for conversation in app.stores.conversations.list(limit=10).conversations:
        app.stores.conversations.delete(conversation.id)
    opened = open_page()
    opened.locator("#documents .label-wrap").click()
    opened.locator("#add .label-wrap").click()
    expect(opened.locator(".rs-doc-name").first).to_be_visible()
    opened.on("dialog", lambda dialog: dialog.accept())
    return opened


def upload(page: Page, folder: Path, text: str) -> None:
    file = write(folder, {"tug.txt": text}) / "tug.txt"
    with page.expect_file_chooser() as chosen:
        page.locator("#upload").click()
    chosen.value.set_files(file)


def test_documents_are_listed_replaced_and_removed(page: Page, app: App, tmp_path: Path) -> None:
    names, progress = page.locator(".rs-doc-name"), page.locator("#progress")
    expect(page.locator(".rs-doc-problem")).to_contain_text("line 3: not valid JSON")
    upload(page, tmp_path, "A tug costs 40 euro an hour.")
    expect(names).to_have_text(["docs/rates.jsonl", "tug.txt"])
    upload(page, tmp_path, "A tug costs 55 euro an hour.")
    expect(page.locator("#clash")).to_contain_text("tug.txt is already in the corpus port")
    page.locator("#replace-upload").click()
    expect(progress).to_contain_text("1 changed")
    expect(page.locator("#clash")).not_to_be_visible()
    ask(page, "What does a tug cost an hour?")
    wait_for_answers(page, 1)
    assert "55 euro" in last_answer(page)
    assert "40 euro" not in page.locator("#sources").inner_text()
    upload(page, tmp_path, "A tug costs 60 euro an hour.")
    page.locator("#keep-both").click()
    expect(names).to_have_text(["docs/rates.jsonl", "tug (2).txt", "tug.txt"])
    for name in ("tug (2).txt", "tug.txt"):
        page.get_by_role("button", name=f"Remove {name}").click()
    expect(names).to_have_text(["docs/rates.jsonl"])
    assert list((app.workspace.uploads / "port").iterdir()) == []


def test_a_page_is_added_by_its_address_and_a_filter_keeps_to_it(page: Page, app: App) -> None:
    names, kept = page.locator(".rs-doc-name"), page.locator(".rs-filter")
    with site() as web:
        address = web.serve("/fees", "text/html", "<title>Fees</title><p>The crane costs 70 euro an hour.</p>")
        page.locator("#address input, #address textarea").fill(address)
        page.locator("#add-address").click()
        expect(names).to_have_text(["docs/rates.jsonl", address])
    for count, (condition, rate) in enumerate((("port=kiel", "97"), (address, "70")), 1):
        page.locator("#filter input, #filter textarea").fill(condition)
        page.locator("#filter input, #filter textarea").press("Enter")
        expect(kept).to_contain_text(condition)
        ask(page, "What does the crane cost an hour?")
        wait_for_answers(page, count)
        assert f"{rate} euro" in last_answer(page)
        expect(page.locator("#sources .rs-source")).to_have_count(1)
        # A conversation keeps its filters, and another one does not have them.
        page.locator("#new").click()
        expect(kept).to_have_count(0)
        page.locator(".rs-open-conv").click()
        expect(kept).to_contain_text(condition)
        kept.get_by_role("button").click()
        expect(kept).to_have_count(0)
    page.locator("#filter input, #filter textarea").fill("port=Emden")
    page.locator("#filter input, #filter textarea").press("Enter")
    expect(page.locator(".toast-body")).to_contain_text("No document of the corpus port matches")
    expect(kept).to_have_count(0)
    trace = app.stores.traces.get(app.stores.traces.list(limit=1).traces[0].id)
    (searched,) = (span.input for span in trace.spans if span.name == "retrieve")
    assert searched["filters"]["source"] == address
