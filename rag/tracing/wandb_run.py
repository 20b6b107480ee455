"""W&B runs of chats, trainings and evaluations, whose failures only affect the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from rag.errors import first_line
from rag.redaction import MASK, is_secret_key, redact_json
from rag.settings import TrackingSettings
from rag.tracing.wandb_access import (
    SwitchedOffError,
    UnusableError,
    check_server,
    prepare_environment,
    resolve_mode,
)
from rag.tracing.wandb_folders import RunFolder

Mode = Literal["online", "offline", "off", "failed"]

_INIT_TIMEOUT_S = 15
_FINISH_TIMEOUT_S = 20
_DETAIL = {"online": "Results go to the W&B server.", "offline": "Results go to a W&B run on this disk."}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrackerStatus:
    """The state of tracking.

    Attributes:
        mode: The current mode. Before the first delivery, it is the configured one, or ``offline`` for ``auto``.
        detail: One sentence; the reason for ``failed``.
        run_path: ``entity/project/run`` online, the run's folder offline; empty without a run.
    """

    mode: Mode
    detail: str = ""
    run_path: str = ""


@dataclass(frozen=True, slots=True)
class RunLabel:
    """What identifies a W&B run.

    Attributes:
        subject: The tracked work, for messages.
        job_type: ``day``, ``tune`` or ``evaluation``.
        group: Name of a group of related runs.
        id: The id of a run that several processes continue; by default, a new one.
        name: The name that W&B shows; by default, W&B makes one up.
    """

    subject: str
    job_type: str
    group: str | None = None
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class RunAlert:
    """An alert of a run, which W&B sends by mail or to Slack; offline, when the run is uploaded.

    Attributes:
        level: ``INFO``, ``WARN`` or ``ERROR``.
    """

    title: str
    text: str
    level: str


class TrackedRun:
    """A W&B run, or a placeholder if tracking is off or has failed. No method raises.

    The first failure ends the run: it is logged in one line and in ``status``, and later calls have no effect.

    Attributes:
        status: The state of tracking.
        id: The run's id in W&B; empty without a run.
    """

    def __init__(
        self, subject: str, status: TrackerStatus, run: Any = None, folder: RunFolder | None = None
    ) -> None:
        self._subject = subject
        self._run = run
        self._folder = folder
        self.status = status
        self.id: str = "" if run is None else run.id

    def attempt(self, use: Callable[[Any], object]) -> bool:
        """Call ``use`` with the W&B run, and return whether that succeeded."""
        if self._run is None:
            return False
        try:
            use(self._run)
        except Exception as error:  # noqa: BLE001 - tracking must not affect the tracked work
            self._fail(error)
            return False
        return True

    def flush(self) -> bool:
        """Wait until W&B's service has received everything, and return whether it has."""
        return self.attempt(_round_trip)

    def finish(self, *, failed: bool = False) -> bool:
        """End the run, and return whether W&B has written everything: to its server online, else to the disk."""
        finished = self.attempt(lambda run: run.finish(exit_code=int(failed)))
        self._run = None
        if finished:
            self._leave_folder(uploaded=self.status.mode == "online")
        return finished

    def _leave_folder(self, *, uploaded: bool = False) -> None:
        folder, self._folder = self._folder, None
        if folder is None:
            return
        try:
            folder.leave(uploaded=uploaded)
        except OSError as error:
            # When this process has ended, the folder waits for its upload, perhaps a second one.
            _log.debug("The folder %s could not be marked: %s", folder.path, error)

    def _fail(self, error: Exception) -> None:
        run, self._run = self._run, None
        self.status = _failed(self._subject, error, self.status.run_path)
        try:
            run.finish(exit_code=1)
        except Exception as second:  # noqa: BLE001 - the first failure is in the log
            _log.debug("The failed W&B run could not be ended: %s", second)
            _disconnect()
        self._leave_folder()


def open_run(settings: TrackingSettings, root: Path, config: Mapping[str, Any], label: RunLabel) -> TrackedRun:
    """Start a W&B run, or continue the one with the label's id; if there is none, its status has the reason.

    Args:
        settings: Project and mode.
        root: The workspace's folder; the run's files go to its subfolder ``wandb``.
        config: Configuration shown by W&B; secrets are masked.
        label: What identifies the run.
    """
    if settings.wandb == "off":
        return TrackedRun(label.subject, TrackerStatus("off", "Tracking is switched off."))
    prepare_environment(root)
    try:
        _check_folder(root / "wandb")
        mode = resolve_mode(settings)
        if mode == "online":
            # W&B itself would wait for its whole time-out.
            check_server()
        run, folder = _init(settings, root, config, mode, label)
    except SwitchedOffError:
        return TrackedRun(label.subject, TrackerStatus("off", "WANDB_MODE switches W&B off."))
    except Exception as error:  # noqa: BLE001 - tracking must not affect the tracked work
        if isinstance(error, ConnectionError):
            _disconnect()
        return TrackedRun(label.subject, _failed(label.subject, error))
    path = run.path if mode == "online" else str(folder.path)
    _log.info("W&B %s: %s", mode, run.url if mode == "online" else path)
    return TrackedRun(label.subject, TrackerStatus(mode, _DETAIL[mode], path), run, folder)


def kill_service() -> None:
    """Kill W&B's hanging service process, which this process would wait for at exit."""
    import psutil

    for child in psutil.Process().children():
        if child.name().startswith("wandb-core"):
            child.kill()


def _failed(subject: str, error: Exception, run_path: str = "") -> TrackerStatus:
    # Only the first line, since W&B appends advice on its own settings.
    reason = (
        first_line(error) if isinstance(error, UnusableError) else f"{type(error).__name__}: {first_line(error)}"
    )
    _log.warning("W&B tracking of %s has stopped; the workspace has everything. %s", subject, reason)
    return TrackerStatus("failed", reason, run_path)


def _round_trip(run: Any) -> None:
    try:
        run.status()
    except Exception as error:
        raise UnusableError("W&B's service process has died.") from error


def _disconnect() -> None:
    """Disconnect W&B from an unresponsive service.

    Otherwise, its exit hook would print a traceback, and no later run of this process could start.
    """
    import wandb

    kill_service()
    try:
        wandb.teardown()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the service is known to be gone
        _log.debug("W&B's service had died: %s", error)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written: W&B's service would report every file that it misses there."""
    try:
        folder.mkdir(exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UnusableError(f"W&B cannot write to {folder}: {error.strerror or error}.") from error


def _init(
    settings: TrackingSettings,
    root: Path,
    config: Mapping[str, Any],
    mode: Literal["online", "offline"],
    label: RunLabel,
) -> tuple[Any, RunFolder]:
    import wandb

    run = wandb.init(
        project=settings.project,
        entity=settings.entity,
        job_type=label.job_type,
        group=label.group,
        name=label.name,
        id=label.id,
        # Also offline: the upload then numbers the steps after those that the server has.
        resume="allow" if label.id else None,
        config={name: MASK if is_secret_key(name) else redact_json(value) for name, value in config.items()},
        mode=mode,
        # W&B appends `wandb` to this folder.
        dir=str(root),
        # W&B modifies its settings, so they are created for every run.
        settings=wandb.Settings(
            silent=True,
            console="off",
            reinit="create_new",
            init_timeout=_INIT_TIMEOUT_S,
            finish_timeout=_FINISH_TIMEOUT_S,
            finish_timeout_raises=True,
            show_warnings=False,
            use_dot_wandb=False,
            symlink=False,
            # No data about the user or machine: code, repository, packages, host name, statistics.
            save_code=False,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            label_disable=True,
            host="",
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
            # A killed process loses everything since the last flush; the default is 15 seconds.
            x_transaction_log_flush_interval=1,
        ),
    )
    folder = RunFolder(Path(run.settings.sync_file))
    if not folder.path.is_relative_to(root):
        # If it cannot write, W&B silently uses a temporary folder.
        run.finish()
        raise UnusableError(f"W&B cannot write to {root / 'wandb'}.")
    try:
        folder.enter()
    except OSError:
        run.finish()
        raise
    return run, folder
