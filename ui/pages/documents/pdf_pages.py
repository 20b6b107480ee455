"""A page of a PDF as an image with a passage marked.

``PdfPages`` renders in a child process: the file may be hostile, or may have changed since it was ingested.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from rag.documents.loaders._frames import FrameError
from rag.documents.loaders.isolated import ParseLimits, explained
from rag.documents.sandbox import Sandbox
from rag.errors import LoadError

WIDTH = 1400
"""Pixels across: sharp in a reading column on a high-density screen."""
MAX_PIXELS = 12_000_000
"""Pixels of an image at most, so that a poster of ten metres does not use up the memory."""

PAGE_S = 20.0
"""Seconds for one page at most, because a person is waiting."""
LONGEST_FRAME = 64_000_000

_MARK = (255, 225, 110)
# PDFium returns positions on a page in whole numbers, of which the page has so many.
_GRID = 100_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on a page, in fractions of its width and height from the upper left, 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class PageImage:
    """A rendered page.

    Attributes:
        boxes: The lines of the quote; empty where it was not found.
    """

    png: bytes
    boxes: tuple[Box, ...]


class PdfPages:
    """Finds quotes on pages and renders pages in a child process, which starts with the first page.

    Safe to use from several threads, which take turns.

    Args:
        limits: Limits of memory and time; at most ``PAGE_S`` seconds for a page.
    """

    def __init__(self, limits: ParseLimits) -> None:
        self._memory_mb = limits.memory_mb
        self._timeout_s = min(limits.timeout_s, PAGE_S)
        self._sandbox = Sandbox(
            f"{__name__}:serve",
            memory_mb=self._memory_mb,
            timeout_s=self._timeout_s,
            longest_frame=LONGEST_FRAME,
        )

    def close(self) -> None:
        """End the child process."""
        self._sandbox.close()

    def find(self, path: Path, number: int, quote: str, at: float) -> tuple[Box, ...]:
        """Find a quote; see ``find_on_page``.

        Raises:
            LoadError: As there, and where the file takes more than a limit allows.
        """
        return self._ask(path, number, quote, at, draw=False).boxes

    def render(self, path: Path, number: int, quote: str, at: float) -> PageImage:
        """Render a page; see ``render_page``.

        Raises:
            LoadError: As there, and where the file takes more than a limit allows.
        """
        return self._ask(path, number, quote, at, draw=True)

    def _ask(self, path: Path, number: int, quote: str, at: float, *, draw: bool) -> PageImage:
        request = {"path": str(path), "number": number, "quote": quote, "at": at, "draw": draw}
        with explained(path, self._memory_mb, self._timeout_s), closing(self._sandbox.run(request)) as given:
            # Only two frames are valid; a child under the control of a hostile file might send them without end.
            frames = list(islice(given, 3))
            if len(frames) != 2:
                raise FrameError("not a page")
            return PageImage(frames[1], _boxes_of(frames[0]))


def serve(request: dict[str, Any]) -> Iterator[bytes]:
    """Answer a request of ``PdfPages``: the boxes as JSON, then the image, empty where none is requested."""
    where = (Path(request["path"]), request["number"], request["quote"], request["at"])
    image = render_page(*where) if request["draw"] else PageImage(b"", find_on_page(*where))
    yield json.dumps([astuple(box) for box in image.boxes]).encode()
    yield image.png


def _boxes_of(frame: bytes) -> tuple[Box, ...]:
    try:
        return tuple(Box(*(float(side) for side in sides)) for sides in json.loads(frame))
    except (ValueError, TypeError, RecursionError) as error:
        raise FrameError("not boxes") from error


def find_on_page(path: Path, number: int, quote: str, at: float) -> tuple[Box, ...]:
    """Find the rectangles of a quote on a page.

    Args:
        number: Page, from 1.
        at: Expected position in the text of the page, 0 to 1, for a quote that occurs more than once.

    Raises:
        LoadError: The file cannot be opened, or has no such page.
    """
    return _on_page(path, number, lambda page: _boxes(page, quote, at))


def render_page(path: Path, number: int, quote: str, at: float) -> PageImage:
    """Render a page as PNG, with a quote marked.

    Args:
        number: Page, from 1.
        at: See ``find_on_page``.

    Raises:
        LoadError: The file cannot be opened, or has no such page.
    """

    def draw(page: Any) -> tuple[Any, tuple[Box, ...]]:
        width, height = page.get_size()
        scale = min(WIDTH / width, (MAX_PIXELS / (width * height)) ** 0.5)
        return page.render(scale=scale, may_draw_forms=False).to_pil(), _boxes(page, quote, at)

    picture, boxes = _on_page(path, number, draw)
    return PageImage(_marked(picture, boxes), boxes)


def _on_page(path: Path, number: int, work: Callable[[Any], T]) -> T:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
        try:
            if not 1 <= number <= len(document):
                raise LoadError(f"{path.name} has no page {number}.")
            return work(document[number - 1])
        finally:
            document.close()
    except (pypdfium2.PdfiumError, OSError) as error:
        raise LoadError(f"{path.name} cannot be shown as pages: {error}.") from error


def _boxes(page: Any, quote: str, at: float) -> tuple[Box, ...]:
    from pypdfium2 import raw

    wanted = _letters(quote)[0]
    text = page.get_textpage()
    # Character by character: the text in one piece leaves some out, which would shift the indices.
    written = "".join(chr(raw.FPDFText_GetUnicode(text, index)) for index in range(text.count_chars()))
    letters, places = _letters(written)
    first = _nearest(letters, wanted, at) if wanted else -1
    if first < 0:
        return ()
    start, stop = places[first], places[first + len(wanted) - 1] + 1
    rectangles = [text.get_rect(index) for index in range(text.count_rects(start, stop - start))]
    return tuple(_box(page, *rectangle) for rectangle in rectangles)


def _box(page: Any, left: float, bottom: float, right: float, top: float) -> Box:
    """Convert a rectangle of PDF coordinates to the page as it is displayed: cropped and rotated."""
    x1, y1 = _displayed(page, left, top)
    x2, y2 = _displayed(page, right, bottom)
    return Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def _displayed(page: Any, x: float, y: float) -> tuple[float, float]:
    from ctypes import byref, c_int

    from pypdfium2 import raw

    across, down = c_int(), c_int()
    raw.FPDF_PageToDevice(page, 0, 0, _GRID, _GRID, 0, x, y, byref(across), byref(down))
    return across.value / _GRID, down.value / _GRID


def _letters(text: str) -> tuple[str, list[int]]:
    """Return the letters and digits of a text, and their indices in it.

    A loader may have changed line ends, hyphens and spaces, but not letters.
    """
    kept = [(char.lower(), at) for at, char in enumerate(text) if char.isalnum()]
    return "".join(char for char, _ in kept), [at for (char, at) in kept for _ in char]


def _nearest(letters: str, wanted: str, at: float) -> int:
    """Return the index of the occurrence of ``wanted`` nearest to its expected position; -1 for none."""
    best = found = letters.find(wanted)
    while found >= 0:
        if abs(found - at * len(letters)) < abs(best - at * len(letters)):
            best = found
        found = letters.find(wanted, found + 1)
    return best


def _marked(picture: Any, boxes: tuple[Box, ...]) -> bytes:
    from PIL import Image, ImageChops, ImageDraw

    page = picture.convert("RGB")
    if boxes:
        layer = Image.new("RGB", page.size, "white")
        draw = ImageDraw.Draw(layer)
        width, height = page.size
        for box in boxes:
            draw.rectangle(
                (box.left * width - 2, box.top * height - 2, box.right * width + 2, box.bottom * height + 2),
                fill=_MARK,
            )
        # Multiplied, the letters stay black under the mark.
        page = ImageChops.multiply(page, layer)
    out = io.BytesIO()
    page.save(out, "PNG", compress_level=3)
    return out.getvalue()
