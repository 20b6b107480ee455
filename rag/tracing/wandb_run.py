"""The W&B run of a chat, a training or an evaluation, which may fail without anybody but the log noticing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    """How tracking stands.

    Attributes:
        mode: What happens to results now. Until the first delivery it is what the settings ask for, and
            ``offline`` for ``auto``.
        detail: One sentence; for ``failed`` the reason.
        run_path: ``entity/project/run`` online, the run's folder offline; empty without a run.
    """

    mode: Mode
    detail: str = ""
    run_path: str = ""


class SwitchedOffError(Exception):
    """W&B's own settings say that there is to be no run."""


class UnusableError(Exception):
    """Tracking cannot go on; the message says why."""


class TrackedRun:
    """A W&B run, or none where tracking is off or has failed. No method raises.

    The first failure ends the run: one line goes to the log, ``status`` says why, and nothing more is attempted.

    Attributes:
        status: How it stands.
        id: The run's id in W&B; empty without a run.
    """

    def __init__(self, subject: str, status: TrackerStatus, run: Any = None) -> None:
        self._subject = subject
        self._run = run
        self.status = status
        self.id: str = "" if run is None else run.id

    def attempt(self, use: Callable[[Any], object]) -> bool:
        """Call ``use`` with the W&B run; return whether there is one and nothing failed."""
        if self._run is None:
            return False
        try:
            use(self._run)
        except Exception as error:  # noqa: BLE001 - whatever W&B raises, the work that it tracks goes on
            self._fail(error)
            return False
        return True

    def flush(self) -> bool:
        """Wait until W&B's service has taken all that was logged; return whether it has."""
        return self.attempt(_round_trip)

    def finish(self, *, failed: bool = False) -> bool:
        """End the run, marked as failed or not; return whether W&B has written all that was logged."""
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
    """A table of a run whose rows are logged many at a time.

    Args:
        name: Its key in the run's history; the tables that follow are ``NAME_1``, ``NAME_2`` …
        columns: One name for each value of a row.
        increments: Writes after which a new table begins. W&B shows at most 100 of one table, and keeps the rows
            of a table in memory until then.
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
        """Log the waiting rows, if there are any."""
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
    """Start a W&B run, or say in its status why there is none.

    Args:
        settings: Project and mode.
        root: The workspace's folder; the run's files are kept in ``wandb`` below.
        config: What W&B shows beside the run; secrets are masked.
        subject: What is tracked, as a message names it.
        job_type: ``chat``, ``tune`` or ``evaluation``.
        group: The name of runs that belong together.
    """
    if settings.wandb == "off":
        return TrackedRun(subject, TrackerStatus("off", "Tracking is switched off."))
    _prepare_environment(root)
    try:
        mode = _resolve_mode(settings)
        run = _init(settings, root, config, mode, job_type, group)
    except SwitchedOffError:
        return TrackedRun(subject, TrackerStatus("off", "WANDB_MODE switches W&B off."))
    except Exception as error:  # noqa: BLE001 - whatever W&B raises, the work that it tracks goes on
        if isinstance(error, ConnectionError):
            _disconnect()
        return TrackedRun(subject, _failed(subject, error))
    path = run.path if mode == "online" else str(Path(run.settings.sync_file).parent)
    _log.info("W&B %s: %s", mode, run.url if mode == "online" else path)
    return TrackedRun(subject, TrackerStatus(mode, _DETAIL[mode], path), run)


def kill_service() -> None:
    """End W&B's service process where it hangs: this process would otherwise wait for it at exit."""
    import psutil

    for child in psutil.Process().children():
        if child.name().startswith("wandb-core"):
            child.kill()


def _failed(subject: str, error: Exception, run_path: str = "") -> TrackerStatus:
    # The first line: W&B adds advice on its own settings below.
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
    """Make W&B forget a service that does not answer.

    Its exit hook would otherwise print a traceback, and no later run of this process could start.
    """
    import wandb

    kill_service()
    try:
        wandb.teardown()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - that it is gone is known
        _log.debug("W&B's service had died: %s", error)


def _prepare_environment(root: Path) -> None:
    """Set the switches that W&B reads when it is imported.

    Weave, once imported by another library, makes it ask for a key; an error report would go to a server that
    nobody chose; files for artifacts would land in the home folder.
    """
    os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", str(root / "wandb" / "data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(root / "wandb" / "cache"))


def _resolve_mode(settings: TrackingSettings) -> Literal["online", "offline"]:
    """Choose by the settings, W&B's own settings, and whether there is a key."""
    import wandb
    from wandb.sdk.lib import wbauth

    # For the process as well as for a run: messages about keys are printed before a run's settings count.
    wandb.setup(wandb.Settings(silent=True))
    if settings.wandb == "offline":
        return "offline"
    own = wandb.setup().settings
    if settings.wandb == "auto" and own.mode == "disabled":
        raise SwitchedOffError
    if settings.wandb == "auto" and own.mode in ("offline", "dryrun"):
        return "offline"
    # W&B's own search through the environment, netrc and its settings. Without a key, `wandb.init` would ask
    # for one on the terminal.
    key = wbauth.authenticate_session(host=own.base_url, source="ragsmith", prompt=False, update_session=False)
    if key is not None:
        return "online"
    if settings.wandb == "online":
        raise UnusableError("W&B is set to online and there is no API key: run `wandb login`, or set it to auto.")
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
        # W&B adds its own folder `wandb` to this one.
        dir=str(root),
        # W&B writes into the settings that it is given: they are created anew for each run.
        settings=wandb.Settings(
            silent=True,
            console="off",
            reinit="create_new",
            init_timeout=_INIT_TIMEOUT_S,
            finish_timeout=_FINISH_TIMEOUT_S,
            use_dot_wandb=False,
            symlink=False,
            # Nothing of the person or the machine: no code, repository, packages, host name or statistics.
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
            # The default of 15 seconds is what a killed process would lose.
            x_transaction_log_flush_interval=1,
        ),
    )
    if not Path(run.settings.sync_file).is_relative_to(root):
        # Where it cannot write, W&B quietly takes a folder for temporary files.
        run.finish()
        raise UnusableError(f"W&B cannot write to {root / 'wandb'}.")
    return run
