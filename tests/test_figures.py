"""Time, cost, tokens and place read alike wherever they are shown."""

from __future__ import annotations

import pytest

from rag.tracing.figures import counted, format_cost, format_place, format_seconds, format_tokens


@pytest.mark.parametrize(
    ("seconds", "text", "precise"),
    [
        (0.0, "0 ms", "0 ms"),
        (0.0854, "85 ms", "85 ms"),
        (1.94, "1.9 s", "1.94 s"),
        (12.31, "12 s", "12.3 s"),
        (200.4, "3 min 20 s", "3 min 20 s"),
        (29_130.0, "8 h 5 min", "8 h 5 min"),
        (-1.94, "-1.9 s", "-1.94 s"),
        (-75.0, "-1 min 15 s", "-1 min 15 s"),
    ],
)
def test_seconds(seconds: float, text: str, precise: str) -> None:
    assert format_seconds(seconds) == text
    assert format_seconds(seconds, digits=3) == precise


@pytest.mark.parametrize(
    ("usd", "text", "exact"),
    [
        (None, "cost unknown", "cost unknown"),
        (0.0, "$0", "$0"),
        (1.5, "$1.50", "$1.50"),
        (0.0123, "$0.0123", "$0.0123"),
        (0.00004, "< $0.0001", "$0.000040"),
        (-0.0025, "-$0.0025", "-$0.0025"),
        (1e-30, "< $0.0001", "$0.000000000000"),
    ],
)
def test_cost(usd: float | None, text: str, exact: str) -> None:
    assert format_cost(usd) == text
    assert format_cost(usd, exact=True) == exact


def test_tokens() -> None:
    assert format_tokens(700, 1_112) == "1,812 tok"
    assert format_tokens(9, None) == "9 tok"
    assert format_tokens(None, None) == "tokens unknown"
    assert format_tokens(1_700, 112, split=True) == "1,700 + 112 tok"
    assert format_tokens(5, None, split=True) == "5 + ? tok"
    assert format_tokens(None, None, split=True) == "tokens unknown"


def test_place() -> None:
    assert format_place("report.pdf", 3) == "report.pdf p. 3"
    assert format_place("notes.md", None) == "notes.md"


def test_one_thing_is_singular() -> None:
    assert [counted(number, "case") for number in (0, 1, 1200)] == ["0 cases", "1 case", "1,200 cases"]
