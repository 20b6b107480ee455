"""Mails (EML): sender, subject and date, and the text of the message."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from rag.documents.loaders._blocks import Builder, Sections, finished, one_line, paragraphs
from rag.documents.loaders._fields import scalars
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._text import OnProblem, clean, decode, refused
from rag.documents.loaders.html import write_page
from rag.types import Document

_SHOWN = ("From", "To", "Cc", "Date", "Subject")
_MOST_FORWARDED = 20


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; messages that are forwarded as attachments follow.

    Raises:
        LoadError: It is no mail.
    """
    message = message_from_bytes(data, policy=policy.default)
    if not any(_header(message, name) for name in _SHOWN):
        raise refused(path, "is not a mail: it has no sender, date or subject", "Check what kind of file it is.")
    builder = Builder()
    losses = Losses(on_problem)
    subject = one_line(_header(message, "Subject"))
    waiting = [message]
    count = 0
    while waiting:
        count += 1
        waiting.extend(_write(path, builder, losses, waiting.pop(0), on_problem)[: _MOST_FORWARDED - count])
    losses.report()
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        title=subject or None,
        metadata=scalars({"author": _header(message, "From"), "to": _header(message, "To")}),
        date=_day(message),
    )


def _write(
    path: Path, builder: Builder, losses: Losses, message: EmailMessage, on_problem: OnProblem
) -> list[EmailMessage]:
    """Write a message, and return those that are attached to it."""
    subject = one_line(_header(message, "Subject"))
    path_above = (subject,) if subject else ()
    builder.add(subject, "heading", path_above)
    lines = (f"{name}: {value}" for name in _SHOWN[:-1] if (value := _header(message, name)))
    builder.add("\n".join(lines), "text", path_above)
    forwarded: list[EmailMessage] = []
    for part in _parts(message):
        kind = part.get_content_type()
        inner = part.get_payload(0) if kind == "message/rfc822" and part.is_multipart() else None
        if isinstance(inner, EmailMessage):
            forwarded.append(inner)
        elif kind not in ("text/plain", "text/html") or part.get_filename() or part.is_attachment():
            losses.add("attachment", one_line(part.get_filename() or kind), "add it as a file")
        elif kind == "text/html":
            sections = Sections()
            if subject:
                sections.enter(0, subject)
            write_page(path, _text(path, part, on_problem), builder, sections, losses)
        else:
            text = _text(path, part, on_problem)
            for start, end in paragraphs(text):
                builder.add(text[start:end], "text", path_above)
    return forwarded


def _parts(message: EmailMessage) -> Iterator[EmailMessage]:
    """Yield the parts of a message in order, of alternatives the plainest one, but not those of attached mails."""
    waiting: list[Any] = [message]
    while waiting:
        part = waiting.pop()
        if part.get_content_maintype() != "multipart" or not part.is_multipart():
            yield part
        elif part.get_content_subtype() == "alternative":
            waiting += sorted(part.iter_parts(), key=_richness)[:1]
        else:
            waiting += reversed([*part.iter_parts()])


def _richness(part: EmailMessage) -> int:
    """Return the place of an alternative: text, a page, anything else; an empty text comes last."""
    kind = part.get_content_type()
    if kind == "text/plain":
        payload = part.get_payload(decode=True)
        return 0 if isinstance(payload, bytes) and payload.strip() else 3
    return 1 if kind == "text/html" or part.is_multipart() else 2


def _text(path: Path, part: MIMEPart, on_problem: OnProblem) -> str:
    """Decode the text of a part, whatever it declares."""
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    return decode(path, data, on_problem, part.get_content_charset())


def _header(message: EmailMessage, name: str) -> str:
    """Return a header on one line; empty if it is missing or malformed."""
    try:
        value = message.get(name)
    # The parser of headers raises arbitrary exceptions on malformed ones.
    except Exception:  # noqa: BLE001
        return ""
    return " ".join(clean(str(value or "")).split())


def _day(message: EmailMessage) -> date | None:
    try:
        return parsedate_to_datetime(_header(message, "Date")).date()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
