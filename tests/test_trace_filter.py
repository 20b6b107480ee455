"""The filter language of traces: what is understood, what is said of the rest, and that nothing else happens."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import FilterSyntaxError
from rag.tracing.filter_fields import FIELDS, STATUSES, read_moment
from rag.tracing.trace_filter import (
    All,
    Comparison,
    Filter,
    Not,
    Some,
    Words,
    both,
    has,
    parse_filter,
    print_filter,
    without,
)

SLOW = Comparison("latency", ">", "2s")
DOWN = Comparison("feedback", "=", "down")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", All()),
        ("  ", All()),
        ("refund", Words("refund")),
        ('"not found"', Words("not found")),
        ('"a \\"b\\" \\\\"', Words('a "b" \\')),
        ("latency>2s", SLOW),
        ("LATENCY > 2s", SLOW),
        ("latency > 2s AND feedback = down", All((SLOW, DOWN))),
        ("latency > 2s feedback = down", All((SLOW, DOWN))),
        ("latency > 2s or feedback = down refund", Some((SLOW, All((DOWN, Words("refund")))))),
        ("(latency > 2s or feedback=down) refund", All((Some((SLOW, DOWN)), Words("refund")))),
        ("not not feedback = down", Not(Not(DOWN))),
        ("question ~ refund", Comparison("question", "contains", "refund")),
        ('question contains "not"', Comparison("question", "contains", "not")),
        ("prompt != answer@3", Comparison("prompt", "!=", "answer@3")),
        ("started > 2h ago", Comparison("started", ">", "2h")),
        ("cost >= $0.01", Comparison("cost", ">=", "$0.01")),
        ("help!", Words("help!")),
    ],
)
def test_what_is_understood(text: str, meaning: Filter) -> None:
    assert parse_filter(text) == meaning


@pytest.mark.parametrize(
    ("text", "word", "said"),
    [
        ("latncy > 2", "latncy", "Did you mean latency?"),
        ("refund and latncy > 2", "latncy", "is not a field"),
        ("zzz = 1", "zzz", "Known are status, question"),
        ("status = eror", "eror", "Did you mean error?"),
        ("feedback = bad", "bad", "must be up, down or none"),
        ("latency > fast", "fast", "2s, 300ms"),
        ("cost > 1€", "1€", "$0.01"),
        ("tokens > many", "many", "1200 or 8k"),
        ("started > tomorrow", "tomorrow", "yesterday"),
        ("started = 2h", "=", "Use < or >"),
        ("question > a", ">", "which has no order"),
        ("latency ~ 2", "~", "which is no text"),
        ("latency >", ">", "needs a value"),
        ("latency > (2)", ">", "needs a value"),
        ("> 2", ">", "needs a field before it"),
        ('"latency" > 2', '"latency"', "Remove the quotation marks"),
        ("refund and", "and", "needs a condition behind it"),
        ("or refund", "or", "needs a condition before and behind it"),
        ("(refund", "(", "is never closed"),
        ("refund)", ")", "closes nothing"),
        ("()", ")", "closes nothing"),
        ('say "refund', '"', "does not end"),
        ("(" * 41 + "a" + ")" * 41, "(", "more than 40"),
        ("a " * 61, "a", "more than 60"),
        ("a" * 2001, "a" * 2001, "at most 2,000"),
    ],
)
def test_an_error_points_at_the_word(text: str, word: str, said: str) -> None:
    with pytest.raises(FilterSyntaxError) as caught:
        parse_filter(text)
    assert said in str(caught.value)
    assert text[caught.value.start : caught.value.end] == word


def test_times_are_days_minutes_and_moments_ago() -> None:
    noon = datetime(2026, 5, 31, 12).timestamp()
    day = timedelta(days=1).total_seconds()
    today = datetime(2026, 5, 31).timestamp()
    spans = {
        "today": (today, today + day),
        "yesterday": (today - day, today),
        "2026-05-30": (today - day, today),
        "2026-05-31 08:30": (today + 8.5 * 3600, today + 8.5 * 3600 + 60),
        "2026-05-31T08:30:05": (today + 8.5 * 3600 + 5, today + 8.5 * 3600 + 6),
        "2h": (noon - 7200, noon - 7200),
        "7d ago": (noon - 7 * day, noon - 7 * day),
    }
    found = {text: read_moment(text, noon) for text in spans}
    assert {text: (one.start, one.end) for text, one in found.items()} == spans
    assert [text for text, one in found.items() if one.instant] == ["2h", "7d ago"]


def test_a_chip_adds_its_conditions_and_removes_them() -> None:
    assert both("", "status = error") == "status = error"
    assert both("refund or refunds", "status = error") == "(refund or refunds) and status = error"
    added = both("refund", "status = error")
    assert both(added, "status = error") == added
    assert has(added, "status = error")
    assert not has("refund or status = error", "status = error")
    assert without(added, "status = error") == "refund"
    assert without("status=error", "status = error") == ""


_texts = st.text(max_size=12).map(lambda text: text.replace("\x00", "").encode("utf-8", "replace").decode())
_numbers = st.sampled_from(["2", "300ms", "1.5min", "unknown", ".5", "999999999999999d"])
_values = {
    "seconds": _numbers,
    "dollars": st.sampled_from(["$0.01", "2", "unknown"]),
    "count": st.sampled_from(["1", "1,200", "8k", "unknown"]),
    "moment": st.sampled_from(["today", "yesterday", "2026-05-31", "2026-05-31 16:00", "9999-12-30"]),
}


def _comparisons() -> st.SearchStrategy[Filter]:
    def of(name: str) -> st.SearchStrategy[Filter]:
        field = FIELDS[name]
        signs = ("=", "!=", "contains") if field.is_text else ("=", "!=", ">", ">=", "<", "<=")
        values = _values.get(field.kind, st.sampled_from(field.choices) if field.choices else _texts)
        return st.builds(Comparison, st.just(name), st.sampled_from(signs), values)  # type: ignore[arg-type]

    return st.sampled_from(sorted(FIELDS)).flatmap(of)


filters = st.recursive(
    _comparisons() | st.builds(Words, _texts),
    lambda parts: (
        st.builds(Not, parts)
        | st.builds(All, st.lists(parts, min_size=2, max_size=3).map(tuple))
        | st.builds(Some, st.lists(parts, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=8,
)


@given(filters)
@settings(max_examples=60, deadline=None)
def test_a_printed_filter_has_the_same_meaning(one: Filter) -> None:
    assert parse_filter(print_filter(one)) == one


_PIECES = ["(", ")", "not", "and", "or", '"', "=", "!=", "~", ">", "<=", "contains", " ", "2s", "$0.1", "today",
           "ago", "'; DROP TABLE traces; --", "%", "_", "\\", *FIELDS, *STATUSES]  # fmt: skip
any_text = st.text(max_size=60) | st.lists(st.sampled_from(_PIECES), max_size=14).map(" ".join)


@given(any_text)
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_filter_or_a_clear_error(text: str) -> None:
    try:
        one = parse_filter(text)
    except FilterSyntaxError as error:
        place = (error.start, error.end)
    else:
        assert parse_filter(print_filter(one)) == one
        place = (0, 0)
    assert 0 <= place[0] <= place[1] <= len(text)


def test_a_long_hostile_text_takes_no_time() -> None:
    began = time.perf_counter()
    for text in ('"' + "\\" * 1999, "(" * 2000, "not " * 500, "latency > " + "9" * 1900):
        with pytest.raises(FilterSyntaxError):
            parse_filter(text)
    assert time.perf_counter() - began < 1
