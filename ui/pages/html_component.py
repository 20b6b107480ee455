"""The component of the page that shows our HTML as it is: without Gradio's script and style."""

from __future__ import annotations

from typing import Any

import gradio as gr


def html_component(elem_id: str | None = None, html: str = "") -> Any:
    """Make the component inside the blocks that are open."""
    return gr.HTML(html, elem_id=elem_id, js_on_load=None, apply_default_css=False)
