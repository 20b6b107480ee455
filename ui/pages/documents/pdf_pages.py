"""A page of a PDF as an image, with a passage marked where it stands on the paper.

``PdfPages`` does it in a child process: the file may be hostile, or may have changed since it was ingested.
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
"""Pixels across: sharp at the width of a reading column on a dense screen."""
MAX_PIXELS = 12_000_000
"""Of one image; a poster of ten metres must not take the memory of the machine."""

PAGE_S = 20.0
"""Seconds for one page, at most: a person is waiting."""
LONGEST_FRAME = 64_000_000

_MARK = (255, 225, 110)
# Places on a page are asked for in whole numbers.
_GRID = 100_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on a page, in shares of its width and height from the upper left, 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class PageImage:
    """A rendered page.

    Attributes:
        boxes: Where the quote stands; empty where it was not found.
    """

    png: bytes
    boxes: tuple[Box, ...]


class PdfPages:
    """Finds quotes on pages and renders pages in a child process, which starts with the first page.

    Safe to use from several threads, which take turns.

    Args:
        limits: For memory and time; a page has ``PAGE_S`` seconds at most.
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
        """End the child."""
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
            # A third one is more than there should be, and a child that was taken over would never end.
            frames = list(islice(given, 3))
            if len(frames) != 2:
                raise FrameError("not a page")
            return PageImage(frames[1], _boxes_of(frames[0]))


def serve(request: dict[str, Any]) -> Iterator[bytes]:
    """Answer a request of ``PdfPages``: the boxes in JSON, then the image, empty where none was asked for."""
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
    """Where a quote stands on a page.

    Args:
        number: Page, from 1.
        at: Where in the page's text it is expected, 0 to 1, for a quote that occurs more than once.

    Raises:
        LoadError: The file cannot be opened, or has no such page.
    """
    return _on_page(path, number, lambda page: _boxes(page, quote, at))


def render_page(path: Path, number: int, quote: str, at: float) -> PageImage:
    """A page as PNG, with a quote marked.

    Args:
        number: Page, from 1.
        at: As for ``find_on_page``.

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
    # Character by character: the text in one piece leaves some out, and then the places are others.
    written = "".join(chr(raw.FPDFText_GetUnicode(text, index)) for index in range(text.count_chars()))
    letters, places = _letters(written)
    first = _nearest(letters, wanted, at) if wanted else -1
    if first < 0:
        return ()
    start, stop = places[first], places[first + len(wanted) - 1] + 1
    rectangles = [text.get_rect(index) for index in range(text.count_rects(start, stop - start))]
    return tuple(_box(page, *rectangle) for rectangle in rectangles)


def _box(page: Any, left: float, bottom: float, right: float, top: float) -> Box:
    """A rectangle of the page's own coordinates as it is seen: cropped, and turned as the page is turned."""
    x1, y1 = _seen(page, left, top)
    x2, y2 = _seen(page, right, bottom)
    return Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def _seen(page: Any, x: float, y: float) -> tuple[float, float]:
    from ctypes import byref, c_int

    from pypdfium2 import raw

    across, down = c_int(), c_int()
    raw.FPDF_PageToDevice(page, 0, 0, _GRID, _GRID, 0, x, y, byref(across), byref(down))
    return across.value / _GRID, down.value / _GRID


def _letters(text: str) -> tuple[str, list[int]]:
    """The letters and digits of a text, and where each stands in it.

    Line ends, hyphens at them and spaces are what a loader may have changed; letters it has not.
    """
    kept = [(char.lower(), at) for at, char in enumerate(text) if char.isalnum()]
    return "".join(char for char, _ in kept), [at for (char, at) in kept for _ in char]


def _nearest(letters: str, wanted: str, at: float) -> int:
    """Where ``wanted`` begins, of several places the one nearest to where it is expected; -1 for nowhere."""
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
        # Multiplied, the letters stay black below the mark.
        page = ImageChops.multiply(page, layer)
    out = io.BytesIO()
    page.save(out, "PNG", compress_level=3)
    return out.getvalue()
