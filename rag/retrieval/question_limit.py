"""The length limit of questions."""

from __future__ import annotations

from rag.errors import QuestionTooLong


def check_question(text: str, limit: int) -> None:
    """Refuse a question that is too long, because every word takes search time.

    Args:
        text: The question.
        limit: Maximum characters.

    Raises:
        QuestionTooLong: The question exceeds the limit.
    """
    if len(text) > limit:
        raise QuestionTooLong(
            f"The question has {len(text):,} characters, but at most {limit:,} are allowed.",
            fix="Shorten it, or raise limits.question_chars.",
        )
