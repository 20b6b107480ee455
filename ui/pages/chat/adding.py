"""Documents added in the chat: upload, folder or page of the web, progress, stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from rag.documents.fetching import is_address
from rag.tracing.figures import counted, format_seconds
from ui.app.upload_folder import UploadFolder
from ui.pages.chat.chat_layout import ChatParts
from ui.pages.page_events import QUIET, Updates, error_message, in_thread, show_warning, warn
from ui.pages.safe_markup import fragment, note
from ui.pages.uploads import check_folder

if TYPE_CHECKING:
    from rag.indexing.ingest_report import IngestProgress, IngestReport
    from rag.settings import Settings
    from ui.app.stores import Stores

LOOK_S = 0.3
SHOWN_PROBLEMS = 50
SHOWN_NAMES = 3


Work = Callable[[Callable[["IngestProgress"], None], threading.Event], "IngestReport"]
"""An ingestion: called with what takes its progress and with what stops it."""


class Job:
    """An ingestion in its own thread, which continues when the page is closed."""

    def __init__(self, corpus: str, work: Work) -> None:
        self.corpus = corpus
        self.progress: IngestProgress | None = None
        self.report: IngestReport | None = None
        self.error: Exception | None = None
        self._work = work
        self._stop = threading.Event()
        # A daemon: an interrupted ingestion is continued by the next one.
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current batch; what was added stays."""
        self._stop.set()

    @property
    def running(self) -> bool:
        """Whether the ingestion is still running."""
        return self._thread.is_alive()

    def _note(self, progress: IngestProgress) -> None:
        self.progress = progress

    def _run(self) -> None:
        try:
            self.report = self._work(self._note, self._stop)
        except Exception as error:  # noqa: BLE001 - shown on the page
            self.error = error


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Uploaded files that wait for a decision, because the corpus has others of their names."""

    corpus: str
    files: tuple[Path, ...]


class Adding:
    """The events that add documents; one ingestion at a time, because a workspace has one writer."""

    def __init__(self, settings: Settings, stores: Stores, parts: ChatParts) -> None:
        self._settings = settings
        self._stores = stores
        self._parts = parts
        self._job: Job | None = None

    def wire(self, page: Any) -> list[Any]:
        """Connect the events, and return those that end with more documents."""
        parts, add = self._parts, self._parts.add
        outputs = [
            *(add.progress, add.stop, add.upload, add.folder, add.add_folder, add.address, add.add_page),
            *(add.clash, add.clash_note, add.waiting, parts.corpus, add.corpus),
        ]
        common: dict[str, Any] = {"concurrency_limit": None, **QUIET}
        of_uploads = [add.waiting, parts.corpus]
        of_folder, of_page = [add.folder, add.corpus, parts.corpus], [add.address, add.corpus, parts.corpus]
        adding = [
            trigger(handler, inputs, outputs, **common)
            for trigger, handler, inputs in (
                (add.upload.upload, self.upload, [add.upload, add.corpus, parts.corpus]),
                (add.replace.click, self.replace, of_uploads),
                (add.keep_both.click, self.keep_both, of_uploads),
                (add.add_folder.click, self.add_folder, of_folder),
                (add.folder.submit, self.add_folder, of_folder),
                (add.add_page.click, self.add_page, of_page),
                (add.address.submit, self.add_page, of_page),
            )
        ]
        add.leave_out.click(self.leave_out, add.waiting, outputs, **common)
        add.stop.click(self.stop, None, add.progress, **common)
        page.load(self.resume, parts.corpus, outputs, **common)
        return adding

    async def upload(self, files: list[str] | None, corpus: str, shown: str) -> Updates:
        """Store uploaded files in the workspace and ingest them; first ask where the corpus has their names."""
        if not files:
            yield gr.skip()
            return
        uploaded = Uploaded(corpus, tuple(Path(file) for file in files))
        try:
            taken = await in_thread(lambda: UploadFolder(self._stores.workspace, corpus).taken(uploaded.files))
        except Exception as error:  # noqa: BLE001 - shown as one sentence
            warn(error)
            yield gr.skip()
            return
        if taken:
            add = self._parts.add
            yield {
                add.waiting: uploaded,
                add.clash: gr.Column(visible=True),
                add.clash_note: clash_html(taken, corpus),
                add.upload: gr.UploadButton(value=None),
            }
            return
        async for updates in self._keep(uploaded, shown, replace=False):
            yield updates

    async def replace(self, waiting: Uploaded | None, shown: str) -> Updates:
        """Let the uploaded files take the place of those of the same names."""
        async for updates in self._keep(waiting, shown, replace=True):
            yield updates

    async def keep_both(self, waiting: Uploaded | None, shown: str) -> Updates:
        """Add the uploaded files under names with a number."""
        async for updates in self._keep(waiting, shown, replace=False):
            yield updates

    def leave_out(self, waiting: Uploaded | None) -> dict[Any, Any]:
        """Delete the uploaded files."""
        for file in waiting.files if waiting else ():
            file.unlink(missing_ok=True)
        return self._decided()

    async def add_folder(self, folder: str, corpus: str, shown: str, request: gr.Request) -> Updates:
        """Ingest a folder or a file of this machine, if the settings allow it."""
        if not folder.strip():
            yield gr.skip()
            return
        try:
            path = await in_thread(check_folder, self._settings, folder.strip(), request.headers)
        except Exception as error:  # noqa: BLE001 - shown as one sentence
            warn(error)
            yield gr.skip()
            return
        async for updates in self._begin(corpus, [path], shown):
            yield updates

    async def add_page(self, address: str, corpus: str, shown: str) -> Updates:
        """Fetch a page of the web, and ingest it."""
        if not address.strip():
            yield gr.skip()
            return
        # What is typed without a scheme is meant as an address all the same.
        named = address.strip() if "://" in address else f"https://{address.strip()}"
        async for updates in self._begin(corpus, [], shown, [named]):
            yield updates

    async def resume(self, shown: str) -> Updates:
        """Show the progress of a running ingestion when the page is loaded."""
        if self._job is None or not self._job.running:
            yield gr.skip()
            return
        async for updates in self._watch(self._job, shown):
            yield updates

    def stop(self) -> str:
        """Stop the ingestion."""
        if self._job is not None:
            self._job.stop()
        return note("Stopping after this batch …", "rs-progress")

    async def _keep(self, uploaded: Uploaded | None, shown: str, *, replace: bool) -> Updates:
        if uploaded is None or self._is_busy():
            yield gr.skip()
            return
        try:
            folder = UploadFolder(self._stores.workspace, uploaded.corpus)
            paths = await in_thread(partial(folder.keep, uploaded.files, replace=replace))
        except Exception as error:  # noqa: BLE001 - shown as one sentence
            warn(error)
            yield gr.skip()
            return
        async for updates in self._begin(uploaded.corpus, paths, shown):
            yield updates

    def _is_busy(self) -> bool:
        """Whether an ingestion is running, which a warning then says."""
        running = self._job is not None and self._job.running
        if running:
            show_warning("Documents are being added already: wait for that, or stop it.")
        return running

    async def _begin(
        self, corpus: str, paths: Sequence[Path], shown: str, addresses: Sequence[str] = ()
    ) -> Updates:
        if self._is_busy():
            yield gr.skip()
            return

        def work(on_progress: Callable[[IngestProgress], None], stop: threading.Event) -> IngestReport:
            return self._stores.ingest(corpus, paths, on_progress, stop, addresses)

        self._job = Job(corpus, work)
        self._job.start()
        async for updates in self._watch(self._job, shown):
            yield updates

    async def _watch(self, job: Job, shown: str) -> Updates:
        add = self._parts.add
        busy = self._decided() | {
            add.stop: gr.Button(visible=True),
            add.upload: gr.UploadButton(interactive=False),
            add.add_folder: gr.Button(interactive=False),
            add.add_page: gr.Button(interactive=False),
        }
        yield busy | {add.progress: progress_html(None)}
        while job.running:
            await asyncio.sleep(LOOK_S)
            yield busy | {add.progress: progress_html(job.progress)}
        names = await in_thread(self._stores.corpus_names)
        done = job.error is None
        yield self._decided() | {
            add.progress: outcome_html(job, shown),
            add.stop: gr.Button(visible=False),
            add.upload: gr.UploadButton(interactive=True, value=None),
            add.folder: "" if done else gr.skip(),
            add.add_folder: gr.Button(interactive=True),
            add.address: "" if done else gr.skip(),
            add.add_page: gr.Button(interactive=True),
            self._parts.corpus: gr.Dropdown(choices=names if shown in names else [shown, *names], value=shown),
            add.corpus: gr.Dropdown(choices=names, value=job.corpus),
        }

    def _decided(self) -> dict[Any, Any]:
        """Updates that take the question about names away."""
        return {self._parts.add.clash: gr.Column(visible=False), self._parts.add.waiting: None}


def clash_html(taken: Sequence[str], corpus: str) -> str:
    """Render the question about uploads whose names the corpus has already."""
    named = ", ".join(taken[:SHOWN_NAMES])
    more = f" and {len(taken) - SHOWN_NAMES:,} more" if len(taken) > SHOWN_NAMES else ""
    verb = "is" if len(taken) == 1 else "are"
    return note(f"{named}{more} {verb} already in the corpus {corpus}, with other content.", "rs-warn")


def progress_html(progress: IngestProgress | None) -> str:
    """Render the progress of an ingestion."""
    parts = ["Starting …"]
    if progress is not None:
        parts = [f"{progress.files_done:,} of {counted(progress.files_total, 'file')}"]
        if progress.passages:
            parts.append(f"{progress.passages_per_s:.0f} passages/s")
        if progress.seconds_left is not None:
            parts.append(f"{format_seconds(progress.seconds_left)} left")
    return fragment("chat_progress.html.jinja", progress=progress, parts=parts)


def outcome_html(job: Job, shown: str) -> str:
    """Render the result of an ingestion, with the files that could not be read and why.

    Args:
        shown: The corpus that the chat asks.
    """
    if job.error is not None:
        return note(error_message(job.error), "rs-warn")
    report = job.report
    if report is None:
        return ""
    outcomes = (
        ("added", report.added),
        ("changed", report.changed),
        ("unchanged", report.unchanged),
        ("removed", report.deleted),
        (f"of unknown format ({report.skipped_files})", report.skipped),
    )
    files = ", ".join(f"{number:,} {word}" for word, number in outcomes if number) or "nothing to do"
    head = "Stopped: what was added stays. " if report.stopped else ""
    line = f"{head}{files} · {counted(report.passages, 'passage')} in {format_seconds(report.seconds)}"
    return fragment(
        "chat_outcome.html.jinja",
        line=line,
        other_corpus="" if job.corpus == shown else job.corpus,
        problems=[(_short(problem.path), problem.reason) for problem in report.problems[:SHOWN_PROBLEMS]],
        total=len(report.problems),
    )


def _short(path: str) -> str:
    return path if is_address(path) else Path(path).name
