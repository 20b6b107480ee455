"""Any object becomes JSON that may be kept."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import ChatPromptValue
from pydantic import BaseModel, SecretStr
from scripted_chain import Searched

from rag.redaction import MASK
from rag.tracing.span_json import MAX_ITEMS, MAX_STRING, Known, as_json


class Colour(enum.Enum):
    BLUE = "blue"


class Login(BaseModel):
    user: str
    password: str
    key: SecretStr


class Nasty:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_any_object_becomes_json() -> None:
    value = {
        "dataclass": Searched("q", ("p",)),
        "model": Login(user="me", password="hunter2", key=SecretStr("hunter2")),
        "messages": [HumanMessage("hi"), AIMessage("yo")],
        "prompt": ChatPromptValue(messages=[HumanMessage("hi")]),
        "enum": Colour.BLUE,
        "dates": [date(2026, 1, 2), datetime(2026, 1, 2, 3, tzinfo=UTC)],
        "path": Path("a/b"),
        "numbers": [1, 2.5, float("nan"), float("inf"), numpy.float32(0.5), True, None],
        "array": numpy.zeros((3, 4)),
        "bytes": b"abc",
        "set": {1},
        3: "key",
        "text": "a\x00b\ud800c",
    }
    assert as_json(value) == {
        "dataclass": {"question": "q", "passages": ["p"]},
        "model": {"user": "me", "password": MASK, "key": "**********"},
        "messages": [{"role": "human", "content": "hi"}, {"role": "ai", "content": "yo"}],
        "prompt": [{"role": "human", "content": "hi"}],
        "enum": "blue",
        "dates": ["2026-01-02", "2026-01-02T03:00:00+00:00"],
        "path": "a/b",
        "numbers": [1, 2.5, "nan", "inf", 0.5, True, None],
        "array": "<ndarray 3×4 float64>",
        "bytes": "<3 bytes>",
        "set": [1],
        "3": "key",
        "text": "a\ufffdb?c",
    }


def test_long_things_are_clipped_and_say_so() -> None:
    shown = as_json("x" * (MAX_STRING + 7))
    assert shown == "x" * MAX_STRING + "… [7 characters left out]"
    assert as_json("x" * MAX_STRING) == "x" * MAX_STRING
    items = as_json(list(range(MAX_ITEMS + 3)))
    assert isinstance(items, list)
    assert items[-1] == "… 3 more left out"
    assert len(items) == MAX_ITEMS + 1
    secret = "x" * (MAX_STRING - 10) + " sk-" + "Ab12Cd34" * 5
    assert "Ab12" not in str(as_json(secret))


def test_showing_never_raises() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "too deep" in str(as_json(loop))
    assert as_json({"ok": 1, "bad": Nasty()}) == "<dict, not shown: RuntimeError>"
    assert as_json(number for number in range(3)) is not None


def test_steps_share_the_json_of_what_cannot_change() -> None:
    @dataclass(frozen=True)
    class Found:
        text: str

    @dataclass
    class Draft:
        text: str

    known: Known = {}
    found, draft = Found("a"), Draft("a")
    first: Any = as_json((found, draft), known)
    draft.text = "b"
    second: Any = as_json({"hits": [found, draft]}, known)
    assert first == [{"text": "a"}, {"text": "a"}]
    assert second == {"hits": [{"text": "a"}, {"text": "b"}]}
    assert second["hits"][0] is first[0]
