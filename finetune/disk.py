"""Writing large files: what the libraries say of a full disk, in words that a person can use."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rag.workspace import disk_errors

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def saving(what: str) -> Iterator[None]:
    """As ``rag.workspace.disk_errors``, for safetensors and numpy too.

    safetensors raises an error of its own that quotes the system's (``I/O error: No space left on device``).

    Raises:
        StorageFull: The disk has no room left.
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
