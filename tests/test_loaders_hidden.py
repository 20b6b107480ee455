"""What a web page hides is no text, and what it shows instead of a picture is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.documents.loaders import load
from rag.errors import LoadError


def text_of(page: str) -> str:
    (document,) = load(Path("a.html"), page.encode())
    return document.text


@pytest.mark.parametrize(
    "hidden",
    [
        "<div hidden>old</div>",
        "<p hidden=''>old</p>",
        "<div style='display:none'>old</div>",
        "<div style='color: red; DISPLAY : none !important'>old</div>",
        "<span style='visibility: hidden'>old</span>",
        "<div aria-hidden='true'>old</div>",
        "<template>old</template>",
        "<dialog>old</dialog>",
        "<noscript>old</noscript>",
        "<style>.gone { display: none }</style><div class='a gone'>old</div>",
        "<style>/* .kept{} */ p.gone, #x { color: red; visibility: hidden }</style><p class=gone>old</p>",
        "<style>#x{display:none}</style><section id=x><p>old</p></section>",
        "<style>@media print { .a { color: red } } .gone{display:none}</style><b class=gone>old</b>",
        "<table hidden><tr><td>old</table>",
    ],
)
def test_hidden_elements_are_no_text(hidden: str) -> None:
    assert text_of(f"<p>new{hidden}</p><p>after</p>").split() == ["new", "after"]


def test_a_hidden_cell_and_a_hidden_row_are_left_out() -> None:
    page = "<table><tr><th>Tool<th>Hook<tr hidden><td>Old<td>1<tr><td>Adze<span hidden>old</span><td>4</table>"
    assert text_of(page) == "Tool: Adze; Hook: 4"


@pytest.mark.parametrize(
    "shown",
    [
        "<div aria-hidden='false'>kept</div>",
        "<div hidden='until-found'>kept</div>",
        "<div style='display:block'>kept</div>",
        "<style>.gone{display:none}</style><div class='gone-not'>kept</div>",
        "<style>.gone{display:none} .gone{display:block}</style><div class='gone'>kept</div>",
        "<style>p.gone{display:none}</style><div class='gone'>kept</div>",
        "<style>.js .gone{display:none}</style><div class='gone'>kept</div>",
        "<style>@media print { .gone { display: none } }</style><div class='gone'>kept</div>",
        "<style media=print>.gone { display: none }</style><div class='gone'>kept</div>",
        "<details><summary>More</summary>kept</details>",
        "<dialog open>kept</dialog>",
        "<svg><title>icon</title><text>kept</text></svg>",
    ],
)
def test_what_is_shown_or_can_be_opened_is_text(shown: str) -> None:
    assert "kept" in text_of(f"<p>new</p>{shown}")


def test_a_page_that_hides_all_of_itself_until_a_script_runs_is_read() -> None:
    assert text_of("<html style='visibility:hidden'><body hidden><p>Words.</p></body></html>") == "Words."


def test_a_page_with_nothing_to_see_is_refused() -> None:
    with pytest.raises(LoadError, match="no text to read"):
        text_of("<p hidden>old</p>")


def test_the_alternative_text_of_a_picture_is_text() -> None:
    page = "<p>See <img src=a.png alt='the plan of the yard'> here.</p><img alt=''><a><img alt='Guild'></a>"
    assert text_of(page) == "See the plan of the yard here.\n\nGuild"


def test_the_reading_above_a_character_does_not_divide_a_word() -> None:
    assert text_of("<p>藍<ruby>染<rp>(</rp><rt>ぞめ</rt><rp>)</rp></ruby>の布</p>") == "藍染の布"


def test_a_formula_is_read_as_it_was_typed_or_named() -> None:
    problems: list[str] = []
    page = (
        "<h1>Heat</h1><p>It is <math alttext='q = m c'><mi>q</mi></math>, so "
        "<math><mi>x</mi><annotation encoding='application/x-tex'>\\frac{q}{m}</annotation></math>"
        " and <math><mfrac><mi>a</mi><mi>b</mi></mfrac></math>.</p><canvas></canvas>"
    )
    (document,) = load(Path("a.html"), page.encode(), on_problem=problems.append)
    assert "It is q = m c , so \\frac{q}{m} and a b ." in document.text
    assert problems == [
        "1 equation was not read (under “Heat”): only its characters are, without fractions and powers",
        "1 drawing was not read",
    ]
