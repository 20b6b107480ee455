"""E-books (EPUB): the chapters in reading order, each a web page."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from rag.documents.loaders._blocks import Builder, Sections, finished
from rag.documents.loaders._fields import date_in, scalars, title_or_none
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._office import unpacked
from rag.documents.loaders._text import OnProblem, decode, refused
from rag.documents.loaders.html import declared_encoding, write_page
from rag.types import Document

_CONTAINER = "META-INF/container.xml"
_PAGES = {"application/xhtml+xml", "text/html"}
_DAMAGED = "Convert it again, or leave it out."


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is that of all chapters.

    Raises:
        LoadError: It is no e-book, is damaged, or protected against copying.
    """
    stream = unpacked(path, data, _CONTAINER, "e-book")
    builder = Builder()
    sections = Sections()
    losses = Losses(on_problem)
    with zipfile.ZipFile(stream) as archive:
        package, folder = _package(path, archive)
        locked = _locked(archive)
        for name, kind in _spine(package, folder):
            if name in locked:
                raise refused(path, "is protected against copying (DRM)", "Add a copy without protection.")
            if kind not in _PAGES or name not in archive.namelist():
                losses.add("chapter", posixpath.basename(name), "it is missing, or not a page of text")
                continue
            source = archive.read(name)
            page = decode(path, source, on_problem, declared_encoding(source))
            write_page(path, page, builder, sections, losses)
    losses.report()
    fields = _metadata(package)
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        title=title_or_none(fields.pop("title", None)) or sections.title,
        metadata=scalars(fields),
        date=date_in(fields),
    )


def _parsed(source: bytes) -> Any:
    """Parse XML without entities and the network."""
    from lxml import etree  # type: ignore[import-untyped]

    return etree.fromstring(source, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))


def _below(element: Any, name: str) -> Iterator[Any]:
    """Yield the elements of a name in any namespace."""
    return (child for child in element.iter("{*}" + name))


def _package(path: Path, archive: zipfile.ZipFile) -> tuple[Any, str]:
    """Return the package document, and the folder that its names are relative to."""
    root = next(_below(_parsed(archive.read(_CONTAINER)), "rootfile"), None)
    name = root.get("full-path", "") if root is not None else ""
    if name not in archive.namelist():
        raise refused(path, "is an e-book without its list of contents", _DAMAGED)
    return _parsed(archive.read(name)), posixpath.dirname(name)


def _spine(package: Any, folder: str) -> Iterator[tuple[str, str]]:
    """Yield name and type of the chapters in reading order, without the table of contents."""
    items = {item.get("id"): item for item in _below(package, "item")}
    for reference in _below(package, "itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and "nav" not in item.get("properties", "").split():
            name = posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
            yield name, item.get("media-type", "")


def _locked(archive: zipfile.ZipFile) -> set[str]:
    """Return the names of encrypted parts; fonts are so in many books."""
    if "META-INF/encryption.xml" not in archive.namelist():
        return set()
    root = _parsed(archive.read("META-INF/encryption.xml"))
    return {unquote(reference.get("URI", "")) for reference in _below(root, "CipherReference")}


def _metadata(package: Any) -> dict[str, object]:
    """Return title, author and the like."""
    names = {name: name for name in ("title", "language", "publisher", "date")} | {"creator": "author"}
    fields: dict[str, object] = {}
    for name, field in names.items():
        found = [" ".join("".join(element.itertext()).split()) for element in _below(package, name)]
        if found:
            fields[field] = found[0] if name != "creator" else ", ".join(found)
    return fields
