"""The rating that is given beside a trace, as the script of the page sends it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag.errors import FeedbackError

LONGEST = 4_000
"""Maximum characters of a comment, and of a right answer; in the chat, too."""


class GivenRating(BaseModel):
    """A thumb with what was said about the answer; an empty ``rating`` removes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    trace: str
    rating: Literal["up", "down", ""]
    comment: str = Field(default="", max_length=LONGEST)
    correction: str = Field(default="", max_length=LONGEST)


def read_rating(given: str) -> GivenRating:
    """Read the JSON of a rating.

    Raises:
        FeedbackError: It has another form.
    """
    try:
        return GivenRating.model_validate_json(given)
    except ValidationError as error:
        raise FeedbackError(
            "The rating cannot be read.", fix="Reload the page, and rate the answer again."
        ) from error
