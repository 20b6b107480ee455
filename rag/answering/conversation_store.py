"""Conversations: what was asked and what was answered, kept so that they survive a restart.

A person's words are shown to them again as they wrote them, and the places of citations count characters of the
answer: questions and answers are the one thing that is stored with the secrets in them. Titles, which lists show,
and the rewritten question are masked, as traces and all that is made of them are.

Only this module touches the tables ``conversations`` and ``exchanges``.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, delete, func, insert, select, update

from rag.database import reading, writing
from rag.redaction import redact
from rag.tables import conversations as conversations_table
from rag.tables import exchanges as exchanges_table
from rag.types import Answer, Turn

if TYPE_CHECKING:
    from pydantic import TypeAdapter

TITLE_LENGTH = 60
UNTITLED = "New conversation"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer.

    Attributes:
        position: Place in the conversation, from 0.
        answer: None while it is being written, and for good where the process died meanwhile.
    """

    position: int
    question: str
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation with its exchanges in order."""

    id: str
    title: str
    corpus: str
    exchanges: tuple[Exchange, ...] = ()

    def turns_before(self, position: int) -> tuple[Turn, ...]:
        """The history of the question at ``position``: what was answered before it.

        A question that failed or was broken off stays in, without an answer: the next one may refer to it.
        """
        return tuple(
            Turn(exchange.question, exchange.answer.text if exchange.answer else "")
            for exchange in self.exchanges
            if exchange.position < position
        )


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """A line in the list of conversations; ``updated`` in seconds since the epoch."""

    id: str
    title: str
    corpus: str
    updated: float


@dataclass(frozen=True, slots=True)
class ConversationPage:
    """A part of the list, newest first; ``total`` counts all of it."""

    conversations: tuple[ConversationSummary, ...]
    total: int


class ConversationStore:
    """The conversations in the database. Every method may raise DatabaseError; those that write, StorageFull.

    What is written to a conversation that was deleted meanwhile is dropped.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def new(self, corpus: str) -> str:
        """Begin a conversation and return its id; its first question gives the title."""
        conversation_id = str(uuid.uuid4())
        with writing(self._engine) as connection:
            connection.execute(
                insert(conversations_table).values(
                    id=conversation_id, title="", corpus=corpus, updated=time.time()
                )
            )
        return conversation_id

    def list(self, *, limit: int, offset: int = 0) -> ConversationPage:
        """The conversations used last."""
        table = conversations_table.c
        query = select(conversations_table).order_by(table.updated.desc(), table.id).limit(limit)
        with reading(self._engine) as connection:
            rows = connection.execute(query.offset(offset)).all()
            total = connection.scalar(select(func.count()).select_from(conversations_table)) or 0
        found = tuple(ConversationSummary(row.id, row.title or UNTITLED, row.corpus, row.updated) for row in rows)
        return ConversationPage(found, total)

    def load(self, conversation_id: str) -> Conversation | None:
        """A conversation with its exchanges; None where there is none of that id."""
        with reading(self._engine) as connection:
            found = connection.execute(
                select(conversations_table).where(conversations_table.c.id == conversation_id)
            ).first()
            rows = connection.execute(
                select(exchanges_table)
                .where(exchanges_table.c.conversation_id == conversation_id)
                .order_by(exchanges_table.c.position)
            ).all()
        if found is None:
            return None
        exchanges = tuple(Exchange(row.position, row.question, _read_answer(row.answer)) for row in rows)
        return Conversation(found.id, found.title or UNTITLED, found.corpus, exchanges)

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation another title; an empty one changes nothing."""
        shown = shorten(title)
        if shown:
            self._set(conversation_id, title=shown)

    def set_corpus(self, conversation_id: str, corpus: str) -> None:
        """Send the next questions of a conversation to another corpus."""
        self._set(conversation_id, corpus=corpus)

    def _set(self, conversation_id: str, **values: str) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(conversations_table).where(conversations_table.c.id == conversation_id).values(values)
            )

    def delete(self, conversation_id: str) -> None:
        """Remove a conversation; the traces of its answers stay."""
        with writing(self._engine) as connection:
            connection.execute(delete(exchanges_table).where(exchanges_table.c.conversation_id == conversation_id))
            connection.execute(delete(conversations_table).where(conversations_table.c.id == conversation_id))

    def append(self, conversation_id: str, question: str) -> int:
        """Keep a question before it is answered.

        Returns:
            Its position, from 0.
        """
        table = exchanges_table.c
        # One statement finds the place and takes it, so that two tabs cannot take the same.
        place = (
            select(func.coalesce(func.max(table.position) + 1, 0))
            .where(table.conversation_id == conversation_id)
            .scalar_subquery()
        )
        own = conversations_table.c.id == conversation_id
        with writing(self._engine) as connection:
            touched = connection.execute(update(conversations_table).where(own).values(updated=time.time()))
            if touched.rowcount == 0:
                return 0
            connection.execute(
                update(conversations_table)
                .where(own, conversations_table.c.title == "")
                .values(title=shorten(redact(question)))
            )
            made = connection.execute(
                insert(exchanges_table)
                .values(conversation_id=conversation_id, position=place, question=question)
                .returning(table.position)
            )
            return int(made.scalar_one())

    def finish(self, conversation_id: str, position: int, answer: Answer) -> None:
        """Keep the answer to the question at ``position``, whatever became of it."""
        table = exchanges_table.c
        kept = replace(answer, standalone=redact(answer.standalone))
        with writing(self._engine) as connection:
            connection.execute(
                update(exchanges_table)
                .where(table.conversation_id == conversation_id, table.position == position)
                .values(answer=answer_schema().dump_python(kept, mode="json"), trace_id=answer.trace_id or None)
            )

    def truncate_from(self, conversation_id: str, position: int) -> None:
        """Drop the question at ``position`` and all after it: it is asked again, or differently."""
        table = exchanges_table.c
        with writing(self._engine) as connection:
            connection.execute(
                delete(exchanges_table).where(table.conversation_id == conversation_id, table.position >= position)
            )


def shorten(text: str, length: int = TITLE_LENGTH) -> str:
    """The beginning of a text on one line, cut between words where it can be."""
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    head = line[: length - 1]
    # A cut inside a word only where the words are as long as the line.
    between = head.rfind(" ")
    return (head[:between] if between > length // 2 else head).rstrip(" ,.;:") + "…"


@cache
def answer_schema() -> TypeAdapter[Answer]:
    """Return the form in which answers are stored as JSON."""
    from pydantic import TypeAdapter

    return TypeAdapter(Answer)


def _read_answer(stored: Any) -> Answer | None:
    from pydantic import ValidationError

    if stored is None:
        return None
    try:
        return answer_schema().validate_python(stored)
    except ValidationError:
        # Written by a version with another shape: what a person read is still there.
        text = stored.get("text") if isinstance(stored, dict) else None
        return Answer(text=text if isinstance(text, str) else "", status="answered")
