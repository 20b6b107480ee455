"""Starting the process of a training or of a sweep."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.run_folder import RunFolder
    from finetune.sweeps.sweep_folder import SweepFolder
    from finetune.work_folder import WorkFolder
    from rag.settings import TrackingSettings

# Importing torch and acquiring the lock takes seconds; a process that needs longer has failed.
START_S = 60.0
# Argument of the process that ends it before the first step.
PREVIEW = "--preview"


def launch(
    run: RunFolder, config: Path | None, environment: dict[str, str] | None, *, preview: bool = False
) -> None:
    """Start a training process, which outlives this one.

    Args:
        run: The run.
        config: The settings file that was named.
        environment: The variables of this process; None passes them on as they are.
        preview: Whether it ends before the first step, see ``finetune.training_preview``.

    Raises:
        TuningError: The process ends before the training has begun.
    """
    from rag.errors import TuningError

    process = _begun(run, ["finetune.worker", str(run.path), *([PREVIEW] if preview else [])], config, environment)
    if process.poll() not in (None, 0) and run.status.state != "failed":
        raise TuningError("The training did not start.", fix=f"See {run.path / 'log.txt'}.")


def launch_sweep(
    sweep: SweepFolder, tracking: TrackingSettings, config: Path | None, environment: dict[str, str]
) -> None:
    """Start the process of a sweep, which outlives this one; arguments as above.

    Raises:
        TuningError: The process ends before the first training has begun.
    """
    from rag.errors import TuningError

    arguments = ["finetune.sweeps.sweep_process", str(sweep.path), tracking.model_dump_json()]
    process = _begun(sweep, arguments, config, environment)
    if process.poll() not in (None, 0) and not sweep.problem:
        raise TuningError("The sweep did not start.", fix=f"See {sweep.path / 'log.txt'}.")


def _begun(
    folder: WorkFolder, arguments: list[str], config: Path | None, environment: dict[str, str] | None
) -> subprocess.Popen[bytes]:
    """Start a module as a process, and wait until it works in its folder or has ended."""
    folder.clear_stop()
    with (folder.path / "log.txt").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module and paths
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=None if environment is None else _environment(config, environment),
        )
    # Reaps the process if this one outlives it.
    threading.Thread(target=process.wait, name="training", daemon=True).start()
    until = time.monotonic() + START_S
    try:
        while not folder.is_active and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
    except KeyboardInterrupt:
        # It has its own session, so Ctrl-C does not reach it.
        folder.request_stop()
        raise
    return process


def _environment(config: Path | None, environment: dict[str, str]) -> dict[str, str]:
    from rag.settings import CONFIG_VARIABLE

    # W&B leaves the address of its service there, which may have ended by now.
    found = {name: value for name, value in environment.items() if name != "WANDB_SERVICE"}
    return found | ({CONFIG_VARIABLE: str(config.resolve())} if config else {})
