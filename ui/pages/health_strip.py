"""The strip on top of every page: is all well, and if not, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ui.pages.safe_markup import plain

if TYPE_CHECKING:
    from ui.app.health import Health


def strip_html(health: Health) -> str:
    """Model, index and W&B, each with a dot."""
    states = (
        ("Model", health.model, health.model_ok),
        ("Index", health.index, health.index_ok),
        ("W&B", health.wandb, health.wandb_ok),
    )
    dots = "".join(
        f'<span class="rs-state {"is-ok" if ok else "is-bad"}" title="{plain(f"{name}: {detail}")}">'
        f"<b>{plain(name)}</b> <span>{plain(detail)}</span></span>"
        for name, detail, ok in states
    )
    return f'<div class="rs-strip">{dots}</div>'


def notices_html(health: Health) -> str:
    """What needs a person, a line each; empty where nothing does."""
    return "".join(f'<div class="rs-notice">{plain(notice)}</div>' for notice in health.notices)
