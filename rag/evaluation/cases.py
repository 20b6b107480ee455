"""Cases: questions with what is known about their answers."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rag.masking import Masker
from rag.types import Turn

LONGEST_ID = 200
# Hexadecimal digits of a computed id: a hundred thousand questions collide in 1 of 50,000 datasets.
_ID_DIGITS = 12


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("it must not contain NUL characters")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("it must not contain lone surrogates")
    return value


def _turn(value: Any) -> Any:
    turn = {"question": value.question, "answer": value.answer} if isinstance(value, Turn) else value
    if (
        not isinstance(turn, Mapping)
        or set(turn) != {"question", "answer"}
        or not all(isinstance(text, str) for text in turn.values())
    ):
        raise ValueError("a turn must consist of the texts question and answer")
    return Turn(_writable(turn["question"]), _writable(turn["answer"]))


Line = Annotated[str, Field(min_length=1), BeforeValidator(_writable)]


class Case(BaseModel):
    """A question and what is known about its answer; texts are stripped of surrounding white space.

    Attributes:
        id: Unique in a dataset, 1 to 200 characters.
        history: Earlier turns of the conversation, oldest first.
        answers: Alternative reference answers; empty if none is known.
        sources: Sources of the answer, such as ``guide/install.md``, ``faq.jsonl#12`` or ``report.pdf p.3``; see
            ``rag.evaluation.ranking_metrics.matches``.
        must_refuse: Whether the documents do not answer it, so that the assistant must refuse; then there are no
            answers.
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
            raise ValueError("it must not have answers if it must be refused")
        return self

    @property
    def sha256(self) -> str:
        """The hash of all fields, 64 hexadecimal digits."""
        return _digest(self.as_json())

    @property
    def content_sha256(self) -> str:
        """The hash of all fields except the id, 64 hexadecimal digits."""
        return _digest({name: value for name, value in self.as_json().items() if name != "id"})

    def as_json(self) -> dict[str, Any]:
        """Return the input of ``model_validate``, without defaults, so that a new field changes no hash."""
        return self.model_dump(mode="json", exclude_defaults=True)


def masked_case(case: Case, masker: Masker) -> Case:
    """Return a case without personal data, to be shown elsewhere; the dataset keeps it as it is."""
    return Case.model_validate(masker.json(case.as_json())) if masker else case


def make_id(question: str, history: Sequence[Turn] = ()) -> str:
    """Compute an id from a question and the turns before it."""
    turns = [[turn.question, turn.answer] for turn in history]
    return _digest([question.strip(), turns])[:_ID_DIGITS]


def bare_question(question: str) -> str:
    """Normalise a question for comparison: without case, punctuation and runs of white space."""
    letters = unicodedata.normalize("NFKC", question).casefold()
    plain = "".join(" " if unicodedata.category(letter).startswith("P") else letter for letter in letters)
    # A text of nothing but punctuation keeps it.
    return " ".join(plain.split()) or " ".join(letters.split())


def source_name(name: str, page: int | None = None) -> str:
    """Return the name of a passage's source in a case.

    Args:
        name: ``rag.types.Passage.name``.
        page: Its page, from 1, if the source has pages.
    """
    return name if page is None else f"{name} p.{page}"


def why(error: ValidationError) -> str:
    """Return the first problem of an invalid case as a clause."""
    first = error.errors(include_url=False)[0]
    place = " ".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] == "extra_forbidden":
        strange = [str(problem["loc"][0]) for problem in error.errors() if problem["type"] == "extra_forbidden"]
        return f"unknown fields: {', '.join(strange)}"
    if first["type"] == "string_too_short":
        return f"{place}: it must not be empty"
    reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{place}: {reason}" if place else reason


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
