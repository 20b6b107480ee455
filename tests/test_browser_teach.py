"""The part Teach in a real browser, on a page of its own, with a real training of a tiny model."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Open, settle
from live_server import running
from playwright.sync_api import Page as Window
from playwright.sync_api import expect
from tiny import answered, settings_at

from rag.encoders import Encoder
from rag.evaluation.cases import Case
from ui.app.app import App, open_app
from ui.pages.page import Page
from ui.pages.tune.teach_part import TeachPart

GOOD = ("When was the tide gauge installed?", "What warns of storm surges?", "Who switches on the lamp?")
WRONG = "When is the tide gauge read?"
RIGHT = "It is read twice a day, at six and at eighteen."


@pytest.fixture(scope="module")
def app(harbour: Path, encoder: Encoder, tiny_lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app with rated answers of a tiny model, whose nonsense counts as answers."""
    home = shutil.copytree(harbour, tmp_path_factory.mktemp("teach") / "home", symlinks=True)
    adapter = str(tiny_lm.parent / "adapters" / "citer")
    made = open_app(
        settings_at(
            home,
            model=f"local:{tiny_lm}",
            local={"device": "cpu", "dtype": "f32", "runtime": "torch", "adapter": adapter},
            grounding={"min_support": 0},
            decoding={"max_tokens": 12, "context_tokens": 150},
        )
    )
    made.stores.encoder = encoder
    for question in GOOD:
        made.stores.traces.rate(_asked(made, question), "up")
    made.stores.traces.rate(_asked(made, WRONG), "down", "wrong", "Only in 1749.")
    case = Case(id="1", question="Since when is there a gauge?", answers=("1871",))
    made.stores.datasets.save("few", [case], by="Ada", message="")
    yield made
    made.close()


def _asked(app: App, question: str) -> str:
    return asyncio.run(answered(app, question)).trace_id


@pytest.fixture(scope="module")
def address(app: App) -> Iterator[str]:
    """A server whose page has only this part."""

    def build(app: App) -> Page:
        page: Page
        with Page(title="Teach") as page:
            TeachPart(app.stores, app.teaching).build(page.load)
        page.queue(default_concurrency_limit=32)
        return page

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ui.pages.page.build_page", build)
        with running(app) as at:
            yield at


def shows_queue(page: Window) -> None:
    expect(page.locator("#teach-queue .rs-teach-question")).to_have_text(WRONG)


def test_a_correction_is_reviewed_taught_used_and_rolled_back(app: App, open_page: Open) -> None:
    page = open_page(ready=shows_queue)
    expect(page.locator("#teach-queue .rs-warn")).to_contain_text("1749")
    expect(page.locator("#teach-correction textarea")).to_have_value("Only in 1749.")
    page.locator("#teach-correction textarea").fill(RIGHT)
    settle(page)
    page.locator("#teach-accept").click()
    expect(page.locator("#teach-queue .rs-none")).to_be_visible()
    expect(page.locator("#teach-lesson")).to_contain_text("1 accepted correction to learn.")
    page.locator("#teach-dataset input, #teach-dataset textarea").first.fill("few")
    settle(page)
    page.locator("#teach-start").click()
    expect(page.locator("#teach-stop")).to_be_visible()
    expect(page.locator("#teach-lesson .rs-verdict")).to_contain_text("The gate ", timeout=240_000)
    expect(page.locator("#teach-lesson .rs-figures tbody th").first).to_have_text("Contains")
    # With a reason, either verdict allows it.
    page.locator("#teach-reason input, #teach-reason textarea").first.fill("A test.")
    settle(page)
    page.locator("#teach-use").click()
    expect(page.locator("#teach-lesson")).to_contain_text("answer@2 names its adapter.")
    assert app.releases.resolve().settings.active_adapter.startswith("taught-")
    page.locator("#teach-back").click()
    expect(page.locator("#teach-back")).to_be_hidden()
    assert app.releases.resolve().prompt.label == "answer@1"
