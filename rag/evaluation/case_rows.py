"""The names under which a case's parts are known, and a case from what a row of a file holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rag.evaluation.cases import Case, make_id, why

COLUMNS = ("id", "question", "answers", "sources", "must_refuse", "tags", "notes", "history")
SEVERAL = frozenset({"answers", "sources", "tags"})
ALIASES = {
    "_id": "id",
    "answer": "answers",
    "expected_answer": "answers",
    "expected_answers": "answers",
    "reference": "answers",
    "references": "answers",
    "source": "sources",
    "tag": "tags",
    "refuse": "must_refuse",
    "unanswerable": "must_refuse",
    "answerable": "must_refuse",
}
_NUMBERED = re.compile(r"answer_?[0-9]{1,4}")


@dataclass(frozen=True, slots=True)
class Row:
    """What a place of a file holds, or why it cannot be told.

    Attributes:
        number: Its first line, from 1.
        told: As ``read_case`` takes it.
        reason: Why there is nothing, as a clause; empty where there is.
    """

    number: int
    told: Any = None
    reason: str = ""


def read_case(told: object) -> Case:
    """A case from the object that a line of JSON holds.

    Raises:
        ValueError: It is no case; the message is a clause.
    """
    if not isinstance(told, dict):
        raise ValueError("it is no JSON object")
    held: dict[str, Any] = {}
    for key, value in told.items():
        name = "answers" if _NUMBERED.fullmatch(key) else ALIASES.get(key) or str(key)
        if value is None:
            continue
        if name in SEVERAL:
            some = value if isinstance(value, list) else [value]
            before = held.get(name, [])
            held[name] = before + [each for each in some if each not in before]
        elif name in held:
            raise ValueError(f"it has two of {name}")
        else:
            held[name] = not value if key == "answerable" and isinstance(value, bool) else value
    if isinstance(held.get("id"), int) and not isinstance(held["id"], bool):
        held["id"] = str(held["id"])
    made = "id" not in held
    try:
        # An id stands in until the question is known to be one.
        case = Case.model_validate(held | ({"id": "-"} if made else {}))
    except ValidationError as error:
        raise ValueError(why(error)) from error
    return case.model_copy(update={"id": make_id(case.question, case.history)}) if made else case


def is_known(name: str) -> bool:
    """Whether a case has something of that name."""
    return name in COLUMNS or name in ALIASES or _NUMBERED.fullmatch(name) is not None
