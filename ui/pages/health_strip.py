"""The strip at the top of the page: the state of model, index and trackers, and notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ui.pages.safe_markup import fragment

if TYPE_CHECKING:
    from ui.app.health import Health


def strip_html(health: Health) -> str:
    """Render the states of model, index, W&B and the collector, if there is one."""
    states = (
        ("Model", health.model, health.model_ok, health.model),
        ("Index", health.index, health.index_ok, health.index),
        ("W&B", health.wandb, health.wandb_ok, health.wandb_detail or health.wandb),
        # Few people have a collector.
        *([] if health.otlp == "off" else [("OTLP", health.otlp, health.otlp_ok, health.otlp)]),
    )
    return fragment("page_strip.html.jinja", states=states)


def notices_html(health: Health) -> str:
    """Render the notices that need attention; empty where there are none."""
    return fragment("page_notices.html.jinja", notices=health.notices)
