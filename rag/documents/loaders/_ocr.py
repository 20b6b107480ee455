"""Text recognition in scanned pages, with tesseract where it is installed."""

from __future__ import annotations

import io
import shutil
import subprocess
import time
from typing import Any

from rag.documents.loaders._text import clean

_DOTS_PER_POINT = 300 / 72
_MOST_PIXELS = 20_000_000
_MOST_LANGUAGES = 3
INSTALL = "Install tesseract, and scanned pages are read."


class Recognition:
    """Recognizes the text of pages until its time is used up.

    Args:
        seconds: Time for one file; 0 turns recognition off.
    """

    def __init__(self, seconds: float) -> None:
        self._program = shutil.which("tesseract") if seconds else None
        self._until = time.monotonic() + seconds
        self._languages: str | None = None

    @property
    def available(self) -> bool:
        """Whether pages can be recognized."""
        return self._program is not None

    def text_of(self, page: Any) -> str:
        """Return the text in the image of a page; empty without any, if the program fails or the time is over."""
        left = self._until - time.monotonic()
        if self._program is None or left <= 0:
            return ""
        if self._languages is None:
            self._languages = self._installed_languages()
        options = ["-l", self._languages] if self._languages else []
        try:
            done = subprocess.run(  # noqa: S603 - the installed program, and no argument from the file
                [self._program, "-", "-", *options],
                input=_image(page),
                capture_output=True,
                timeout=left,
                check=False,
            )
        except (subprocess.TimeoutExpired, OSError):
            return ""
        return clean(done.stdout.decode("utf-8", "replace")).replace("\f", "") if done.returncode == 0 else ""

    def _installed_languages(self) -> str:
        """Return the first installed languages, joined for the program; empty for its default."""
        listed = subprocess.run(  # noqa: S603
            [str(self._program), "--list-langs"], capture_output=True, text=True, timeout=10, check=False
        )
        # The first line is a title; osd finds the orientation and is no language.
        names = [
            name.strip() for name in listed.stdout.splitlines()[1:] if name.strip() not in ("", "osd", "snum")
        ]
        names.sort(key=lambda name: name != "eng")
        return "+".join(names[:_MOST_LANGUAGES])


def _image(page: Any) -> bytes:
    """Render a page as PNG."""
    width, height = page.get_size()
    scale = min(_DOTS_PER_POINT, (_MOST_PIXELS / max(width * height, 1)) ** 0.5)
    stream = io.BytesIO()
    page.render(scale=scale, grayscale=True).to_pil().save(stream, "PNG")
    return stream.getvalue()
