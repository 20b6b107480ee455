"""Rows of case files: the accepted names of a case's fields, and conversion of a row into a case."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from prompts.validation import closest
from rag.evaluation.cases import Case, make_id, why

COLUMNS = ("id", "question", "answers", "sources", "must_refuse", "tags", "notes", "history")
SEVERAL = frozenset({"answers", "sources", "tags"})
ALIASES = {
    "_id": "id",
    "input": "question",
    "query": "question",
    "user_input": "question",
    "user_query": "question",
    "user_question": "question",
    "prompt": "question",
    "answer": "answers",
    "expected_answer": "answers",
    "expected_answers": "answers",
    "expected_output": "answers",
    "expected": "answers",
    "ground_truth": "answers",
    "ground_truths": "answers",
    "correct_answer": "answers",
    "correct_answers": "answers",
    "expected_response": "answers",
    "gold": "answers",
    "gold_answer": "answers",
    "golden_answer": "answers",
    "ideal": "answers",
    "ideal_answer": "answers",
    "target": "answers",
    "target_answer": "answers",
    "reference_answer": "answers",
    "reference_answers": "answers",
    "reference_output": "answers",
    "reference": "answers",
    "references": "answers",
    "source": "sources",
    "tag": "tags",
    "refuse": "must_refuse",
    "unanswerable": "must_refuse",
    "is_impossible": "must_refuse",
    "answerable": "must_refuse",
}
_NUMBERED = re.compile(r"answer_?[0-9]{1,4}")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, or the reason why it could not be read.

    Attributes:
        number: Its first line, from 1.
        value: The input of ``read_case``.
        reason: The problem as a clause; empty if there is none.
    """

    number: int
    value: Any = None
    reason: str = ""


def read_case(row: object) -> Case:
    """Build a case from a parsed JSON object.

    Raises:
        ValueError: It is not a valid case; the message is a clause.
    """
    if not isinstance(row, dict):
        raise ValueError("it must be a JSON object")
    found: dict[str, Any] = {}
    for key, value in row.items():
        name = "answers" if _NUMBERED.fullmatch(key) else ALIASES.get(key) or str(key)
        if value is None:
            continue
        if name in SEVERAL:
            some = [_as_text(item) for item in (value if isinstance(value, list) else [value])]
            before = found.get(name, [])
            found[name] = before + [item for item in some if item not in before]
        elif name in found:
            raise ValueError(f"it has several values for {name}")
        else:
            found[name] = not value if key == "answerable" and isinstance(value, bool) else value
    if isinstance(found.get("id"), int) and not isinstance(found["id"], bool):
        found["id"] = str(found["id"])
    try:
        # The id is computed once the question is known to be valid.
        case = Case.model_validate({"id": "-"} | found)
    except ValidationError as error:
        raise ValueError(why(error)) from error
    return case if "id" in found else case.model_copy(update={"id": make_id(case.question, case.history)})


def _as_text(item: Any) -> Any:
    """Return a number as text, such as the answer 42; anything else as it is."""
    return str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item


def is_known(name: str, names: Container[str] = ()) -> bool:
    """Whether a case has a field of that name.

    Args:
        name: The name.
        names: All names beside it: other names of the question do not count where ``question`` itself is there.
    """
    if ALIASES.get(name) == "question" and "question" in names:
        return False
    return name in COLUMNS or name in ALIASES or _NUMBERED.fullmatch(name) is not None


def strange_names(names: Iterable[str]) -> str:
    """Describe names that are not known, in order, with what may be meant by them."""
    known = (*COLUMNS, *ALIASES)

    def described(name: str) -> str:
        near = "" if name in known else closest(name, known)
        return f"{name} (did you mean {near}?)" if near else name

    return ", ".join(map(described, names))
