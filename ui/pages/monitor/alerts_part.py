"""The alerts of the monitor tab: their levels, and a form with a preview on the history before one is saved."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args

import gradio as gr

from rag.alerting.alert_rules import METRICS, Direction, NoData
from rag.alerting.alert_texts import CHANNELS, LONGEST_NAME, AlertTexts, read_alert, texts_of
from rag.errors import AlertError
from rag.tracing.trace_filter import LONGEST
from ui.pages.html_component import html_component
from ui.pages.monitor.alerts_view import alerts_html, preview_html
from ui.pages.page_events import QUIET, show_errors, show_info, show_warning

if TYPE_CHECKING:
    from ui.app.alerting import Alerting

Updates = dict[Any, Any]

NEW = "new alert"
_BLANK = AlertTexts("", "p95", "")
_NAMES = tuple(field.name for field in fields(AlertTexts) if field.name != "channels")


class AlertsPart:
    """Components and events of the part, made inside the blocks that are open.

    Args:
        alerting: The alerts, their previews and their channels.
        ranges: Days of a preview by the name of the time that is chosen.
    """

    def __init__(self, alerting: Alerting, ranges: dict[str, int]) -> None:
        self._alerting = alerting
        self._ranges = ranges
        self.list = html_component("monitor-alerts")
        with gr.Accordion("Define an alert", open=False, elem_id="alert-form"):
            with gr.Row():
                self.chosen = gr.Dropdown([NEW], value=NEW, label="Alert", elem_id="alert-chosen", min_width=150)
                self._name = gr.Textbox(
                    label="Name", max_lines=1, max_length=LONGEST_NAME, elem_id="alert-name", min_width=150
                )
                self._metric = gr.Dropdown(
                    [(metric.title, name) for name, metric in METRICS.items()],
                    value=_BLANK.metric,
                    label="Metric",
                    elem_id="alert-metric",
                    scale=2,
                    min_width=190,
                )
                self._direction = gr.Dropdown(
                    list(get_args(Direction)), value=_BLANK.direction, label="Bad when", min_width=90
                )
                self._alert_at = _field("Alert at", "3s, $5, 10%", "alert-at")
                self._warn_at = _field("Warning at", "none", "alert-warn")
            with gr.Row():
                self._window = _field("Window", "15min, 1h", "alert-window", _BLANK.window)
                self._filter = gr.Textbox(
                    label="Only answers with",
                    placeholder="a filter, as in Traces",
                    max_lines=1,
                    max_length=LONGEST,
                    elem_id="alert-filter",
                    scale=2,
                    min_width=190,
                )
                self._no_data = gr.Dropdown(
                    list(get_args(NoData)), value=_BLANK.no_data, label="Without data", min_width=90
                )
                self._renotify = _field("Remind after", "never", "alert-renotify")
                self._channels = gr.CheckboxGroup(
                    list(CHANNELS), label="Notices go to", elem_id="alert-channels", min_width=290
                )
            with gr.Row(elem_classes="rs-actions"):
                self._try = gr.Button("Preview", size="sm", elem_id="alert-preview-button", min_width=90)
                self._save = gr.Button("Save", size="sm", variant="primary", elem_id="alert-save", min_width=90)
                self._test = gr.Button("Send a test", size="sm", elem_id="alert-test", min_width=90)
                self._remove = gr.Button("Remove", size="sm", elem_id="alert-remove", min_width=90)
            self._preview = html_component("alert-preview")

    @property
    def shown(self) -> list[Any]:
        """The components that ``show`` fills."""
        return [self.list, self.chosen]

    def wire(self, chosen_range: Any) -> None:
        """Connect the events.

        Args:
            chosen_range: The component with the time of the tab.
        """
        form = [
            *(self._name, self._metric, self._alert_at, self._warn_at, self._direction, self._window),
            *(self._filter, self._no_data, self._renotify, self._channels),
        ]
        self.chosen.input(self.choose, self.chosen, [*form, self._preview], **QUIET)
        self._try.click(self.preview, [chosen_range, *form], self._preview, **QUIET)
        self._save.click(self.save, form, self.shown, **QUIET)
        self._test.click(self.test, form, None, **QUIET)
        self._remove.click(self.remove, self.chosen, [*self.shown, *form, self._preview], **QUIET)

    def show(self, chosen: str = NEW) -> Updates:
        """Return the alerts as they are now."""
        watched = self._alerting.watched()
        names = [NEW, *(one.alert.name for one in watched)]
        return {
            self.list: alerts_html(watched, self._alerting.troubles()),
            self.chosen: gr.Dropdown(choices=names, value=chosen if chosen in names else NEW),
        }

    @show_errors
    def choose(self, name: str) -> Updates:
        """Fill the form with an alert."""
        saved = {watched.alert.name: watched.alert for watched in self._alerting.watched()}
        return self._filled(texts_of(saved[name]) if name in saved else _BLANK)

    @show_errors
    def preview(self, chosen_range: str, *typed: Any) -> str:
        """Show what the alert of the form would have done in the time of the tab."""
        now = time.time()
        alert = read_alert(_read(*typed, unnamed=True))
        return preview_html(self._alerting.preview(alert, now - 86_400 * self._ranges[chosen_range], now))

    @show_errors
    def save(self, *typed: Any) -> Updates:
        """Save the alert of the form."""
        alert = read_alert(_read(*typed))
        self._alerting.save(alert)
        show_info(f"Saved the alert {alert.name}.")
        return self.show(alert.name)

    @show_errors
    def test(self, *typed: Any) -> None:
        """Send a test notice to the channels of the form."""
        for sent in self._alerting.test(read_alert(_read(*typed, unnamed=True))):
            if sent.error:
                show_warning(f"The test was not sent by {sent.notice.channel}: {sent.error}")
            else:
                show_info(f"The test was sent by {sent.notice.channel}.")

    @show_errors
    def remove(self, name: str) -> Updates:
        """Remove the chosen alert."""
        if name == NEW:
            raise AlertError("No alert is chosen.", fix="Choose the one to remove.")
        self._alerting.remove(name)
        show_info(f"Removed the alert {name}.")
        return {**self.show(), **self._filled(_BLANK)}

    def _filled(self, texts: AlertTexts) -> Updates:
        return {
            self._name: texts.name,
            self._metric: texts.metric,
            self._alert_at: texts.alert_at,
            self._warn_at: texts.warn_at,
            self._direction: texts.direction,
            self._window: texts.window,
            self._filter: texts.filter,
            self._no_data: texts.no_data,
            self._renotify: texts.renotify,
            self._channels: list(texts.channels),
            self._preview: "",
        }


def _field(label: str, hint: str, elem_id: str, value: str = "") -> Any:
    return gr.Textbox(
        label=label, placeholder=hint, value=value, max_lines=1, max_length=40, elem_id=elem_id, min_width=90
    )


def _read(*values: Any, unnamed: bool = False) -> AlertTexts:
    """Return the texts of the form, in their order in ``AlertTexts``; for a trial, the name may be missing."""
    *texts, channels = values
    typed: dict[str, Any] = dict(zip(_NAMES, (text or "" for text in texts), strict=True))
    if unnamed:
        typed["name"] = typed["name"].strip() or NEW
    return AlertTexts(**typed, channels=tuple(channels or ()))
