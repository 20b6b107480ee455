"""Stored conversations.

Questions and answers are the only data stored with their secrets, because people see their own words again, and
the offsets of citations refer to the answer. Titles and rewritten questions are masked, like traces. With
``tracing.mask``, questions and answers are masked as well.

Only this module touches the tables ``conversations`` and ``exchanges``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, delete, func, insert, select, update

from rag.database import reading, writing
from rag.masking import Masker
from rag.redaction import redact
from rag.tables import conversations as conversations_table
from rag.tables import exchanges as exchanges_table
from rag.tracing.trace_masking import TraceMasker
from rag.types import Answer, Turn

if TYPE_CHECKING:
    from pydantic import TypeAdapter

TITLE_LENGTH = 60
UNTITLED = "New conversation"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer.

    Attributes:
        position: Position in the conversation, from 0.
        answer: None while it is in progress, and if the process died meanwhile.
        corpus: The corpus that was asked.
    """

    position: int
    question: str
    answer: Answer | None = None
    corpus: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation with its exchanges in order.

    Attributes:
        filters: Conditions of its next questions, as they were typed; see ``rag.retrieval.filters.filters_of``.
    """

    id: str
    title: str
    corpus: str
    exchanges: tuple[Exchange, ...] = ()
    filters: tuple[str, ...] = ()

    def turns_before(self, position: int) -> tuple[Turn, ...]:
        """Return the history of the question at ``position``, as far as it was asked of the same corpus.

        What other documents say of a topic must not complete a question. Failed and interrupted questions are
        included, without an answer, because the next one may refer to them.
        """
        return tuple(
            Turn(exchange.question, exchange.answer.text if exchange.answer else "")
            for exchange in self.exchanges
            if exchange.position < position and exchange.corpus == self.corpus
        )


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """An entry in the list of conversations; ``updated`` in seconds since the epoch."""

    id: str
    title: str
    corpus: str
    updated: float


@dataclass(frozen=True, slots=True)
class ConversationPage:
    """A page of the list, newest first; ``total`` counts all conversations."""

    conversations: tuple[ConversationSummary, ...]
    total: int


class ConversationStore:
    """The conversations in the database. Every method may raise DatabaseError; those that write, StorageFull.

    Writes to a deleted conversation are ignored.

    Args:
        engine: The database.
        masker: Masks personal data in questions, answers and titles; by default none.
    """

    def __init__(self, engine: Engine, masker: Masker | None = None) -> None:
        self._engine = engine
        self._masker = masker or Masker()
        # What masks the answers to questions that were stored, by conversation and position.
        self._masking: dict[tuple[str, int], TraceMasker] = {}

    def new(self, corpus: str) -> str:
        """Create a conversation and return its id; its first question becomes the title."""
        conversation_id = str(uuid.uuid4())
        with writing(self._engine) as connection:
            connection.execute(
                insert(conversations_table).values(
                    id=conversation_id, title="", corpus=corpus, updated=time.time()
                )
            )
        return conversation_id

    def list(self, *, limit: int, offset: int = 0) -> ConversationPage:
        """List the most recently used conversations."""
        table = conversations_table.c
        query = select(conversations_table).order_by(table.updated.desc(), table.id).limit(limit)
        with reading(self._engine) as connection:
            rows = connection.execute(query.offset(offset)).all()
            total = connection.scalar(select(func.count()).select_from(conversations_table)) or 0
        found = tuple(ConversationSummary(row.id, row.title or UNTITLED, row.corpus, row.updated) for row in rows)
        return ConversationPage(found, total)

    def load(self, conversation_id: str) -> Conversation | None:
        """Return a conversation with its exchanges; None if it does not exist."""
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
        exchanges = tuple(
            Exchange(row.position, row.question, _read_answer(row.answer), row.corpus) for row in rows
        )
        return Conversation(found.id, found.title or UNTITLED, found.corpus, exchanges, tuple(found.filters))

    def rename(self, conversation_id: str, title: str) -> None:
        """Rename a conversation; an empty title has no effect."""
        shown = shorten(self._masker.text(title))
        if shown:
            self._set(conversation_id, title=shown)

    def set_corpus(self, conversation_id: str, corpus: str) -> None:
        """Set the corpus for the next questions of a conversation."""
        self._set(conversation_id, corpus=corpus)

    def set_filters(self, conversation_id: str, filters: Sequence[str]) -> None:
        """Set the conditions on the documents of the next questions of a conversation."""
        self._set(conversation_id, filters=[*filters])

    def _set(self, conversation_id: str, **values: str | Sequence[str]) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(conversations_table).where(conversations_table.c.id == conversation_id).values(values)
            )

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation, but not the traces of its answers."""
        with writing(self._engine) as connection:
            connection.execute(delete(exchanges_table).where(exchanges_table.c.conversation_id == conversation_id))
            connection.execute(delete(conversations_table).where(conversations_table.c.id == conversation_id))

    def append(self, conversation_id: str, question: str) -> int:
        """Store a question before it is answered.

        Returns:
            Its position, from 0.
        """
        table = exchanges_table.c
        masking = TraceMasker(self._masker)
        question = masking.text(question)
        # A single statement, so that two tabs cannot take the same position.
        place = (
            select(func.coalesce(func.max(table.position) + 1, 0))
            .where(table.conversation_id == conversation_id)
            .scalar_subquery()
        )
        own = conversations_table.c.id == conversation_id
        corpus = select(conversations_table.c.corpus).where(own).scalar_subquery()
        with writing(self._engine) as connection:
            touched = connection.execute(update(conversations_table).where(own).values(updated=time.time()))
            if touched.rowcount == 0:
                return 0
            connection.execute(
                update(conversations_table)
                .where(own, conversations_table.c.title == "")
                .values(title=shorten(redact(question)))
            )
            inserted = connection.execute(
                insert(exchanges_table)
                .values(conversation_id=conversation_id, position=place, corpus=corpus, question=question)
                .returning(table.position)
            )
            position = int(inserted.scalar_one())
        if self._masker:
            self._masking[conversation_id, position] = masking
        return position

    def finish(self, conversation_id: str, position: int, answer: Answer) -> None:
        """Store the answer to the question at ``position``, whatever its status."""
        table = exchanges_table.c
        kept = replace(answer, standalone=redact(answer.standalone))
        masking = self._masking.pop((conversation_id, position), TraceMasker(self._masker))
        stored = masking.json(answer_schema().dump_python(kept, mode="json"))
        with writing(self._engine) as connection:
            connection.execute(
                update(exchanges_table)
                .where(table.conversation_id == conversation_id, table.position == position)
                .values(answer=stored, trace_id=answer.trace_id or None)
            )

    def truncate_from(self, conversation_id: str, position: int) -> None:
        """Delete the question at ``position`` and all later ones, before it is repeated or edited.

        A title that was taken from the first question goes with it.
        """
        table = exchanges_table.c
        own = conversations_table.c.id == conversation_id
        first = select(table.question).where(table.conversation_id == conversation_id, table.position == 0)
        with writing(self._engine) as connection:
            question = connection.scalar(first) if position == 0 else None
            if question is not None:
                from_question = conversations_table.c.title == shorten(redact(question))
                connection.execute(update(conversations_table).where(own, from_question).values(title=""))
            connection.execute(
                delete(exchanges_table).where(table.conversation_id == conversation_id, table.position >= position)
            )


def shorten(text: str, length: int = TITLE_LENGTH) -> str:
    """Return a text on one line, truncated between words if possible."""
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    head = line[: length - 1]
    # Truncated inside a word only if words are as long as the line.
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
        # Another version stored it in a different form; at least the text can be shown.
        text = stored.get("text") if isinstance(stored, dict) else None
        return Answer(text=text if isinstance(text, str) else "", status="answered")
