"""What waits for W&B in a workspace: traces in the store, and W&B runs on the disk."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, Any

from rag.errors import DeliveryError, WorkspaceBusy
from rag.redaction import redact
from rag.settings import TrackingSettings
from rag.tracing.figures import counted
from rag.tracing.trace_store import TraceStore
from rag.tracing.wandb_access import (
    SwitchedOffError,
    UnusableError,
    check_server,
    child_environment,
    may_upload,
    prepare_environment,
    resolve_mode,
)
from rag.tracing.wandb_day import DayRun, Pace, day_of_run, open_day_run
from rag.tracing.wandb_folders import RunFolder, folders_to_upload, run_folders
from rag.tracing.wandb_run import RunAlert
from rag.tracing.wandb_sender import TraceSender
from rag.workspace import Workspace

AGAIN = "Nothing is lost; repeat `ragsmith sync` later."

# Seconds for which another process that delivers is waited for: it looks for traces every ten.
_LOCK_S = 12.0
# Folders that one process of W&B uploads.
_AT_ONCE = 50
_LOOK_S = 0.2
# Seconds without a finished folder after which the server is checked: W&B would wait for it without end.
_CHECK_S = 10.0


class _Delivery:
    """The parts of a delivery to W&B.

    Args:
        settings: Project and mode.
        workspace: The workspace with the runs.
        store: The store of the traces.
        config: Configuration shown by W&B; no secrets.
    """

    def __init__(
        self, settings: TrackingSettings, workspace: Workspace, store: TraceStore, config: Mapping[str, Any]
    ) -> None:
        self._settings = settings
        self._workspace = workspace
        self._store = store
        self._config = config


class TraceDelivery(_Delivery):
    """Sends the traces of the store to the W&B runs of their days."""

    name = "traces to W&B"

    def pending(self) -> int:
        """Return the number of traces that wait."""
        return 0 if self._settings.wandb == "off" else self._store.backlog().traces

    def send(self, progress: Callable[[int], None]) -> int:
        """Log all waiting traces, online or to the disk, and return their number.

        Raises:
            DeliveryError: W&B fails, or its server does not answer.
            WorkspaceBusy: Another process is delivering.
        """
        try:
            with self._workspace.delivering(wait_s=_LOCK_S):
                return self._send(progress)
        except WorkspaceBusy:
            if self._store.backlog().traces:
                raise
            # That process has delivered them meanwhile.
            return 0

    def _send(self, progress: Callable[[int], None]) -> int:
        sender = TraceSender(self._settings, self._workspace, self._store, self._config, Pace())
        try:
            works = sender.deliver(float("inf"), progress)
        finally:
            finished = sender.finish()
        status = sender.status
        if status is not None and (status.mode in ("failed", "off") or not (works and finished)):
            raise DeliveryError(f"The traces did not reach W&B. {status.detail.rstrip('.')}.", fix=AGAIN)
        return sender.sent


class AlertDelivery(_Delivery):
    """Logs alerts to the W&B run of the day, in a process that does not deliver traces while it runs."""

    def send(self, alert: RunAlert) -> None:
        """Log an alert.

        Raises:
            DeliveryError: W&B is off, or fails.
            WorkspaceBusy: Another process is delivering.
        """
        with self._workspace.delivering(wait_s=_LOCK_S):
            sender = TraceSender(self._settings, self._workspace, self._store, self._config, Pace())
            works = sender.alert(alert)
            finished = sender.finish()
        if not (works and finished):
            detail = sender.status.detail if sender.status else ""
            raise DeliveryError(f"W&B did not take an alert. {detail.rstrip('.')}.", fix=AGAIN)


class FolderDelivery(_Delivery):
    """Uploads the W&B runs on the disk, of all kinds, to the W&B server."""

    name = "W&B runs on this disk to the W&B server"

    def pending(self) -> int:
        """Return the number of run folders that wait; 0 if the settings leave them on the disk."""
        prepare_environment(self._workspace.root)
        found = len(folders_to_upload(self._workspace.wandb))
        return found if found and may_upload(self._settings) else 0

    def send(self, progress: Callable[[int], None]) -> int:
        """Upload all waiting folders, and return their number.

        Raises:
            DeliveryError: There is no API key, the server does not answer or refuses, or W&B fails.
            WorkspaceBusy: Another process is delivering, so the runs of days cannot be uploaded.
        """
        waiting = folders_to_upload(self._workspace.wandb)
        if not waiting:
            return 0
        with _wandb_errors():
            self._check_access(len(waiting))
        days = [folder for folder in waiting if day_of_run(folder.run_id)]
        others = [folder for folder in waiting if not day_of_run(folder.run_id)]
        upload = _Upload(self._workspace, progress)
        upload.send(others)
        if days:
            # Two writers of one run would replace each other's records.
            with self._workspace.delivering(wait_s=_LOCK_S):
                upload.send(days)
                self._renew_figures(days)
        return upload.sent

    def _check_access(self, waiting: int) -> None:
        prepare_environment(self._workspace.root)
        if resolve_mode(self._settings) != "online":
            raise DeliveryError(
                f"{counted(waiting, 'W&B run')} cannot be uploaded, because there is no API key.",
                fix="Run `wandb login`, or set WANDB_API_KEY, and repeat `ragsmith sync`.",
            )
        check_server()

    def _renew_figures(self, uploaded: Sequence[RunFolder]) -> None:
        """Write the figures of days whose run has a newer part: the upload has replaced them by older ones."""
        newest = {folder.run_id: folder for folder in run_folders(self._workspace.wandb)}
        for run_id in {folder.run_id for folder in uploaded if newest[folder.run_id] not in uploaded}:
            day = day_of_run(run_id)
            if day is not None:
                run = open_day_run(self._settings, self._workspace, self._config, day)
                DayRun(day, run, self._store.engine, Pace()).finish()


class _Upload:
    """Uploads folders with W&B's own command, which marks those that the server has."""

    def __init__(self, workspace: Workspace, progress: Callable[[int], None]) -> None:
        self._workspace = workspace
        self._progress = progress
        self.sent = 0

    def send(self, folders: Sequence[RunFolder]) -> None:
        """Upload folders, those of one run in their order.

        Raises:
            DeliveryError: At least one was not uploaded.
        """
        for start in range(0, len(folders), _AT_ONCE):
            self._send(folders[start : start + _AT_ONCE])

    def _send(self, folders: Sequence[RunFolder]) -> None:
        arguments = ["sync", "--include-online", "--yes", *(str(folder.file) for folder in folders)]
        before = self.sent
        with TemporaryFile("w+", encoding="utf-8") as output:
            process = subprocess.Popen(  # noqa: S603 - the command of the installed package
                [sys.executable, "-m", "wandb", *arguments],
                cwd=self._workspace.root,
                env=child_environment(self._workspace.root),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                self._watch(process, folders, before)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
            reason = _reason(output)
        self._count(folders, before)
        if missing := len(folders) - (self.sent - before):
            said = f": {reason.rstrip('.')}." if reason else "."
            raise DeliveryError(f"{counted(missing, 'W&B run')} could not be uploaded{said}", fix=AGAIN)

    def _watch(self, process: subprocess.Popen[bytes], folders: Sequence[RunFolder], before: int) -> None:
        """Wait for the end of the process, as long as folders are finished or the server answers."""
        checked = time.monotonic()
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_S)
            if self._count(folders, before):
                checked = time.monotonic()
            if time.monotonic() - checked > _CHECK_S:
                with _wandb_errors():
                    check_server()
                checked = time.monotonic()

    def _count(self, folders: Sequence[RunFolder], before: int) -> bool:
        """Count the uploaded folders, and return whether there are more of them."""
        sent = before + sum(folder.uploaded for folder in folders)
        if sent == self.sent:
            return False
        self.sent = sent
        self._progress(sent)
        return True


def _reason(output: IO[str]) -> str:
    """Return the first error in the output of W&B's command, in one line; empty if there is none."""
    output.seek(0)
    errors = (line.partition("ERROR ")[2] for line in output if "ERROR " in line)
    return redact(next(errors, "").strip())[:500]


@contextmanager
def _wandb_errors() -> Iterator[None]:
    try:
        yield
    except SwitchedOffError as error:
        raise DeliveryError("WANDB_MODE switches W&B off.", fix="Unset it to upload runs.") from error
    except UnusableError as error:
        raise DeliveryError(str(error), fix=AGAIN) from error
