"""The lock of a library: one process writes at a time."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prompts.template import NAME, PromptTemplateError


@contextmanager
def writing_prompt(library: Path, name: str) -> Iterator[Path]:
    """Lock a library and yield the folder of a prompt.

    Raises:
        PromptTemplateError: The name is invalid, or a file cannot be written.
    """
    if not re.fullmatch(NAME, name):
        raise PromptTemplateError(
            f"The prompt name {name!r} is invalid: use lower-case letters, digits and dashes, a letter first."
        )
    from filelock import FileLock

    try:
        library.mkdir(parents=True, exist_ok=True)
        with FileLock(library / ".lock"):
            yield library / name
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise PromptTemplateError(f"The prompt {name} cannot be written to {library}: {reason}.") from error
