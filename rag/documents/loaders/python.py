"""Python source: functions, methods and the code between them, with qualified names as headings."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from rag.documents.loaders import code
from rag.documents.loaders._blocks import finished
from rag.documents.loaders._text import OnProblem, decode
from rag.types import Block, Document

_LARGEST = 2_000_000
"""Maximum characters to parse; larger files are generated data, whose syntax tree would take gigabytes."""

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is the decoded file. Source that does not parse is split by lines."""
    text = decode(path, data, on_problem)
    tree = _parse(text)
    blocks = _Scan(text).module(tree) if tree else code.scan(text, ".py")
    yield Document(text, finished(path, text, blocks))


def _parse(text: str) -> ast.Module | None:
    """Return the syntax tree; None if the text does not parse or is too long."""
    if len(text) > _LARGEST:
        return None
    with warnings.catch_warnings():
        # Ignore warnings about the file's invalid escapes.
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


class _Scan:
    """Splits a file at its definitions; lines are counted from 0, and ranges exclude their end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = text.split("\n")
        self._starts = [0, *accumulate(len(line) + 1 for line in self._lines)]

    def module(self, tree: ast.Module) -> Iterator[Block]:
        yield from self._body(tree.body, 0, len(self._lines), ())

    def _body(self, body: list[ast.stmt], first: int, last: int, path: tuple[str, ...]) -> Iterator[Block]:
        """Yield the blocks of the lines ``[first, last)`` of a body."""
        at = first
        for node in body:
            if not isinstance(node, _Definition) or node.end_lineno is None:
                continue
            begin = self._begin(node, at)
            yield from self._between(at, begin, path)
            at = node.end_lineno
            yield from self._definition(node, begin, at, (*path, node.name))
        yield from self._between(at, last, path)

    def _definition(self, node: _Definition, first: int, last: int, path: tuple[str, ...]) -> Iterator[Block]:
        has_definitions = isinstance(node, ast.ClassDef) and any(isinstance(n, _Definition) for n in node.body)
        if has_definitions:
            yield from self._body(node.body, first, last, path)
        else:
            yield from self._between(first, last, path, whole=True)

    def _begin(self, node: _Definition, floor: int) -> int:
        """Return the first line of a definition, including decorators and the comment right above them."""
        line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
        while line > floor and self._lines[line - 1].lstrip().startswith("#"):
            line -= 1
        return line

    def _between(self, first: int, last: int, path: tuple[str, ...], *, whole: bool = False) -> Iterator[Block]:
        start, end = self._starts[first], max(self._starts[last] - 1, self._starts[first])
        return code.pieces(self._text, start, end, path, whole=whole)
