"""One-time conversion of a network for OpenVINO, in a process of its own.

The conversion needs torch, whose memory and start-up time the answering process avoids.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rag.errors import EncoderError
from rag.workspace import disk_errors

GRAPH = "model.xml"
TOKENIZER = "tokenizer.json"


def file_key(*paths: Path) -> str:
    """Return a key that changes with the files, by their size and time: 16 hexadecimal digits."""
    states = "".join(f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in paths)
    return hashlib.sha256(states.encode()).hexdigest()[:16]


def convert_once(target: Path, what: str, module: str, arguments: Sequence[str], fix: str) -> None:
    """Create the folder ``target`` atomically, if it is missing.

    Args:
        target: A folder in the folder of models.
        what: Description for messages, such as ``the encoder NAME``.
        module: The module to run as ``python -m module *arguments FOLDER``; it writes into that folder.
        arguments: Arguments of the module.
        fix: The remedy for a failed conversion.

    Raises:
        EncoderError: The conversion fails.
        StorageFull: The disk is full.
    """
    from filelock import FileLock

    with disk_errors(f"convert {what} into {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
    # The system releases the lock of a dead process, so its owner may delete what a killed conversion left.
    # Workspaces whose folders of models are links to the same one share its lock.
    with FileLock(target.parent.resolve().with_name("converting.lock")):
        if target.is_dir():
            return
        for left_over in target.parent.glob(".converting-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        with disk_errors(f"convert {what} into {target}"):
            work = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
        try:
            done = subprocess.run(  # noqa: S603 - our own module and paths
                [sys.executable, "-m", module, *arguments, str(work)],
                capture_output=True,
                text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
                check=False,
            )
            if done.returncode != 0:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise EncoderError(f"{what[0].upper()}{what[1:]} cannot be converted: {reason}.", fix=fix)
            with disk_errors(f"convert {what} into {target}"):
                work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
