"""A real browser for tests of the page, and what a test does with it again and again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZE: ViewportSize = {"width": 1440, "height": 900}
WAIT_MS = 45_000
ARGUMENTS = ["--no-sandbox"]
# An input hands its text over a moment after it was typed.
TYPED_MS = 100
LOOK_MS = 20
# The requests of a page's events that have not ended.
_under_way: WeakKeyDictionary[Page, set[Request]] = WeakKeyDictionary()

Open = Callable[..., Page]


class Chromium:
    """A browser of this machine.

    Attributes:
        kept: One profile for all tests: Gradio's hundred files are loaded and compiled once, which is half of the
            work of a page. What a page remembers, it remembers for its own tab.
    """

    def __init__(self, playwright: Playwright, path: str, profile: Path) -> None:
        self._start = partial(playwright.chromium.launch, executable_path=path, args=ARGUMENTS)
        self.kept = playwright.chromium.launch_persistent_context(
            profile, executable_path=path, args=ARGUMENTS, viewport=SIZE
        )

    def new_context(self, **options: Any) -> BrowserContext:
        """A profile of its own."""
        return self._fresh.new_context(**{"viewport": SIZE} | options)

    def close(self) -> None:
        """End it."""
        self.kept.close()
        if "_fresh" in self.__dict__:
            self._fresh.close()

    @cached_property
    def _fresh(self) -> Browser:
        return self._start()


@contextmanager
def launched(profile: Path) -> Iterator[Chromium]:
    """A browser; a machine without one fails the test, since a skipped test proves nothing."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail(f"The browser tests need one of {', '.join(BROWSERS)} on the PATH.")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = Chromium(playwright, path, profile)
        yield browser
        browser.close()


@contextmanager
def windows(browser: Chromium, address: str) -> Iterator[Open]:
    """Opens the page in windows of their own; at the end nothing was asked of others and nothing complained."""
    asked: list[str] = []
    complaints: list[str] = []
    with ExitStack() as stack:

        def opened(at: str = address, *, ready: Callable[[Page], None] | None = None, **options: Any) -> Page:
            context = browser.new_context(**options) if options else browser.kept
            page = context.new_page()
            stack.callback(context.close if options else page.close)
            page.on("request", lambda request: asked.append(request.url))
            watch_events(page)
            page.on("console", lambda line: complaints.append(line.text) if is_complaint(line) else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(at)
            (ready or wait_until_ready)(page)
            return page

        yield opened
    hosts = {urlsplit(url).hostname for url in asked if url.startswith(("http", "ws"))}
    assert hosts == {"127.0.0.1"}
    assert not complaints


def is_complaint(line: ConsoleMessage) -> bool:
    """A page that is left while it listens to the server says that its stream was cut: that is no fault."""
    cut = ("AbortError", "Connection errored out")
    return line.type == "error" and not any(each in line.text for each in cut)


def watch_events(page: Page) -> None:
    """Note which requests of the page's events are under way."""
    requests = _under_way[page] = set()
    page.on("request", lambda request: requests.add(request) if "/queue/" in request.url else None)
    for ended in ("requestfinished", "requestfailed"):
        page.on(ended, lambda request: requests.discard(request))


def settle(page: Page) -> None:
    """Wait until the events have ended: a page that is left earlier complains, and its parts still move.

    About once in a thousand times the stream of the events stays open after the last one; then the time is up.
    """
    page.wait_for_timeout(TYPED_MS)
    quiet, end = 0, time.monotonic() + WAIT_MS / 1000
    while quiet < TYPED_MS and time.monotonic() < end:
        page.wait_for_timeout(LOOK_MS)
        quiet = 0 if _under_way[page] else quiet + LOOK_MS
    left = [f"{request.method} {urlsplit(request.url).path}" for request in _under_way[page]]
    assert quiet or left == ["GET /gradio_api/queue/data"], f"the events of the page do not end: {left}"


def wait_until_ready(page: Page) -> None:
    """Until the page can be used and has heard from the server what answers."""
    expect(page.locator("#question textarea")).to_be_visible()
    expect(page.locator(".rs-release")).to_be_visible()


# Keeps what the server sends of the events.
_HEAR = """
window.heard = "";
const fetched = window.fetch;
window.fetch = async (...args) => {
  const reply = await fetched(...args);
  if (String(args[0]?.url ?? args[0]).includes("queue/data")) {
    const lines = reply.clone().body.pipeThrough(new TextDecoderStream()).getReader();
    const keep = async () => {
      for (let read = await lines.read(); !read.done; read = await lines.read()) window.heard += read.value;
    };
    keep().catch(() => "the page was left");
  }
  return reply;
};
"""


def hear(page: Page) -> None:
    """Load the page anew, and keep what the server sends of the events from then on."""
    page.add_init_script(_HEAR)
    page.reload()
    wait_until_ready(page)


def taken_back(page: Page) -> list[str]:
    """What the server, by what was heard, said of a component and left out of the next update of an event."""
    told = [json.loads(line[5:]) for line in page.evaluate("heard").splitlines() if line.startswith("data:")]
    later = [each["output"]["data"] for each in told if each["msg"] == "process_generating"]
    assert len(later) > 1, "nothing was heard"
    changes = [change for data in later for part in data if isinstance(part, list) for change in part]
    return [str(change[1]) for change in changes if isinstance(change, list) and change[0] == "delete"]


def ask(page: Page, question: str) -> None:
    """Send a question."""
    page.locator("#question textarea").fill(question)
    page.locator("#question textarea").press("Enter")


def last_answer(page: Page) -> str:
    """Return the text of the newest answer."""
    return page.locator(".rs-answer").last.inner_text()


def wait_for_answers(page: Page, count: int) -> None:
    """Until so many answers are finished and the next question can be sent."""
    expect(page.locator(".rs-answer:not(.rs-draft)")).to_have_count(count)
    expect(page.locator("#question .submit-button")).to_be_visible()
