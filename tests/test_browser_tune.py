"""The tab Tune in a real browser: from a raw table to the texts of an adapter, without leaving the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Open, settle
from playwright.sync_api import Page, expect
from scripted_app import ScriptedApp, a_scripted_app
from scripted_training import Scripted, a_sweep
from test_data_preparation import table
from tiny_lm import make_model

from finetune.run_folder import all_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApp]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAGSMITH_TRACKING__WANDB", "off")
        yield from a_scripted_app(tmp_path_factory)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    return make_model(folder, hidden_size=32, intermediate_size=64, num_hidden_layers=2)


def fill(page: Page, place: str, text: str) -> None:
    field = page.locator(f"{place} input, {place} textarea").first
    field.fill(text)
    field.blur()
    settle(page)


def shows_data(page: Page) -> None:
    expect(page.locator("#tune-explore")).to_be_visible()


def part(page: Page, name: str) -> None:
    page.locator("#tune-tabs > .tab-wrapper").get_by_role("tab", name=name).click()
    settle(page)


def test_a_table_is_explored_prepared_trained_on_stopped_resumed_and_tried(
    app: ScriptedApp, base: Path, address: str, open_page: Open, tmp_path: Path
) -> None:
    page = open_page(f"{address}/?tab=tune", ready=shows_data)
    page.locator("#tune-columns .label-wrap").click()
    fill(page, "#tune-data-base", str(base))
    with page.expect_file_chooser() as chooser:
        page.locator("#tune-file").click()
    chooser.value.set_files(table(tmp_path, "X,Coming soon\nY,<b>Coming soon</b>\nZ,Coming soon\n"))
    expect(page.locator("#tune-found")).to_contain_text("stories.csv: 15 rows")
    expect(page.locator("#tune-found .rs-tune-count.is-some").first).to_have_text("2 placeholders")
    page.locator("#tune-preview-steps").click()
    expect(page.locator("#tune-found")).to_contain_text("12 rows + 1 for validation, not saved yet")
    fill(page, "#tune-data-name", "stories")
    page.locator("#tune-save").click()
    expect(page.locator("#tune-prepared tbody .rs-pinned")).to_have_text(["stories"])

    part(page, "Train")
    for field, text in (("base", str(base)), ("epochs", "60"), ("rank", "4"), ("name", "tale")):
        fill(page, f"#tune-{field}", text)
    page.locator("#tune-advanced .label-wrap").click()
    fill(page, "#tune-batch", "128")
    page.locator("#tune-estimate").click()
    expect(page.locator("#tune-preview .rs-totals")).to_contain_text("memory")
    expect(page.locator("#tune-preview .rs-tune-row b", has_text="The keeper").first).to_be_visible()
    assert all_runs(app.workspace.runs) == []
    page.locator("#tune-start").click()
    expect(page.locator("#tune-run .rs-line").first).to_be_attached()
    page.locator("#tune-stop").click()
    page.locator("#tune-resume").click()
    expect(page.locator("#tune-runs td.is-done")).to_have_text("done", timeout=180_000)
    expect(page.locator("#tune-runs tbody td").nth(2)).not_to_be_empty()
    expect(page.locator("#tune-run .rs-tune-sample").first).to_contain_text("The keeper of the lighthouse")
    expect(page.locator("#tune-run summary", has_text="Predictions")).to_be_visible()

    part(page, "Sweep")
    for field, text in (("base", str(base)), ("learning-rate", "0.001,0.002"), ("rank", "4"), ("trials", "1")):
        fill(page, f"#sweep-{field}", text)
    fill(page, "#sweep-epochs", "60")
    fill(page, "#sweep-batch-tokens", "128")
    page.locator("#sweep-start").click()
    page.locator("#sweep-stop").click()
    page.locator("#sweep-continue").click(timeout=60_000)
    shown = page.locator("#sweep-shown")
    expect(shown.locator(".rs-head")).to_have_text("tuned-sweep: tpe, 1 of 1 trial · 1 done", timeout=180_000)
    expect(shown.locator("tbody tr")).to_contain_text("tuned-sweep-000")
    fill(page, "#sweep-rank", "0,4")
    page.locator("#sweep-start").click()
    expect(page.locator(".toast-body").filter(has_text="rank=0 cannot be tried.")).to_be_visible()

    part(page, "Try")
    fill(page, "#try-prompt", "Episode 3")
    fill(page, "#try-tokens", "12")
    page.locator("#try-write").click()
    expect(page.locator("#try-texts .rs-tune-text > div")).to_have_count(2, timeout=180_000)
    expect(page.locator("#try-texts .rs-tune-text > div").last).not_to_be_empty()
    settle(page)

    page.locator("#try-guess .label-wrap").click()
    page.locator("#guess-new").click()
    expect(page.locator("#guess-card")).to_contain_text("1 of 1 · Episode")
    page.locator("#guess-real").click()
    expect(page.locator("#guess-card .rs-guess-verdict")).to_contain_text("of 1 right.")
    expect(page.locator("#guess-card")).to_contain_text("of 1 time.")
    expect(page.locator("#guess-real")).to_be_hidden()
    settle(page)


def test_a_sweep_and_single_runs_are_compared(
    app: ScriptedApp, address: str, open_page: Open, tmp_path: Path
) -> None:
    space = ("learning_rate=0.001,0.002,0.009", "base=small,<b>large</b>")
    Scripted(app.workspace, a_sweep(tmp_path, space, "grid", 9)).work()
    page = open_page(f"{address}/?tab=tune", ready=shows_data)
    part(page, "Compare")
    shown = page.locator("#tune-comparison")
    expect(shown).to_contain_text("Choose a sweep, or two runs or more.")

    page.locator("#compare-sweep input").click()
    page.get_by_role("option", name="swept").click()
    expect(shown.locator(".rs-head")).to_contain_text("swept: grid, 6 of 6 trials")
    rows = shown.locator("tbody tr")
    expect(rows).to_have_count(6)
    expect(rows.first).to_contain_text("done")
    expect(rows.last).to_contain_text("pruned")
    expect(shown.locator(".rs-parallel polyline")).to_have_count(6)
    assert shown.locator("b").count() == 0

    page.locator("#compare-by input").click()
    page.get_by_role("option", name="base").click()
    expect(shown.locator(".rs-tune-list")).to_have_count(2)
    expect(shown.locator(".rs-tune-group").first).to_contain_text("base small best")

    page.locator("#compare-runs input").click()
    for name in ("swept-000", "swept-001"):
        page.get_by_role("option", name=name).click()
    expect(rows).to_have_count(2)
    expect(shown.locator(".rs-head")).to_have_count(0)
    settle(page)
