"""The strip on top of every page: is all well, and if not, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ui.pages.safe_markup import fragment

if TYPE_CHECKING:
    from ui.app.health import Health


def strip_html(health: Health) -> str:
    """Model, index and W&B, each with a dot."""
    states = (
        ("Model", health.model, health.model_ok),
        ("Index", health.index, health.index_ok),
        ("W&B", health.wandb, health.wandb_ok),
    )
    return fragment("page_strip.html.jinja", states=states)


def notices_html(health: Health) -> str:
    """What needs a person, a line each; empty where nothing does."""
    return fragment("page_notices.html.jinja", notices=health.notices)
