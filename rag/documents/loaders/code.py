"""Source code and configuration files, split at definitions and sections that start a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from rag.documents.loaders._blocks import finished, lines
from rag.documents.loaders._text import OnProblem, decode
from rag.types import Block, Document

_LANGUAGES = {
    **dict.fromkeys((".c", ".h"), "c"),
    **dict.fromkeys((".cpp", ".cc", ".cxx", ".hpp", ".hh"), "cpp"),
    **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs"), "js"),
    **dict.fromkeys((".ts", ".tsx"), "ts"),
    **dict.fromkeys((".kt", ".kts"), "kotlin"),
    **dict.fromkeys((".ex", ".exs"), "elixir"),
    ".cs": "csharp", ".go": "go", ".hs": "haskell", ".java": "java", ".lua": "lua", ".php": "php",
    ".proto": "proto", ".ps1": "powershell", ".py": "python", ".pyi": "python", ".r": "r", ".rb": "ruby",
    ".rs": "rust", ".scala": "scala", ".sol": "sol", ".swift": "swift",
}  # fmt: skip
# Formats that the splitter does not know, split at blank lines and [sections].
_PLAIN = (".toml", ".yaml", ".yml", ".ini", ".cfg", ".sh", ".bash", ".sql", ".css")
_SECTIONED = (".toml", ".ini", ".cfg")

SUFFIXES = tuple(sorted({*_LANGUAGES, *_PLAIN} - {".py", ".pyi"}))

WHOLE = 1_500
"""Maximum characters of a definition that stays one block; a longer one is split at blank lines."""

_SECTION = re.compile(r"^\[{1,2}([^\[\]\n]{1,200})\]{1,2}[ \t]*(?:[#;].*)?$", re.MULTILINE)
# Keywords of statements, which the splitter lists together with those of definitions.
_STATEMENTS = {
    "begin", "break", "case", "catch", "cond", "const", "continue", "default", "do", "else", "elseif",
    "elsif", "finally", "for", "foreach", "if", "import", "in", "let", "library", "loop", "match", "option",
    "param", "pragma", "qualified", "repeat", "require", "rescue", "return", "static", "switch", "syntax",
    "try", "unless", "using", "val", "var", "when", "where", "while", "with",
}  # fmt: skip
# Modifiers before a definition's keyword, which the splitter does not list.
_MODIFIERS = (
    r"(?:(?:export|default|pub(?:\([a-z]+\))?|async|unsafe|extern|public|private|protected|internal|static|final"
    r"|abstract|sealed|data|open|override|inline|virtual|constexpr)[ \t]+){0,6}"
)
_DEFINITIONS = {
    "class", "contract", "def", "enum", "fn", "fun", "func", "function", "impl", "interface", "message",
    "mod", "module", "namespace", "object", "record", "service", "struct", "trait", "type", "union",
}  # fmt: skip
_NAME = re.compile(
    rf"{_MODIFIERS}(?:{'|'.join(sorted(_DEFINITIONS))}|defmodule|defp|defmacro)"
    r"[ \t]+(?:\([^()\n]{0,100}\)[ \t]*)?([A-Za-z_][\w.:]{0,100})"
)


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is the decoded file."""
    text = decode(path, data, on_problem)
    yield Document(text, finished(path, text, scan(text, path.suffix.lower())))


def scan(text: str, suffix: str) -> Iterator[Block]:
    """Yield the untrimmed blocks of source code in the language of a suffix."""
    cuts: list[tuple[int, tuple[str, ...]]] = []
    if suffix in _SECTIONED:
        cuts = [(found.start(), (found[1].strip(),)) for found in _SECTION.finditer(text)]
    elif pattern := _pattern(_LANGUAGES.get(suffix)):
        cuts = [(found.start(), _named(text, found.start())) for found in pattern.finditer(text)]
    starts = [0, *(start for start, _ in cuts)]
    ends = [*(start for start, _ in cuts), len(text)]
    paths: list[tuple[str, ...]] = [(), *(path for _, path in cuts)]
    for start, end, path in zip(starts, ends, paths, strict=True):
        yield from pieces(text, start, end, path, whole=bool(path))


def pieces(text: str, start: int, end: int, path: tuple[str, ...], *, whole: bool) -> Iterator[Block]:
    """Yield the blocks of ``text[start:end]``: one if it may stay ``whole`` and is short, else its paragraphs."""
    if whole and end - start <= WHOLE:
        yield Block(start, end, "code", path)
        return
    first = -1
    for line_start, line_end in lines(text, start, end):
        if line_start == line_end or text[line_start:line_end].isspace():
            if first >= 0:
                yield Block(first, line_start, "code", path)
            first = -1
        elif first < 0:
            first = line_start
    if first >= 0:
        yield Block(first, end, "code", path)


@cache
def _pattern(language: str | None) -> re.Pattern[str] | None:
    """Build the pattern of a definition at the start of a line from the splitter's separators for a language."""
    if language is None:
        return None
    from langchain_text_splitters import Language, RecursiveCharacterTextSplitter

    listed = RecursiveCharacterTextSplitter.get_separators_for_language(Language(language))
    words = {separator.strip() for separator in listed if re.fullmatch(r"\n[A-Za-z]+ ", separator)}
    words = (words | _DEFINITIONS) - _STATEMENTS
    return re.compile(rf"^{_MODIFIERS}(?:{'|'.join(sorted(words))})\b(?=[ \t])", re.MULTILINE)


def _named(text: str, start: int) -> tuple[str, ...]:
    """Return the name defined at an offset as a heading path; empty if unknown."""
    found = _NAME.match(text, start)
    return (found[1],) if found else ()
