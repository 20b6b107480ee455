"""What every loader keeps: the rules of blocks, the stored text, and honest errors for junk."""

from __future__ import annotations

import codecs
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.documents.loaders import LOADER_VERSION, kind_of, load, suffixes
from rag.errors import LoadError
from rag.types import Document

STORED_RAW = (".md", ".rst", ".txt", ".log", ".py", ".js", ".go", ".toml", ".yaml", ".sh")
TEXT_LIKE = (*STORED_RAW, ".html", ".csv", ".tsv", ".json", ".jsonl", ".ipynb")

# Text with a taste for what means something to one of the formats.
MARKS = st.sampled_from(
    ["\n", "\n\n", "# ", "---\n", "===\n", "```\n", "- ", "  ", "    ", "\t", "> ", "| a | b |\n|---|---|\n",
     "::\n\n", ".. ", ".. note::\n", ".. code::\n\n", "<!-- ", "-->", "<p>", "<table><tr><td>", "</td>",
     "<pre>", "<h1>", "<li>", "Title: x\n", ":a: b\n", "+--+\n", "== ==\n", "def f():\n", "class A:\n",
     "  @b\n", "function f ", "[x]\n", ",", ";", '"', "\r\n", "\r", "\x0c",
     "\x85", "\u2028", "\xa0", "\u200b",
     "\x00", "{", "}", "[", "]", ": ", "a: b\n", "…", "漢字"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(MARKS, st.text(max_size=8)), max_size=40).map("".join)


def documents(name: str, data: bytes | str) -> list[Document]:
    return list(load(Path(name), data.encode() if isinstance(data, str) else data))


def check(document: Document) -> None:
    """The rules of ``rag.types``, asserted."""
    text = document.text
    assert not {"\r", "\0"} & set(text)
    text.encode()
    assert document.blocks
    free = 0
    for block in document.blocks:
        assert free <= block.start < block.end <= len(text)
        shown = text[block.start : block.end]
        assert shown == shown.strip()
        assert all(heading == heading.strip() and heading for heading in block.headings)
        free = block.end


def normalised(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


@pytest.mark.parametrize("suffix", TEXT_LIKE)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_any_text_gives_sound_blocks_or_a_load_error(suffix: str, text: str) -> None:
    data = text.encode("utf-8", "replace")
    try:
        found = documents("any" + suffix, data)
    except LoadError:
        return
    for document in found:
        check(document)
        # Tables and HTML in Markdown are written anew.
        anew = suffix == ".md" and any(mark in data.decode(errors="replace") for mark in ("|---", "<"))
        if suffix in STORED_RAW and not anew and not data.startswith(codecs.BOM_UTF8):
            assert document.text == normalised(data.decode())


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), suffix=st.sampled_from([*TEXT_LIKE, ".pdf", ".docx", ".pptx", ".unknown"]))
def test_any_bytes_give_sound_blocks_or_a_load_error(data: bytes, suffix: str) -> None:
    try:
        found = documents("any" + suffix, data)
    except LoadError:
        return
    for document in found:
        check(document)


@settings(max_examples=40, deadline=None)
@given(paragraphs=st.lists(st.text(alphabet="abc .é漢", min_size=1).filter(str.strip), min_size=1))
@pytest.mark.parametrize("suffix", [".txt", ".md", ".rst", ".sh"])
def test_no_visible_word_of_plain_paragraphs_is_lost(suffix: str, paragraphs: list[str]) -> None:
    # Indentation means something in Markdown and RST, and dots alone do in RST.
    source = "\n\n".join("w " + paragraph.strip() for paragraph in paragraphs)
    (document,) = documents("x" + suffix, source)
    shown = " ".join(document.text[b.start : b.end] for b in document.blocks)
    assert shown.split() == source.split()


def test_an_empty_file_is_refused_under_every_suffix() -> None:
    for suffix, data in product(suffixes(), (b"", b"  \n\n \t ")):
        with pytest.raises(LoadError, match=rf"^notes{re.escape(suffix)} is empty\.") as caught:
            documents("notes" + suffix, data)
        assert caught.value.fix


def test_binary_data_are_refused_under_every_suffix() -> None:
    for suffix in suffixes():
        with pytest.raises(LoadError, match=rf"^picture{re.escape(suffix)}"):
            documents("picture" + suffix, b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 8)


def test_invisible_text_is_refused() -> None:
    with pytest.raises(LoadError, match="has no text to read"):
        documents("x.txt", "\u200b\u200b\n\n\ufeff")


def test_the_foreign_exception_stays_attached() -> None:
    with pytest.raises(LoadError) as caught:
        documents("x.json", "{")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.MD", "markdown"), ("a.rst", "rst"), ("a.htm", "html"), ("a.tsv", "table"), ("a.ndjson", "jsonl"),
     ("a.py", "python"), ("a.rs", "code"), ("README", "text"), ("Makefile", "code"), ("a.png", None),
     ("a", None)],
)  # fmt: skip
def test_the_kind_follows_the_name(name: str, kind: str | None) -> None:
    assert kind_of(Path(name)) == kind


def test_suffixes_are_listed_in_order_with_their_dots() -> None:
    listed = suffixes()
    assert listed == sorted(listed)
    assert all(suffix.startswith(".") and kind_of(Path("x" + suffix)) for suffix in listed)
    assert LOADER_VERSION >= 1


def test_an_unknown_suffix_is_read_as_text_when_it_is_text() -> None:
    (document,) = documents("notes.whatever", "First.\n\nSecond.")
    assert [document.text[b.start : b.end] for b in document.blocks] == ["First.", "Second."]


# Decoding


@pytest.mark.parametrize(
    ("mark", "codec"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
     (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")],
)  # fmt: skip
def test_a_byte_order_mark_decides_the_encoding_and_is_dropped(mark: bytes, codec: str) -> None:
    (document,) = documents("x.txt", mark + "Grüße, 世界".encode(codec))
    assert document.text == "Grüße, 世界"


def test_line_ends_become_newlines_and_nul_a_replacement() -> None:
    (document,) = documents("x.txt", b"one\r\ntwo\rthree\0 and so on, which is long enough to be text")
    assert document.text.startswith("one\ntwo\nthree\ufffd and")


def test_a_few_bad_bytes_are_replaced_and_reported() -> None:
    problems: list[str] = []
    data = "naïve café déjà vu ".encode() * 5 + b"\xff and on"
    (document,) = load(Path("x.txt"), data, on_problem=problems.append)
    assert document.text.endswith("\ufffd and on")
    assert "café" in document.text
    assert problems == ["1 invalid utf-8 byte sequences were replaced by \ufffd"]


def test_a_lone_bad_byte_in_ascii_is_replaced_and_reported() -> None:
    problems: list[str] = []
    (document,) = load(Path("x.md"), b"hello \xff world", on_problem=problems.append)
    assert document.text == "hello \ufffd world"
    assert len(problems) == 1


def test_windows_text_keeps_its_accents_and_quotes() -> None:
    problems: list[str] = []
    (document,) = load(Path("x.txt"), "Le café “noir” coûte 5 €".encode("cp1252"), on_problem=problems.append)
    assert document.text == "Le café “noir” coûte 5 €"
    assert "cp1252" in problems[0]


def test_cyrillic_in_a_legacy_encoding_is_recognised() -> None:
    source = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20
    (document,) = documents("x.txt", source.encode("cp1251"))
    assert "французских булок" in document.text


def test_html_is_decoded_as_it_declares() -> None:
    page = '<meta charset="iso-8859-7"><p>Καλημέρα κόσμε</p>'
    (document,) = documents("x.html", page.encode("iso-8859-7"))
    assert document.text == "Καλημέρα κόσμε"


# Unbroken runs


def test_encoded_data_are_left_out_of_the_blocks() -> None:
    (document,) = documents("x.md", "Before.\n\n" + "QUJD" * 600 + "\n\nAfter " + "x" * 2001 + " all.")
    shown = [document.text[b.start : b.end] for b in document.blocks]
    assert shown == ["Before.", "After", "all."]


def test_a_file_of_nothing_but_encoded_data_is_refused_with_that_reason() -> None:
    with pytest.raises(LoadError, match="without a space"):
        documents("x.txt", "QUJD" * 600)


@pytest.mark.parametrize("sign", ["漢", "ไ", "あ", "ក"])
def test_scripts_without_spaces_are_readable(sign: str) -> None:
    (document,) = documents("x.txt", sign * 5000)
    assert [(b.start, b.end) for b in document.blocks] == [(0, 5000)]


@pytest.mark.parametrize("suffix", [".txt", ".md", ".rst", ".html", ".py", ".csv", ".js"])
def test_one_long_line_of_words_is_one_piece(suffix: str) -> None:
    source = "some words on a single line " * 40_000
    (document,) = documents("x" + suffix, source)
    check(document)
    assert sum(b.end - b.start for b in document.blocks) > 1_000_000


# Right to left, stacked marks, overrides


@pytest.mark.parametrize(
    "text", ["שלום עולם", "\u202eevil\u202c text", "Z̸̢͝a̵l̶g̷o̸ ҉c̶o̷m̴e̸s", "👩‍👩‍👧 family", "a\u0300" * 300]
)
@pytest.mark.parametrize("suffix", [".txt", ".md", ".rst", ".html"])
def test_unusual_scripts_survive_unchanged(suffix: str, text: str) -> None:
    (document,) = documents("x" + suffix, text)
    assert document.text[document.blocks[0].start : document.blocks[-1].end] == text


def test_importing_the_loaders_imports_no_parser() -> None:
    heavy = "lxml pypdfium2 docx pptx markdown_it nbformat langchain_text_splitters bs4 pandas charset_normalizer"
    code = f"import sys, rag.documents.loaders; print([m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
