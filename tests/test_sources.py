from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripted_app import PDF_PAGES, SENTENCE, TEXT, ScriptedApp, pdf

from rag.errors import LoadError
from rag.evaluation.report_rendering import printable
from rag.indexing.corpora import StoredDocument
from ui.pages.documents.pdf_pages import Box, find_on_page, render_page
from ui.pages.documents.sources import WINDOW, Span, page_of, quote_on_page, source_routes

AT = TEXT.index(SENTENCE)
END = AT + len(SENTENCE)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApp]:
    made = ScriptedApp(tmp_path_factory.mktemp("sources"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(app: ScriptedApp) -> TestClient:
    web = FastAPI()
    web.include_router(source_routes(app.settings.ingest, app.stores))
    return TestClient(web)


def stored(app: ScriptedApp, text: str, path: str = "/gone/a.txt", **more: object) -> int:
    number = len(app.documents) + 1
    app.documents[number] = StoredDocument(number, text, "A title", path, path, "a.txt", (), **more)
    return number


def test_the_cited_sentence_is_marked_where_the_address_leads(client: TestClient) -> None:
    html = client.get(f"/documents/1?start={AT}&end={END}").text
    assert f'<mark id="cited">{SENTENCE}</mark>' in html
    assert html.count('id="cited"') == 1
    assert "Passages" in html
    assert "/docs/passages.md" in html


def test_nothing_of_a_document_is_markup(client: TestClient) -> None:
    response = client.get(f"/documents/1?start={AT}&end={END}")
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in response.text
    assert "<script" not in response.text
    assert "<img" not in response.text
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src 'self'")
    assert "script-src" not in policy


@given(text=st.text(min_size=1, max_size=60), cut=st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_any_span_of_any_text_is_marked_or_nothing_is(
    client: TestClient, app: ScriptedApp, text: str, cut: tuple[int, int]
) -> None:
    # What a loader stores has no carriage returns, no NUL and no lone surrogates.
    text = text.encode("utf-8", "replace").decode().replace("\r", " ").replace("\x00", " ")
    app.documents[50] = StoredDocument(50, text, text, text, text.replace("/", ""), text, ())
    start, end = cut
    html = client.get(f"/documents/50?start={start}&end={end}").text
    marked = re.findall(r'<mark id="cited">(.*?)</mark>', html, re.DOTALL)
    if start < end <= len(text):
        import html as escapes

        # Characters that cannot be seen are shown by a sign.
        assert [escapes.unescape(each) for each in marked] == [printable(text[start:end])]
    else:
        assert not marked
        assert "does not fit" in html
    tags = set(re.findall(r"<(\w+)", html.split("</style>")[1]))
    assert tags <= {"body", "header", "h1", "div", "p", "mark", "span"}


@pytest.mark.parametrize("query", ["start=5&end=2", "start=0&end=99999999", "start=-3&end=4", "start=3", "end=3"])
def test_a_span_that_does_not_fit_marks_nothing_and_says_so(client: TestClient, query: str) -> None:
    html = client.get(f"/documents/1?{query}").text
    assert "<mark" not in html
    assert "does not fit" in html


def test_no_span_shows_the_text(client: TestClient) -> None:
    html = client.get("/documents/1").text
    assert "<mark" not in html
    assert "does not fit" not in html


def test_a_place_alone_is_shown_without_a_mark(client: TestClient) -> None:
    html = client.get(f"/documents/1?at={AT}").text
    assert "<mark" not in html
    assert f'<span id="cited"></span>{SENTENCE}' in html
    assert "nothing is marked" in html


def test_a_file_that_is_gone_is_told_and_its_text_shown(
    client: TestClient, app: ScriptedApp, tmp_path: Path
) -> None:
    assert "no longer exists" in client.get("/documents/1").text
    there = tmp_path / "there.txt"
    there.write_text("Hello.")
    number = stored(app, "Hello.", str(there))
    assert "no longer exists" not in client.get(f"/documents/{number}").text


def test_a_document_that_was_removed_is_a_clear_page(client: TestClient) -> None:
    response = client.get("/documents/999")
    assert response.status_code == 404
    assert "is no longer in this workspace" in response.text


@pytest.mark.parametrize("document", ["nope", "-1", str(2**63), "9" * 5000, "²"])
def test_an_address_of_no_document_is_a_clear_page(document: str, client: TestClient) -> None:
    response = client.get(f"/documents/{document}")
    assert (response.status_code, response.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert f"There is no document {document}." in response.text


def test_a_long_text_is_shown_around_its_place(client: TestClient, app: ScriptedApp) -> None:
    text = "".join(f"{number:09d} " for number in range(50_000))
    number = stored(app, text)
    html = client.get(f"/documents/{number}?start=250000&end=250009").text
    assert '<mark id="cited">000025000</mark>' in html
    assert "This text is long" in html
    assert "150,000 to 350,009" in html
    assert "000000001" not in html
    assert len(html) < 2 * WINDOW + 10_000


def test_a_pdf_is_shown_as_its_page(client: TestClient, app: ScriptedApp) -> None:
    text = app.documents[2].text
    at = text.index("Net sales")
    query = f"start={at}&end={at + 38}"
    html = client.get(f"/documents/2?{query}").text
    assert f"/documents/2/pages/1.png?start={at}&amp;end={at + 38}" in html
    top = re.search(r'<a id="cited" style="top:([\d.]+)%">', html)
    assert top
    # The second line of the page: 72 points of margin and one line of 20 below it.
    assert 9 < float(top[1]) < 13
    assert "Next page" in html
    assert "Previous page" not in html
    assert html.count('id="cited"') == 1


def marked_rows(png: bytes) -> list[float]:
    """Where in the image, from 0 at the top to 1, there is the colour of the mark."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    _, height = image.size
    narrow = image.resize((60, height), Image.Resampling.BOX)
    return [
        row / height
        for row in range(height)
        if any(blue < 170 and red > 200 for red, _, blue in (narrow.getpixel((x, row)) for x in range(60)))
    ]


def test_the_passage_is_marked_on_the_image_of_the_page(client: TestClient, app: ScriptedApp) -> None:
    text = app.documents[2].text
    at = text.index("Net sales")
    png = client.get(f"/documents/2/pages/1.png?start={at}&end={at + 38}")
    assert png.headers["content-type"] == "image/png"
    rows = marked_rows(png.content)
    assert rows
    assert 0.08 < min(rows) < max(rows) < 0.15
    assert not marked_rows(client.get("/documents/2/pages/1.png").content)


def test_a_passage_over_two_lines_and_two_pages_is_marked_on_each(app: ScriptedApp) -> None:
    document = app.documents[2]
    start = document.text.index("Costs fell")
    span = Span(start, document.text.index("than before") + 11)
    assert quote_on_page(document, 1, span)[0].strip() == "Costs fell."
    quote, place = quote_on_page(document, 2, span)
    assert quote.startswith("Outlook")
    assert place == 0
    path = Path(document.path)
    assert len(find_on_page(path, 1, quote_on_page(document, 1, span)[0], 0.9)) == 1
    assert len(find_on_page(path, 2, quote, place)) == 3
    assert quote_on_page(document, 7, span) == ("", 0.0) or quote_on_page(document, 7, span)[0] == ""


def test_the_page_of_a_character(app: ScriptedApp) -> None:
    document = app.documents[2]
    assert page_of(document, 0) == 1
    assert page_of(document, document.text.index("Outlook")) == 2
    assert page_of(document, len(document.text)) == 2
    assert page_of(app.documents[1], 5) == 1


def test_a_page_can_be_turned(client: TestClient, app: ScriptedApp) -> None:
    text = app.documents[2].text
    at = text.index("Net sales")
    html = client.get(f"/documents/2?start={at}&end={at + 9}&page=2").text
    assert "pages/2.png" in html
    assert f"/documents/2?start={at}&amp;end={at + 9}&amp;page=1" in html
    assert "not found" not in html


def test_a_passage_that_is_not_on_the_page_is_told(client: TestClient, app: ScriptedApp) -> None:
    document = app.documents[2]
    number = 60
    app.documents[number] = replace(document, id=number, text="Words that the file has nowhere.", pages=((1, 0),))
    html = client.get(f"/documents/{number}?start=0&end=20").text
    assert "was not found on the image" in html
    assert '<mark id="cited">Words that the file </mark>' in html


def test_spaces_and_hyphens_do_not_keep_a_passage_from_being_found(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf(["The com-", "mittee met, and then", "it met again."]))
    (first, second) = find_on_page(path, 1, "committee  met,", 0)
    assert first.top < second.top
    assert find_on_page(path, 1, "the council met", 0) == ()
    assert find_on_page(path, 1, " ... ", 0) == ()


def test_of_several_places_the_nearest_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf(["See above.", *["Other words here."] * 8, "See above."]))
    (early,) = find_on_page(path, 1, "See above.", 0.0)
    (late,) = find_on_page(path, 1, "See above.", 1.0)
    assert early.top < 0.2 < late.top


def test_a_turned_page_is_marked_where_it_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf(["Mark me."]).replace(b"/MediaBox", b"/Rotate 90 /MediaBox"))
    image = render_page(path, 1, "Mark me.", 0)
    (box,) = image.boxes
    # The upper left corner of the paper is turned to the upper right.
    assert box.left > 0.85
    assert box.bottom - box.top > box.right - box.left
    rows = marked_rows(image.png)
    assert min(rows) == pytest.approx(box.top, abs=0.01)


def test_a_huge_page_makes_no_huge_image(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf(["Poster"]).replace(b"612 792", b"14000 14000"))
    image = Image.open(io.BytesIO(render_page(path, 1, "", 0).png))
    assert image.size[0] <= 1401


@pytest.mark.parametrize("number", [0, 3, 99])
def test_a_page_that_is_not_there(client: TestClient, app: ScriptedApp, number: int) -> None:
    assert client.get(f"/documents/2/pages/{number}.png").status_code == 404
    with pytest.raises(LoadError, match="no page"):
        find_on_page(Path(app.documents[2].path), number, "x", 0)


def test_a_pdf_that_is_gone_or_broken_falls_back_to_its_text(
    client: TestClient, app: ScriptedApp, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pdf"
    document = app.documents[2]
    app.documents[70] = replace(document, id=70, path=str(broken))
    assert "no longer exists" in client.get("/documents/70?start=0&end=6").text
    broken.write_bytes(b"%PDF-1.4 nonsense")
    html = client.get("/documents/70?start=0&end=6").text
    assert "cannot be shown as pages" in html
    assert '<mark id="cited">Annual</mark>' in html
    assert client.get("/documents/70/pages/1.png").status_code == 404
    assert client.get("/documents/1/pages/1.png").status_code == 404


def test_the_made_pdf_has_its_lines(app: ScriptedApp) -> None:
    path = Path(app.documents[2].path)
    for number, lines in enumerate(PDF_PAGES, start=1):
        for line in lines:
            assert all(isinstance(box, Box) for box in find_on_page(path, number, line, 0.5))
