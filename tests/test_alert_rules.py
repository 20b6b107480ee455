"""When an alert changes its level and when a notice is due; a preview finds what the checks have found."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.alerting.alert_history import SCALE, Sample, last_moment, moments_between, replay
from rag.alerting.alert_rules import DAY_S, METRICS, Alert, Check, Level, State, advance
from rag.alerting.alert_texts import (
    AlertTexts,
    condition_text,
    finding_text,
    length_text,
    read_alert,
    texts_of,
    value_text,
)
from rag.errors import AlertError

SLOW = Alert("slow", "p95", alert_at=2.0, warn_at=1.0)
VALUES = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 9.0]))
ALERTS = st.builds(
    Alert,
    st.just("slow"),
    st.sampled_from(sorted(METRICS)),
    alert_at=st.sampled_from([0.4, 2.0]),
    warn_at=st.none(),
    direction=st.sampled_from(["above", "below"]),
    window_s=st.sampled_from([60.0, 300.0, 3_600.0, DAY_S]),
    no_data=st.sampled_from(["ok", "keep", "alert"]),
    renotify_s=st.sampled_from([None, 60.0, 1_800.0]),
)


def course(alert: Alert, values: list[float | None]) -> list[Check]:
    """The checks of an alert with these values, a minute apart."""
    checks, state = [], State()
    for number, value in enumerate(values):
        checks.append(advance(alert, state, value, 60.0 * (number + 1)))
        state = checks[-1].state
    return checks


def levels(checks: list[Check]) -> list[Level]:
    return [check.state.level for check in checks]


def test_a_level_goes_from_ok_to_warning_to_alert_and_back() -> None:
    checks = course(SLOW, [0.5, 1.5, 1.6, 2.5, 1.5, 0.5, 0.5])
    assert levels(checks) == ["ok", "warning", "warning", "alert", "warning", "ok", "ok"]
    assert [check.event for check in checks] == [None, "changed", None, "changed", "changed", "changed", None]
    assert [check.state.since for check in checks] == [60, 120, 120, 240, 300, 360, 360]


def test_a_threshold_itself_is_good() -> None:
    assert levels(course(SLOW, [1.0, 2.0])) == ["ok", "warning"]
    few = Alert("few", "requests", alert_at=1.0, warn_at=3.0, direction="below")
    assert levels(course(few, [3.0, 2.0, 1.0, 0.0])) == ["ok", "warning", "warning", "alert"]


@pytest.mark.parametrize(
    ("no_data", "expected"),
    [("ok", ["ok", "alert", "ok"]), ("keep", ["ok", "alert", "alert"]), ("alert", ["alert", "alert", "alert"])],
)
def test_without_data_the_level_is_the_chosen_one(no_data: str, expected: list[Level]) -> None:
    alert = replace(SLOW, no_data=no_data)  # type: ignore[arg-type]  # a literal
    checks = course(alert, [None, 3.0, None])
    assert levels(checks) == expected
    assert checks[-1].state.value is None


def test_a_bad_level_that_stays_is_notified_again_after_its_time() -> None:
    checks = course(replace(SLOW, renotify_s=120.0), [3.0, 3.0, 3.0, 3.0, 3.0, 0.5, 0.5, 0.5, 0.5])
    events = [check.event for check in checks]
    assert events == ["changed", None, "reminder", None, "reminder", "changed", None, None, None]
    assert [check.event for check in course(SLOW, [3.0] * 5)] == ["changed", None, None, None, None]


def test_a_time_that_was_checked_before_changes_nothing() -> None:
    (first,) = course(SLOW, [3.0])
    again = advance(SLOW, first.state, 0.1, 60.0)
    earlier = advance(SLOW, first.state, 0.1, 30.0)
    assert (again.state, again.event) == (earlier.state, earlier.event) == (first.state, None)


@given(ALERTS, st.lists(VALUES, max_size=40))
def test_every_change_is_notified_once_and_nothing_else_but_reminders(
    alert: Alert, values: list[float | None]
) -> None:
    checks, before, notified = course(alert, values), "ok", None
    for check in checks:
        level = check.state.level
        assert check.before == before
        assert (check.event == "changed") == (level != before)
        if check.event == "reminder":
            assert level != "ok"
            assert alert.renotify_s is not None
            assert notified is not None
            assert check.at - notified >= alert.renotify_s
        if check.event:
            notified = check.at
        assert check.state.notified == notified
        before = level


@given(ALERTS, st.lists(VALUES, max_size=30), st.integers(0, 30))
def test_a_restart_changes_nothing(alert: Alert, values: list[float | None], at: int) -> None:
    """The state is all that one check leaves to the next."""
    first = course(alert, values[:at])
    state = first[-1].state if first else State()
    rest = []
    for number, value in enumerate(values[at:], len(first)):
        rest.append(advance(alert, state, value, 60.0 * (number + 1)))
        state = rest[-1].state
    assert [*first, *rest] == course(alert, values)


SAMPLES = st.lists(st.builds(Sample, st.floats(0, 8_000), st.integers(0, 5 * SCALE)), max_size=60).map(
    lambda samples: sorted(samples, key=lambda sample: sample.at)
)


@given(ALERTS, SAMPLES)
def test_a_preview_finds_what_checks_at_its_times_have_found(alert: Alert, samples: list[Sample]) -> None:
    moments = moments_between(alert, 0, 9_000)
    state, single = State(), []
    for at in moments:
        # As a check does: only the samples of its window are read.
        read = [sample for sample in samples if at - alert.window_s <= sample.at < at]
        single += replay(alert, state, read, [at])
        state = single[-1].state
    assert list(replay(alert, State(), samples, moments)) == single


@given(ALERTS, SAMPLES, st.floats(0, 9_000))
def test_a_value_is_what_its_metric_says(alert: Alert, samples: list[Sample], at: float) -> None:
    (check,) = replay(alert, State(), samples, [at])
    inside = sorted(sample.amount for sample in samples if at - alert.window_s <= sample.at < at)
    metric, value = METRICS[alert.metric], check.state.value
    if not inside:
        assert value == (0.0 if metric.name == "requests" else None)
    elif metric.percentile is not None:
        assert value == inside[math.ceil(metric.percentile * len(inside)) - 1] / SCALE
    else:
        assert value == pytest.approx(sum(inside) / SCALE / (1 if metric.is_sum else len(inside)))


@given(st.sampled_from([60.0, 300.0, 720.0, 3_600.0, DAY_S, 7 * DAY_S]), st.floats(1e6, 2e9))
def test_the_times_of_checks_are_the_same_for_a_server_and_a_preview(window_s: float, now: float) -> None:
    alert = replace(SLOW, window_s=window_s)
    assert 60 <= alert.step_s <= min(900, max(window_s, 60))
    assert moments_between(alert, now - 9_000, now)[-1] == last_moment(alert, now)


# Texts


def texts(**fields: str) -> AlertTexts:
    return AlertTexts(**{"name": "slow", "metric": "p95", "alert_at": "2s"} | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "typed", "value"),
    [
        ("p95", "300ms", 0.3),
        ("p95", "1.5min", 90.0),
        ("cost", "$5", 5.0),
        ("tokens", "8k", 8_000.0),
        ("requests", "0", 0.0),
        ("errors", "5%", 0.05),
        ("errors", "0.05", 0.05),
        ("thumbs_down", "7.5 %", 0.075),
        ("support", "1", 1.0),
    ],
)
def test_a_threshold_is_typed_in_the_unit_of_its_metric(metric: str, typed: str, value: float) -> None:
    alert = read_alert(texts(metric=metric, alert_at=typed))
    assert alert.alert_at == pytest.approx(value)
    assert read_alert(texts_of(alert)) == alert


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": " "}, "1 to 120 characters"),
        ({"name": "a\x07b"}, "cannot have control characters"),
        ({"metric": "speed"}, "metric of an alert cannot be 'speed'"),
        ({"alert_at": ""}, "threshold of the alert"),
        ({"alert_at": "unknown"}, "must be a number"),
        ({"metric": "errors", "alert_at": "200%"}, "must be a share such as 5% or 0.05"),
        ({"warn_at": "3s"}, "must be below that of the alert"),
        ({"warn_at": "1s", "direction": "below"}, "must be above that of the alert"),
        ({"window": "30s"}, "1min to 7d"),
        ({"window": "8d"}, "1min to 7d"),
        ({"renotify": "often"}, "time between reminders"),
        ({"filter": "latnecy > 2"}, "latnecy is not a field"),
        ({"filter": "started > 2h"}, "cannot use started"),
        ({"filter": "model = x or feedback = down"}, "cannot use feedback"),
        ({"no_data": "panic"}, "level without data"),
        ({"direction": "sideways"}, "direction"),
    ],
)
def test_what_cannot_be_used_is_named(fields: dict[str, str], problem: str) -> None:
    with pytest.raises(AlertError, match=problem) as raised:
        read_alert(texts(**fields))
    assert raised.value.fix


@given(st.builds(AlertTexts, *[st.text(max_size=12)] * 9, channels=st.tuples(st.text(max_size=9))))
def test_any_text_is_an_alert_or_a_clear_error(typed: AlertTexts) -> None:
    with pytest.raises(AlertError):
        read_alert(typed)


def test_alerts_are_described_in_a_sentence() -> None:
    alert = read_alert(texts(warn_at="1s", filter="model = tiny", window="15min", renotify="1d"))
    assert condition_text(alert) == (
        "p95 answer time above 1.0 s (warning) and 2.0 s (alert) in 15min, only model = tiny"
    )
    assert finding_text(alert, 1.5, "warning").endswith("was 1.5 s in the last 15min, above 1.0 s.")
    assert finding_text(alert, 0.2, "ok").endswith("was 200 ms in the last 15min.")
    assert finding_text(alert, None, "alert").startswith("There was no data")
    assert [length_text(seconds) for seconds in (60, 5_400, 7_200, 86_400, 61)] == [
        "1min",
        "90min",
        "2h",
        "1d",
        "61s",
    ]
    assert [value_text(0.0525, "share"), value_text(1_200, "count"), value_text(0.5, "dollars")] == [
        "5.25 %",
        "1,200",
        "$0.5000",
    ]
