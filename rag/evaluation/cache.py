"""Answers that were given already: the same release, index, question and history give the same one."""

from __future__ import annotations

import hashlib
import json
import time
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import Engine, delete, insert, select

from rag.database import reading, writing
from rag.tables import answer_cache
from rag.types import Answer, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import TypeAdapter


class AnswerCache:
    """The answers in the database. Every method may raise DatabaseError; ``put``, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, key: str) -> Answer | None:
        """The answer under a key of ``key_of``; None where there is none, or of another version's form."""
        from pydantic import ValidationError

        with reading(self._engine) as connection:
            held = connection.scalar(select(answer_cache.c.answer).where(answer_cache.c.key == key))
        if held is None:
            return None
        try:
            return _answers().validate_python(held)
        except ValidationError:
            return None

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer in place of an earlier one."""
        held = _answers().dump_python(answer, mode="json")
        with writing(self._engine) as connection:
            connection.execute(delete(answer_cache).where(answer_cache.c.key == key))
            connection.execute(insert(answer_cache).values(key=key, created=time.time(), answer=held))

    def clear(self) -> int:
        """Forget all answers, and say how many there were."""
        with writing(self._engine) as connection:
            return connection.execute(delete(answer_cache)).rowcount


def key_of(state: str, question: str, history: Sequence[Turn]) -> str:
    """What stands for a call: 64 hexadecimal digits.

    Args:
        state: The release that answers, and the state of its index.
        question, history: What is asked.
    """
    told = [state, question, [[turn.question, turn.answer] for turn in history]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@cache
def _answers() -> TypeAdapter[Answer]:
    from pydantic import TypeAdapter

    return TypeAdapter(Answer)
