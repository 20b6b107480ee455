"""Documents added in the chat: upload or folder, progress, stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from rag.tracing.figures import counted, format_seconds
from ui.pages.chat.chat_layout import ChatParts
from ui.pages.page_events import QUIET, Updates, error_message, in_thread, show_warning, warn
from ui.pages.safe_markup import fragment, note
from ui.pages.uploads import check_folder, keep_uploads

if TYPE_CHECKING:
    from rag.indexing.ingest_report import IngestProgress, IngestReport
    from rag.settings import Settings
    from ui.app.stores import Stores

LOOK_S = 0.3
SHOWN_PROBLEMS = 50


class Job:
    """An ingestion in its own thread, which continues when the page is closed."""

    def __init__(self, stores: Stores, corpus: str, paths: Sequence[Path]) -> None:
        self.corpus = corpus
        self.progress: IngestProgress | None = None
        self.report: IngestReport | None = None
        self.error: Exception | None = None
        self._stores = stores
        self._paths = tuple(paths)
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
            self.report = self._stores.ingest(self.corpus, self._paths, self._note, self._stop)
        except Exception as error:  # noqa: BLE001 - shown on the page
            self.error = error


class Adding:
    """The events that add documents; one ingestion at a time, because a workspace has one writer."""

    def __init__(self, settings: Settings, stores: Stores, parts: ChatParts) -> None:
        self._settings = settings
        self._stores = stores
        self._parts = parts
        self._job: Job | None = None

    def wire(self, page: Any) -> None:
        """Connect the events."""
        parts, add = self._parts, self._parts.add
        outputs = [add.progress, add.stop, add.upload, add.folder, add.add_folder, parts.corpus, add.corpus]
        common: dict[str, Any] = {"concurrency_limit": None, **QUIET}
        add.upload.upload(self.upload, [add.upload, add.corpus, parts.corpus], outputs, **common)
        for trigger in (add.add_folder.click, add.folder.submit):
            trigger(self.add_folder, [add.folder, add.corpus, parts.corpus], outputs, **common)
        add.stop.click(self.stop, None, add.progress, **common)
        page.load(self.resume, parts.corpus, outputs, **common)

    async def upload(self, files: list[str] | None, corpus: str, shown: str) -> Updates:
        """Store uploaded files in the workspace and ingest them."""
        if not files:
            yield gr.skip()
            return
        try:
            paths = await in_thread(keep_uploads, self._stores.workspace, corpus, [Path(file) for file in files])
        except Exception as error:  # noqa: BLE001 - shown as one sentence
            warn(error)
            yield gr.skip()
            return
        async for updates in self._begin(corpus, paths, shown):
            yield updates

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

    async def _begin(self, corpus: str, paths: Sequence[Path], shown: str) -> Updates:
        if self._job is not None and self._job.running:
            show_warning("Documents are being added already: wait for that, or stop it.")
            yield gr.skip()
            return
        self._job = Job(self._stores, corpus, paths)
        self._job.start()
        async for updates in self._watch(self._job, shown):
            yield updates

    async def _watch(self, job: Job, shown: str) -> Updates:
        add = self._parts.add
        busy = {
            add.stop: gr.Button(visible=True),
            add.upload: gr.UploadButton(interactive=False),
            add.add_folder: gr.Button(interactive=False),
        }
        yield busy | {add.progress: progress_html(None)}
        while job.running:
            await asyncio.sleep(LOOK_S)
            yield busy | {add.progress: progress_html(job.progress)}
        names = await in_thread(self._stores.corpus_names)
        yield {
            add.progress: outcome_html(job, shown),
            add.stop: gr.Button(visible=False),
            add.upload: gr.UploadButton(interactive=True, value=None),
            add.folder: "" if job.error is None else gr.skip(),
            add.add_folder: gr.Button(interactive=True),
            self._parts.corpus: gr.Dropdown(choices=names if shown in names else [shown, *names], value=shown),
            add.corpus: gr.Dropdown(choices=names, value=job.corpus),
        }


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
        problems=[(Path(problem.path).name, problem.reason) for problem in report.problems[:SHOWN_PROBLEMS]],
        total=len(report.problems),
    )
