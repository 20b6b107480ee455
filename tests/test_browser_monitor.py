"""The tab Monitor in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from chromium import Open, settle
from playwright.sync_api import Page, expect
from scripted_app import ScriptedApp, a_scripted_app
from test_ledger import trace_of


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApp]:
    yield from a_scripted_app(tmp_path_factory)


def shows_monitor(page: Page) -> None:
    expect(page.locator("#monitor-cost .rs-spending")).to_be_visible()


def test_what_was_spent_is_grouped_kept_in_the_address_and_leads_to_its_traces(
    app: ScriptedApp, address: str, open_page: Open
) -> None:
    app.stores.traces.save(replace(trace_of(1), started=time.time(), user_name="Ada"))
    page = open_page(f"{address}/?tab=monitor&days=30&by=user", ready=shows_monitor)
    expect(page.locator(".rs-spending tbody .rs-pinned")).to_have_text(["Ada"])
    expect(page.locator(".rs-spending tfoot th").last).to_have_text("$0.0300")
    expect(page.locator("#monitor-answers .rs-totals dd").first).to_have_text("1")
    page.locator("#monitor-range").get_by_text("24 hours").click()
    page.locator("#monitor-by").get_by_text("purpose").click()
    expect(page.locator(".rs-spending tbody .rs-pinned")).to_have_text(["chat"])
    settle(page)
    assert parse_qs(urlsplit(page.url).query) == {"tab": ["monitor"], "days": ["1"], "by": ["purpose"]}
    link = page.locator(".rs-spending a.rs-link").get_attribute("href") or ""
    assert parse_qs(urlsplit(link).query)["filter"][0].startswith('purpose = "chat" and started >= "')


def test_an_alert_is_previewed_on_the_history_then_saved_and_removed(
    app: ScriptedApp, address: str, open_page: Open
) -> None:
    for number in range(4):
        app.stores.traces.save(replace(trace_of(number), started=time.time() - 3_600 * (number + 1)))
    page = open_page(
        f"{address}/?tab=monitor", ready=lambda page: expect(page.locator("#alert-form")).to_be_visible()
    )
    # What is typed while the tab is still being filled can be lost.
    settle(page)
    page.get_by_text("Define an alert").click()
    settle(page)
    page.locator("#alert-at input, #alert-at textarea").fill("1s")
    settle(page)
    page.locator("#alert-preview-button").click()
    expect(page.locator("#alert-preview polyline")).to_be_attached()
    expect(page.locator("#alert-preview .rs-threshold-label")).to_have_text("alert 1.0 s")
    expect(page.locator("#alert-preview .rs-notices tbody tr").first).to_contain_text("before: ok")
    assert app.alerting.watched() == ()
    page.locator("#alert-name input, #alert-name textarea").fill("slow")
    settle(page)
    page.locator("#alert-save").click()
    expect(page.locator("#monitor-alerts .rs-pinned").last).to_have_text("slow")
    expect(page.locator("#alert-chosen input")).to_have_value("slow")
    (watched,) = app.alerting.watched()
    assert (watched.alert.metric, watched.alert.alert_at) == ("p95", 1.0)
    # What cannot be used is a message, and changes nothing.
    page.locator("#alert-window input, #alert-window textarea").fill("soon")
    settle(page)
    page.locator("#alert-save").click()
    expect(page.locator(".toast-body").filter(has_text="1min to 7d")).to_be_visible()
    page.locator("#alert-remove").click()
    expect(page.locator("#monitor-alerts")).to_contain_text("There are no alerts.")
