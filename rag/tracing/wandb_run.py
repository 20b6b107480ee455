"""W&B runs of chats, trainings and evaluations, whose failures only affect the log."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from rag.errors import first_line
from rag.redaction import MASK, is_secret_key, redact_json
from rag.settings import TrackingSettings

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


class SwitchedOffError(Exception):
    """W&B is disabled by its own settings."""


class UnusableError(Exception):
    """Tracking is impossible for the reason in the message."""


class TrackedRun:
    """A W&B run, or a placeholder if tracking is off or has failed. No method raises.

    The first failure ends the run: it is logged in one line and in ``status``, and later calls have no effect.

    Attributes:
        status: The state of tracking.
        id: The run's id in W&B; empty without a run.
    """

    def __init__(self, subject: str, status: TrackerStatus, run: Any = None) -> None:
        self._subject = subject
        self._run = run
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
        """End the run, and return whether W&B has written everything."""
        finished = self.attempt(lambda run: run.finish(exit_code=int(failed)))
        self._run = None
        return finished

    def _fail(self, error: Exception) -> None:
        run, self._run = self._run, None
        self.status = _failed(self._subject, error, self.status.run_path)
        try:
            run.finish(exit_code=1)
        except Exception as second:  # noqa: BLE001 - the first failure is in the log
            _log.debug("The failed W&B run could not be ended: %s", second)
            _disconnect()


class RunTable:
    """A table of a run whose rows are logged in batches.

    Args:
        name: Its key in the run's history; further tables are ``NAME_1``, ``NAME_2`` …
        columns: Names of the columns.
        increments: Number of writes per table. W&B shows at most 100, and keeps the rows of a table in memory.
    """

    def __init__(self, name: str, columns: Sequence[str], increments: int = 1) -> None:
        self._name = name
        self._columns = list(columns)
        self._limit = increments
        self._table: Any = None
        self._tables = 0
        self.increments = 0
        self.rows: list[Sequence[Any]] = []

    def write(self, run: Any) -> None:
        """Log the collected rows, if there are any."""
        import wandb

        if not self.rows:
            return
        if self._table is None or self.increments == self._limit:
            self._table = wandb.Table(
                columns=self._columns, log_mode="IMMUTABLE" if self._limit == 1 else "INCREMENTAL"
            )
            self._tables += 1
            self.increments = 0
        for row in self.rows:
            self._table.add_data(*row)
        run.log({self._name if self._tables == 1 else f"{self._name}_{self._tables - 1}": self._table})
        self.increments += 1
        self.rows.clear()


def open_run(
    settings: TrackingSettings,
    root: Path,
    config: Mapping[str, Any],
    *,
    subject: str,
    job_type: str,
    group: str | None = None,
) -> TrackedRun:
    """Start a W&B run; if there is none, its status has the reason.

    Args:
        settings: Project and mode.
        root: The workspace's folder; the run's files go to its subfolder ``wandb``.
        config: Configuration shown by W&B; secrets are masked.
        subject: The tracked work, for messages.
        job_type: ``chat``, ``tune`` or ``evaluation``.
        group: Name of a group of related runs.
    """
    if settings.wandb == "off":
        return TrackedRun(subject, TrackerStatus("off", "Tracking is switched off."))
    _prepare_environment(root)
    try:
        _check_folder(root / "wandb")
        mode = _resolve_mode(settings)
        run = _init(settings, root, config, mode, job_type, group)
    except SwitchedOffError:
        return TrackedRun(subject, TrackerStatus("off", "WANDB_MODE switches W&B off."))
    except Exception as error:  # noqa: BLE001 - tracking must not affect the tracked work
        if isinstance(error, ConnectionError):
            _disconnect()
        return TrackedRun(subject, _failed(subject, error))
    path = run.path if mode == "online" else str(Path(run.settings.sync_file).parent)
    _log.info("W&B %s: %s", mode, run.url if mode == "online" else path)
    return TrackedRun(subject, TrackerStatus(mode, _DETAIL[mode], path), run)


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


def _prepare_environment(root: Path) -> None:
    """Set the variables that W&B reads on import.

    Otherwise, Weave, if another library imports it, would ask for a key, error reports would be sent to a server,
    and files of artifacts would go to the home folder.
    """
    os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", str(root / "wandb" / "data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(root / "wandb" / "cache"))


def _check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written: W&B's service would report every file that it misses there."""
    try:
        folder.mkdir(exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UnusableError(f"W&B cannot write to {folder}: {error.strerror or error}.") from error


def _resolve_mode(settings: TrackingSettings) -> Literal["online", "offline"]:
    """Determine the mode by our settings, W&B's settings, and the presence of a key."""
    import wandb
    from pydantic import ValidationError
    from wandb.sdk.lib import wbauth

    # Silenced for the process, too, because messages about keys are printed before a run's settings apply.
    try:
        wandb.setup(wandb.Settings(silent=True))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise UnusableError(f"WANDB_{name} is invalid: {first['msg']}.") from error
    if settings.wandb == "offline":
        return "offline"
    own = wandb.setup().settings
    if settings.wandb == "auto" and own.mode == "disabled":
        raise SwitchedOffError
    if settings.wandb == "auto" and own.mode in ("offline", "dryrun"):
        return "offline"
    # W&B searches the environment, netrc and its settings. Without a key, `wandb.init` would prompt for one.
    key = wbauth.authenticate_session(host=own.base_url, source="ragsmith", prompt=False, update_session=False)
    if key is not None:
        return "online"
    if settings.wandb == "online":
        raise UnusableError("W&B is set to online, but there is no API key: run `wandb login`, or set it to auto.")
    return "offline"


def _init(
    settings: TrackingSettings,
    root: Path,
    config: Mapping[str, Any],
    mode: Literal["online", "offline"],
    job_type: str,
    group: str | None,
) -> Any:
    import wandb

    run = wandb.init(
        project=settings.project,
        entity=settings.entity,
        job_type=job_type,
        group=group,
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
    if not Path(run.settings.sync_file).is_relative_to(root):
        # If it cannot write, W&B silently uses a temporary folder.
        run.finish()
        raise UnusableError(f"W&B cannot write to {root / 'wandb'}.")
    return run
