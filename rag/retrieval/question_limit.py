"""How long a question may be, whoever asks it."""

from __future__ import annotations

from rag.errors import QuestionTooLong


def check_question(text: str, limit: int) -> None:
    """Refuse a question that is too long.

    Searching takes time for every word, and no document answers a question of many pages.

    Args:
        limit: Characters that a question may have.

    Raises:
        QuestionTooLong: It has more.
    """
    if len(text) > limit:
        raise QuestionTooLong(
            f"The question has {len(text):,} characters, and {limit:,} are allowed.",
            fix="Shorten it, or raise limits.question_chars.",
        )
