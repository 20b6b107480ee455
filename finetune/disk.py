"""Writing large files: translate how libraries report a full disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rag.workspace import disk_errors

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def saving(what: str) -> Iterator[None]:
    """Translate disk errors as ``rag.workspace.disk_errors`` does, including those of safetensors and numpy.

    safetensors raises its own error that quotes the system's (``I/O error: No space left on device``).

    Raises:
        StorageFull: The disk is full.
        WorkspaceError: Any other failure to write.
    """
    with disk_errors(what):
        try:
            yield
        except Exception as error:
            for number in _FULL:
                if os.strerror(number) in str(error) and getattr(error, "errno", None) != number:
                    raise OSError(number, os.strerror(number)) from error
            raise
