"""A case: a question, and what is known about its answer."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rag.types import Turn

LONGEST_ID = 200
# Hexadecimal digits of an id that was made: of a hundred thousand questions two share one in 1 of 50,000 datasets.
_MADE_ID = 12


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("it holds a NUL character")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("it holds half of a character (a lone surrogate)")
    return value


def _turn(value: Any) -> Any:
    told = {"question": value.question, "answer": value.answer} if isinstance(value, Turn) else value
    if (
        not isinstance(told, Mapping)
        or set(told) != {"question", "answer"}
        or not all(isinstance(each, str) for each in told.values())
    ):
        raise ValueError("a turn is a question and an answer, both texts, and nothing else")
    return Turn(_writable(told["question"]), _writable(told["answer"]))


Line = Annotated[str, Field(min_length=1), BeforeValidator(_writable)]


class Case(BaseModel):
    """A question and what is known about its answer; white space around a text is no part of it.

    Attributes:
        id: Unique in a dataset, 1 to 200 characters.
        history: Earlier turns of the conversation, oldest first.
        answers: Every one of them is right; empty where none is known.
        sources: Where the answer stands, as ``guide/install.md``, ``faq.jsonl#12`` or ``report.pdf p.3``; how they
            are compared is told in ``rag.evaluation.ranking_metrics.matches``.
        must_refuse: The documents do not answer it, and so must the assistant not; then there are no answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, str_strip_whitespace=True)

    id: Annotated[str, Field(min_length=1, max_length=LONGEST_ID), BeforeValidator(_writable)]
    question: Line
    history: tuple[Annotated[Turn, BeforeValidator(_turn)], ...] = Field(default=(), strict=False)
    answers: tuple[Line, ...] = Field(default=(), strict=False)
    sources: tuple[Line, ...] = Field(default=(), strict=False)
    must_refuse: bool = False
    tags: tuple[Line, ...] = Field(default=(), strict=False)
    notes: Annotated[str, BeforeValidator(_writable)] = ""

    @model_validator(mode="after")
    def _refused_or_answered(self) -> Self:
        if self.must_refuse and self.answers:
            raise ValueError("it must be refused, and has answers")
        return self

    @property
    def sha256(self) -> str:
        """The identity of all of it, 64 hexadecimal digits."""
        return _digest(self.as_json())

    @property
    def content_sha256(self) -> str:
        """The identity of all but its id, 64 hexadecimal digits."""
        return _digest({name: value for name, value in self.as_json().items() if name != "id"})

    def as_json(self) -> dict[str, Any]:
        """What ``model_validate`` takes; what is not given is left out.

        So a field that a later version adds changes no digest.
        """
        return self.model_dump(mode="json", exclude_defaults=True)


def make_id(question: str, history: Sequence[Turn] = ()) -> str:
    """The id of a case that was given none: always the same for the same question after the same turns."""
    told = [question.strip(), [[turn.question, turn.answer] for turn in history]]
    return _digest(told)[:_MADE_ID]


def bare_question(question: str) -> str:
    """A question as it is compared with another: without case, punctuation and runs of white space."""
    letters = unicodedata.normalize("NFKC", question).casefold()
    plain = "".join(" " if unicodedata.category(letter).startswith("P") else letter for letter in letters)
    # What is nothing but punctuation is compared as it is.
    return " ".join(plain.split()) or " ".join(letters.split())


def source_name(name: str, page: int | None = None) -> str:
    """How a case names the source of a passage.

    Args:
        name: ``rag.types.Passage.name``.
        page: Its page, from 1, where the source has them.
    """
    return name if page is None else f"{name} p.{page}"


def why(error: ValidationError) -> str:
    """The first reason why something is no case, as a clause."""
    first = error.errors(include_url=False)[0]
    place = " ".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
    if first["type"] == "missing":
        return f"it has no {place}"
    if first["type"] == "extra_forbidden":
        strange = [str(each["loc"][0]) for each in error.errors() if each["type"] == "extra_forbidden"]
        return f"a case has nothing called {', '.join(strange)}"
    if first["type"] == "string_too_short":
        return f"{place}: it is empty"
    told = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{place}: {told}" if place else told


def _digest(told: object) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
