"""Cache of answers by release, index state, question and history."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence

from sqlalchemy import Engine, delete, insert, select

from rag.answering.conversation_store import answer_schema
from rag.database import reading, writing
from rag.masking import Masker
from rag.tables import answer_cache
from rag.types import Answer, Turn


class AnswerCache:
    """The answers in the database. Every method may raise DatabaseError; ``put``, StorageFull.

    Args:
        engine: The database.
        masker: What must not be stored; by default nothing is masked.
    """

    def __init__(self, engine: Engine, masker: Masker | None = None) -> None:
        self._engine = engine
        self._masker = masker or Masker()

    def get(self, key: str) -> Answer | None:
        """Return the answer for a key of ``key_of``; None without one, or if another version stored it."""
        from pydantic import ValidationError

        with reading(self._engine) as connection:
            stored = connection.scalar(select(answer_cache.c.answer).where(answer_cache.c.key == key))
        if stored is None:
            return None
        try:
            return answer_schema().validate_python(stored)
        except ValidationError:
            return None

    def put(self, key: str, answer: Answer) -> None:
        """Store an answer, replacing an earlier one.

        An answer with personal data is not stored, since the scores of a masked one would differ.
        """
        stored = answer_schema().dump_python(answer, mode="json")
        if self._masker.json(stored) != stored:
            return
        with writing(self._engine) as connection:
            connection.execute(delete(answer_cache).where(answer_cache.c.key == key))
            connection.execute(insert(answer_cache).values(key=key, created=time.time(), answer=stored))

    def clear(self) -> int:
        """Delete all answers and return their number."""
        with writing(self._engine) as connection:
            return connection.execute(delete(answer_cache)).rowcount


def key_of(state: str, question: str, history: Sequence[Turn]) -> str:
    """Return the key of an answer, 64 hexadecimal digits.

    Args:
        state: Identity of the release and of its index's state.
        question, history: The question and the turns before it.
    """
    parts = [state, question, [[turn.question, turn.answer] for turn in history]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
