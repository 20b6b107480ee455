"""Alerts on the page: their levels and what was not sent, and the preview of one that is not saved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from scripted_app import ScriptedApp
from test_alert_channels import MESSAGE
from test_ledger import NOON

from rag.alerting.alert_history import SCALE, Sample, moments_between, replay
from rag.alerting.alert_notices import Notice
from rag.alerting.alert_rules import Alert, State
from rag.alerting.alert_store import WatchedAlert
from rag.settings import Settings
from ui.app.alerting import Preview
from ui.pages.monitor.alerts_view import MOST_POINTS, alerts_html, preview_html

HOSTILE = "<img src=x onerror=alert(1)>"
SLOW = Alert("slow", "p95", 5.0, 2.0, channels=("webhook",))
HOUR = 3_600.0


def shown(html: str) -> str:
    return " ".join(Markup(re.sub("<", " <", html)).striptags().split())


def preview_of(alert: Alert, samples: list[Sample], until: float = 86_400.0) -> Preview:
    moments = moments_between(alert, 0, until)
    return Preview(alert, 0, until, tuple(replay(alert, State(), samples, moments)))


def test_the_worst_level_comes_first_with_what_was_not_sent() -> None:
    calm = WatchedAlert(replace(SLOW, name="calm", channels=()), State())
    bad = WatchedAlert(replace(SLOW, name=HOSTILE, filter=HOSTILE), State("alert", NOON, 6.0, NOON, NOON))
    trouble = Notice("webhook", MESSAGE, attempts=3, error=f"It answers with {HOSTILE}")
    html = alerts_html([calm, bad], {HOSTILE: [trouble]})
    assert "<img" not in html
    text = shown(html)
    assert text.index("alert 6.0 s") < text.index("calm not checked")
    assert f"Not sent by webhook: It answers with {HOSTILE} (3 attempts, given up)" in text
    assert "There are no alerts." in alerts_html([], {})


def test_a_preview_has_the_curve_the_thresholds_and_the_notices() -> None:
    samples = [Sample(hour * HOUR, (6 if hour in (8, 9) else 1) * SCALE) for hour in range(24)]
    html = preview_html(preview_of(SLOW, samples))
    assert shown(html).startswith(
        "2 notices would have been sent: p95 answer time above 2.0 s (warning) and 5.0 s (alert) in 1h."
    )
    assert html.count("rs-notice-mark") == 2
    assert html.count("rs-band is-alert") == 1
    assert {"alert 5.0 s", "warning 2.0 s"} <= set(re.findall(r">(\w+ [\d.]+ s)</text>", html))
    # The peak is in the curve, at its top.
    (points,) = re.findall(r'polyline class="rs-line rs-line-0" points="([^"]+)"', html)
    heights = [float(point.partition(",")[2]) for point in points.split()]
    assert min(heights) == pytest.approx(12.0)


def test_a_preview_without_answers_says_so() -> None:
    text = shown(preview_html(preview_of(SLOW, [])))
    assert "0 notices would have been sent" in text
    assert "There are no such answers in this time." in text
    assert "no such answers" not in preview_html(preview_of(replace(SLOW, metric="requests"), []))


@given(
    st.lists(st.builds(Sample, st.floats(0, 86_400), st.integers(0, 9 * SCALE)), max_size=30),
    st.sampled_from(["above", "below"]),
    st.sampled_from([60.0, HOUR, 86_400.0]),
)
def test_every_history_can_be_drawn(samples: list[Sample], direction: str, window_s: float) -> None:
    alert = replace(SLOW, direction=direction, window_s=window_s, warn_at=None, alert_at=0.0)
    html = preview_html(preview_of(alert, sorted(samples, key=lambda sample: sample.at)))
    assert len(re.findall(r"[\d.]+,[\d.]+", html)) <= MOST_POINTS + 1
    assert all(0 <= float(height) <= 148 for height in re.findall(r"\d,(\d+\.\d)", html))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ScriptedApp]:
    made = ScriptedApp(tmp_path, Settings(tracking={"wandb": "off"}))
    yield made
    made.close()


def test_an_alert_can_be_named_like_a_bad_thing_and_is_removed_with_its_notices(app: ScriptedApp) -> None:
    app.alerting.save(replace(SLOW, name=HOSTILE, channels=()))
    app.alerting.check_due(NOON)
    assert "<img" not in alerts_html(app.alerting.watched(), app.alerting.troubles())
    app.alerting.remove(HOSTILE)
    assert app.alerting.watched() == ()
