"""Reading order of PDF pages: whatever is drawn wherever, nothing is lost and nothing fails."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rag.documents.loaders._page_layout import in_order
from rag.documents.loaders._page_lines import Line, Segment, lines_of, tables_in

WORDS = st.sampled_from(
    ["harbour dues", "12", "the pilot boards at the outer buoy", "x", "3.50 for each day in port"]
)


@st.composite
def pages(draw: st.DrawFn) -> list[Segment]:
    """Pieces of text on a grid with some noise, so that columns, tables and lines with holes occur."""
    made = []
    for _ in range(draw(st.integers(0, 40))):
        start = draw(st.sampled_from([50.0, 51.0, 200.0, 310.0, 312.0, 450.0]))
        width = draw(st.sampled_from([0.0, 0.5, 60.0, 140.0, 230.0]))
        middle = 700.0 - 12 * draw(st.integers(0, 30)) + draw(st.sampled_from([0.0, 0.4, 7.0]))
        made.append(Segment(draw(WORDS), start, start + width, middle, draw(st.sampled_from([0.1, 9.0, 20.0]))))
    return made


def words_of(parts: list[str | list[list[str]]]) -> Counter[str]:
    texts = (part if isinstance(part, str) else " ".join(cell for row in part for cell in row) for part in parts)
    return Counter(word for text in texts for word in text.split())


@given(pages())
def test_every_piece_of_a_page_is_read_once(segments: list[Segment]) -> None:
    wanted = Counter(word for segment in segments for word in segment.text.split())
    assert words_of(list(in_order(lines_of(segments)))) == wanted


def test_columns_below_columns_are_read_with_the_break_between_them() -> None:
    def columns(top: float, gutter: float, mark: str) -> list[Segment]:
        return [
            Segment(f"{side}{mark}{row} says a sentence of some length", start, start + 180, top - 12 * row, 9)
            for side, start in (("left", 50.0), ("right", gutter))
            for row in range(4)
        ]

    whole = Segment("A heading over the whole width of the page, between them both", 50, 560, 640, 9)
    parts = list(in_order(lines_of([*columns(700, 300, "A"), whole, *columns(620, 340, "B")])))
    text = "\n".join(part for part in parts if isinstance(part, str))
    order = [text.index(mark) for mark in ("leftA3", "rightA0", "A heading", "leftB3", "rightB0")]
    assert order == sorted(order)


def test_a_piece_without_width_stands_in_a_table() -> None:
    rows = [[Segment(f"a{n}", 50, 50, -n, 0.5), Segment(str(n), 80, 90, -n, 0.5)] for n in range(4)]
    (table,) = tables_in([Line(row) for row in rows], 1.0)
    assert table == [[f"a{n}", str(n)] for n in range(4)]


def test_figures_beside_their_names_are_read_row_by_row() -> None:
    names = [
        "Net sales of the fish market",
        "Dues from foreign ships",
        "Interest on the reserve fund",
        "Rent of sheds",
    ]
    rows = [
        Segment(text, start, start + width, 700 - 12 * at, 9)
        for at, name in enumerate(names)
        for text, start, width in ((name, 50, 150), (f"{at}12.5 kroner", 300, 60), (f"{at}08.4 kroner", 400, 60))
    ]
    text = "\n".join(
        part if isinstance(part, str) else "\n".join(" ".join(row) for row in part)
        for part in in_order(lines_of(rows))
    )
    for at, name in enumerate(names):
        assert f"{name} {at}12.5 kroner {at}08.4 kroner" in text
