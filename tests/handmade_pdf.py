"""PDF files made by hand."""

from __future__ import annotations

from collections.abc import Sequence


def assembled(objects: Sequence[bytes]) -> bytes:
    """A PDF with these objects, numbered from 1; the first is its catalogue."""
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(out)


def drawn(pages: Sequence[str], extra: str = "", more: Sequence[bytes] = ()) -> bytes:
    """A PDF of pages with this content, in Helvetica as F1.

    Args:
        pages: Content streams.
        extra: Entries of every page, such as ``/Rotate 90``; {n} is the number of its first object in ``more``.
        more: Further objects, numbered from ``4 + 2 * len(pages)``.
    """
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for at, content in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {5 + 2 * at} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> >> {extra} >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content.encode()))
    return assembled([*objects, *more])


def at(x: float, y: float, text: str, size: float = 10) -> str:
    """The operators that write a line of text."""
    return f"BT /F1 {size} Tf {x} {y} Td ({text}) Tj ET\n"


def turned(quarter: int, x: float, y: float, text: str) -> str:
    """The operators that write a line of text that is turned counterclockwise by quarters."""
    a, b = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter]
    return f"BT /F1 10 Tf {a} {b} {-b} {a} {x} {y} Tm ({text}) Tj ET\n"
