"""Markdown, reStructuredText, plain text, HTML and source code."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from rag.documents.loaders import load
from rag.errors import LoadError
from rag.types import Document


def read(name: str, source: str) -> Document:
    (document,) = load(Path(name), source.encode())
    return document


def shown(document: Document, kind: str | None = None) -> list[str]:
    """What the blocks of a kind show."""
    return [document.text[b.start : b.end] for b in document.blocks if kind in (None, b.kind)]


def headings_of(document: Document, piece: str) -> tuple[str, ...]:
    """The headings of the first block that holds a piece of text."""
    return next(b.headings for b in document.blocks if piece in document.text[b.start : b.end])


# Markdown

MARKDOWN = """# The *guide* to `x` [now](https://example.org) {#guide}

Intro paragraph
on two lines.

## First

- one
- two

```python
# not a heading
x = 1
```

Setext
------

| name | size |
|------|------|
| a    | 1    |

<!-- a remark -->

[ref]: https://example.org
"""


def test_markdown_blocks_follow_its_structure() -> None:
    document = read("a.md", MARKDOWN)
    table = "| name | size |\n|------|------|\n| a    | 1    |"
    assert document.text == MARKDOWN.replace(table, "name: a; size: 1")
    assert document.title == "The guide to x now"
    assert shown(document, "heading") == [
        "# The *guide* to `x` [now](https://example.org) {#guide}", "## First", "Setext\n------"
    ]  # fmt: skip
    assert shown(document, "code") == ["```python\n# not a heading\nx = 1\n```"]
    assert shown(document, "row") == ["name: a; size: 1"]
    assert shown(document, "text") == ["Intro paragraph\non two lines.", "- one", "- two"]


def test_markdown_headings_lead_to_each_block() -> None:
    document = read("a.md", MARKDOWN)
    assert headings_of(document, "- one") == ("The guide to x now", "First")
    assert headings_of(document, "Setext") == ("The guide to x now", "Setext")


def test_html_in_markdown_is_read_as_on_a_page() -> None:
    source = """<h1 align="center">Cheese</h1>

<details><summary>How old is it?</summary>

Nine *weeks*.

</details>

<table><tr><th>Kind</th><th>Milk</th><th>Age</th></tr><tr><td>Blue</td><td></td><td>9</td></tr></table>

> <p hidden>Goats only.</p>
> <p>Cows too.</p>

<div style="display:none">Old price</div>

<img src="vat.png" alt="The vat">

End.
"""
    problems: list[str] = []
    (document,) = load(
        Path("a.md"), f'{source}\n<iframe src="/map"></iframe>\n'.encode(), on_problem=problems.append
    )
    assert shown(document) == [
        "Cheese", "How old is it?", "Nine *weeks*.", "Kind: Blue; Age: 9", "Cows too.", "The vat", "End.",
    ]  # fmt: skip
    assert document.title == "Cheese"
    assert headings_of(document, "Nine") == ("Cheese",)
    assert problems == ["1 embedded page was not read (/map)"]


def test_front_matter_describes_and_is_not_a_block() -> None:
    fields = "Title: A note\ndate: 2024-03-05\ntags: [a, b]\ndraft: true\nn: 3\nnested: {k: 1}\nnone:\n"
    source = f"---\n{fields}---\n\nBody.\n"
    document = read("a.md", source)
    assert document.text == source
    assert (document.title, document.date) == ("A note", date(2024, 3, 5))
    assert shown(document) == ["Body."]
    assert document.metadata == {
        "date": "2024-03-05",
        "tags": "a, b",
        "draft": True,
        "n": 3,
        "nested": '{"k": 1}',
    }


@pytest.mark.parametrize(
    "front",
    ["a: [b", "a: &x [1]\nb: *x", "a: " + "[" * 5000, "d: 2023-02-31", "!!python/object:os.system {}"],
)
def test_bad_front_matter_is_reported_and_read_as_text(front: str) -> None:
    problems: list[str] = []
    source = f"---\n{front}\n---\n\nBody."
    (document,) = load(Path("a.md"), source.encode(), on_problem=problems.append)
    assert "front matter" in problems[0]
    assert shown(document)[-1] == "Body."


def test_front_matter_that_is_left_out_is_named() -> None:
    problems: list[str] = []
    source = f"---\nowner: Ada\nowner: Bo\nabout: {'word ' * 500}\n---\n\nBody."
    (document,) = load(Path("a.md"), source.encode(), on_problem=problems.append)
    assert document.metadata == {"owner": "Bo"}
    assert ["only the last value was read" in problems[0], "about" in problems[1], len(problems)] == [
        True,
        True,
        2,
    ]


def test_a_rule_at_the_top_is_no_front_matter() -> None:
    assert "Just words." in shown(read("a.md", "---\nJust words.\n\nMore.\n"))


def test_a_document_of_several_top_headings_is_titled_by_the_first() -> None:
    assert read("a.md", "## Small\n\n# One\n\n# Two\n").title == "One"
    assert read("a.md", "## Small\n\ntext\n").title is None


@pytest.mark.parametrize("nest", ["> ", "- ", "[", "*", "`", "<div>", "![", "1. "])
def test_deeply_nested_markdown_is_read_or_refused_quickly(nest: str) -> None:
    read("a.md", "start\n\n" + nest * 20_000 + " end")


# reStructuredText

RST = """PEP: 8
Title: Style Guide
Author: Guido van Rossum,
        Barry Warsaw
Created: 05-Jul-2001

============
Introduction
============

First paragraph
of two lines.

.. _a-target:

Names
-----

.. a comment
   that goes on

   and on

Example::

    def f():
        pass

After it.

- An item::

      code here

  still the item

.. code-block:: python
   :linenos:

   x = 1

.. note::

   Mind this.

.. [1] A footnote.

=====  =====
A      B
=====  =====
1      2
=====  =====

+---+---+
| c | d |
+===+===+
| 3 | 4 |
|   | 5 |
+---+---+

Conclusion
==========

Done.

..
   Local Variables:
   End:
"""


def test_rst_headers_titles_and_blocks() -> None:
    document = read("a.rst", RST)
    assert document.text == RST
    assert (document.title, document.date) == ("Style Guide", date(2001, 7, 5))
    assert document.metadata["Author"] == "Guido van Rossum, Barry Warsaw"
    assert document.metadata["PEP"] == "8"
    assert shown(document, "heading") == [
        "============\nIntroduction\n============", "Names\n-----", "Conclusion\n==========",
    ]  # fmt: skip
    assert shown(document, "code") == ["def f():\n        pass", "code here", "x = 1"]
    assert shown(document, "row") == ["A      B", "1      2", "| c | d |", "| 3 | 4 |\n|   | 5 |"]
    assert "still the item" in shown(document, "text")
    assert ".. [1] A footnote." in shown(document, "text")
    everything = "\n".join(shown(document))
    assert "Mind this." in everything
    assert not any(hidden in everything for hidden in ("a comment", "and on", "a-target", "Local Variables"))


def test_rst_levels_follow_the_order_of_their_adornments() -> None:
    document = read("a.rst", RST)
    assert headings_of(document, "After it.") == ("Introduction", "Names")
    # A line below only is another style than the same line above and below.
    assert headings_of(document, "Done.") == ("Introduction", "Names", "Conclusion")


def test_a_lone_colon_line_is_no_header() -> None:
    document = read("a.rst", "Note: this is a sentence.\n\nMore.\n")
    assert document.metadata == {}
    assert shown(document) == ["Note: this is a sentence.", "More."]


def test_the_first_section_titles_an_rst_file_without_header() -> None:
    assert read("a.rst", "Hello\n=====\n\ntext\n").title == "Hello"


# Plain text


def test_plain_text_is_cut_at_blank_lines() -> None:
    document = read("a.txt", "  One\nstill one.\n\n \t\n\n  Two.  \n")
    assert shown(document) == ["One\nstill one.", "Two."]


def test_a_paragraph_per_line_is_a_block_per_line() -> None:
    line = "A sentence of a paragraph that nobody wrapped by hand. " * 5
    assert len(read("a.txt", f"{line}\n{line}\n{line}\n").blocks) == 3


def test_many_short_lines_without_blank_ones_are_cut_now_and_then() -> None:
    document = read("a.txt", "An item of a list.\n" * 1000)
    assert 8 < len(document.blocks) < 25
    assert all(piece.endswith(".") for piece in shown(document))


def test_a_log_is_cut_at_each_line() -> None:
    assert shown(read("a.log", "INFO a\nWARN b\n\nINFO c")) == ["INFO a", "WARN b", "INFO c"]


# HTML

PAGE = """<!DOCTYPE html><html lang="en"><head><title> The
 page </title><meta name="author" content="Ada">
<meta property="article:published_time" content="2024-01-02T10:00:00Z">
<style>p {color: red}</style></head><body><nav>Home | About</nav>
<h1>Big</h1><p>First <b>bold</b> part<br>second line.</p>
<script>alert(1)</script>
<ul><li>one<li><p>two</p></ul>
<h2>Table</h2>
<table><tr><th>name</th><th>size</th></tr><tr><td><p>a</p></td><td>1</td></tr></table>
<pre>x = 1
  y = 2</pre>loose &amp; free</body></html>"""


def test_html_becomes_clean_text() -> None:
    document = read("a.html", PAGE)
    assert document.title == "The page"
    assert document.date == date(2024, 1, 2)
    assert document.metadata["author"] == "Ada"
    assert document.metadata["language"] == "en"
    assert shown(document, "heading") == ["Big", "Table"]
    assert shown(document, "text") == ["First bold part\nsecond line.", "- one", "- two", "loose & free"]
    assert shown(document, "row") == ["name: a; size: 1"]
    assert shown(document, "code") == ["x = 1\n  y = 2"]
    assert headings_of(document, "name: a") == ("Big", "Table")


def test_a_layout_table_inside_a_cell_keeps_its_rows_apart() -> None:
    document = read("a.html", "<table><tr><td>menu<table><tr><td>a<td>1</tr><tr><td>c<td>2</table>tail</table>")
    assert shown(document, "row") == ["menu", "a: 1", "c: 2", "tail"]


def test_html_defines_no_entities_and_fetches_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden words")
    source = f'<!DOCTYPE x [<!ENTITY s SYSTEM "{secret.as_uri()}"><!ENTITY a "boom boom">]><p>text &s; &a;</p>'
    for name in ("a.html", "a.xhtml"):
        document = read(name, source)
        assert "hidden words" not in document.text
        assert "boom boom" not in " ".join(shown(document))


def test_xhtml_with_a_declaration_is_read() -> None:
    declaration = '<?xml version="1.0" encoding="utf-8"?>'
    source = declaration + '<html xmlns="http://www.w3.org/1999/xhtml"><body><p>Grüße</p></body></html>'
    assert shown(read("a.xhtml", source)) == ["Grüße"]


def test_text_without_any_tag_is_a_page_too() -> None:
    assert shown(read("a.html", "just words")) == ["just words"]


def test_html_nested_beyond_the_parser_is_refused_and_not_cut_short() -> None:
    with pytest.raises(LoadError, match="nested too deeply"):
        read("a.html", "<div>" * 20_000 + "deep" + "</div>" * 20_000 + "<p>after</p>")


def test_a_page_of_scripts_has_no_text() -> None:
    with pytest.raises(LoadError, match="has no text"):
        read("a.html", "<html><script>var x = 1</script></html>")


# Source code

PYTHON = '''"""What the module does."""

import os

LIMIT = 3


# Why it is here.
@decorate
def alone(x):
    return x


class Shape:
    """A shape."""

    sides = 0

    def area(self):
        class Inner:
            pass

        return 0

    class Kind:
        async def go(self): ...


print(LIMIT)
'''


def test_python_is_cut_at_its_definitions() -> None:
    document = read("a.py", PYTHON)
    assert document.text == PYTHON
    assert {b.kind for b in document.blocks} == {"code"}
    assert shown(document)[:4] == [
        '"""What the module does."""', "import os", "LIMIT = 3",
        "# Why it is here.\n@decorate\ndef alone(x):\n    return x",
    ]  # fmt: skip
    assert headings_of(document, "return x") == ("alone",)
    assert headings_of(document, "sides = 0") == ("Shape",)
    assert headings_of(document, "class Inner") == ("Shape", "area")
    assert headings_of(document, "async def go") == ("Shape", "Kind", "go")
    assert headings_of(document, "print(LIMIT)") == ()


def test_a_long_function_is_cut_at_its_blank_lines() -> None:
    body = "\n\n".join(f"    step_{i} = {i}  # one of many steps" for i in range(100))
    document = read("a.py", f"def long():\n{body}\n")
    assert len(document.blocks) == 100
    assert {b.headings for b in document.blocks} == {("long",)}


@pytest.mark.parametrize("source", ["print 'old'\n\ndef f(x):\n    pass\n", 'x = "\\d"\n\ndef f(x):\n    pass\n'])
def test_python_that_does_not_parse_or_warns_is_still_read(source: str) -> None:
    assert headings_of(read("a.py", source), "def f(x)") == ("f",)


def test_deeply_nested_python_is_read_by_its_lines() -> None:
    assert read("a.py", "x = " + "(" * 50_000 + "\n\ny = 1\n").blocks


@pytest.mark.parametrize(
    ("name", "source", "piece", "path"),
    [("a.js", "let a = 1\n\nexport async function go() {\n  x()\n\n  y()\n}\n", "y()", ("go",)),
     ("a.go", "package x\n\nfunc (s *Server) Run() {\n}\n", "func", ("Run",)),
     ("a.rs", "use x;\n\npub struct Point {\n}\n", "struct", ("Point",)),
     ("a.java", "import x;\n\npublic class Main {\n}\n", "class", ("Main",)),
     ("a.toml", "a = 1\n\n[tool.x]\nb = 2\n", "b = 2", ("tool.x",)),
     ("a.ini", "[one]\nx = 1\n[two]\ny = 2\n", "y = 2", ("two",))],
)  # fmt: skip
def test_definitions_and_sections_name_their_blocks(
    name: str, source: str, piece: str, path: tuple[str, ...]
) -> None:
    document = read(name, source)
    assert document.text == source
    assert headings_of(document, piece) == path


@pytest.mark.parametrize("name", ["a.yaml", "a.sh", "a.sql", "a.css", "Makefile"])
def test_other_configuration_is_cut_at_blank_lines(name: str) -> None:
    assert shown(read(name, "one: 1\n\ntwo: 2\n"), "code") == ["one: 1", "two: 2"]
