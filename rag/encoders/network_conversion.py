"""Converting a network for OpenVINO, once, in a process of its own.

The conversion needs torch, and the process that answers must not carry torch's memory and start-up time.
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
    """Changes when one of the files does, known without reading them: 16 hexadecimal digits."""
    told = "".join(f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in paths)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def convert_once(target: Path, what: str, module: str, arguments: Sequence[str], fix: str) -> None:
    """Make the folder ``target`` where it is missing: whole, or not at all.

    Args:
        target: Its parent is the folder of models.
        what: For messages, as ``the encoder NAME``.
        module: Run as ``python -m module *arguments FOLDER``, to write into the folder.
        arguments: For the module.
        fix: What to do where the conversion fails.

    Raises:
        EncoderError: The conversion fails.
        StorageFull: The disk has no room left.
    """
    from filelock import FileLock

    with disk_errors(f"convert {what} into {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
    # The lock dies with its process: whoever holds it may clear away what a killed conversion left.
    with FileLock(target.parent.with_name("converting.lock")):
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
                raise EncoderError(
                    f"{what[0].upper()}{what[1:]} cannot be converted to OpenVINO: {reason}.", fix=fix
                )
            with disk_errors(f"convert {what} into {target}"):
                work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
