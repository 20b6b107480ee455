"""The process of a sweep that a page has started: ``python -m finetune.sweeps.sweep_process FOLDER TRACKING``."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

from finetune.launching import launch
from finetune.sweeps.sweep_folder import SweepFolder
from finetune.sweeps.sweep_work import SweepWork
from rag.errors import RagsmithError
from rag.settings import TrackingSettings
from rag.workspace import private_files

_log = logging.getLogger(__name__)


def main(folder: Path, tracking: TrackingSettings) -> int:
    """Work until all trials are finished, or until a stop is requested.

    Args:
        folder: The folder of the sweep.
        tracking: The W&B settings of its runs.

    Returns:
        The exit status: 1 if a training failed otherwise than by diverging; the reason is in ``problem.txt``.
    """
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    sweep = SweepFolder(folder)
    # The variables of this process name the settings file, and are fit for those that it starts.
    work = SweepWork(sweep, tracking, lambda run: launch(run, None, None), threading.Event(), lambda _: None)
    try:
        with private_files():
            finished = work.run()
    except RagsmithError as error:
        _log.error("%s", error)
        sweep.write_problem(str(error))
        return 1
    _log.info("Done." if finished else "Stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), TrackingSettings.model_validate_json(sys.argv[2])))
