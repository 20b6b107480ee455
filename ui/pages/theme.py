"""The look of the page: Gradio's theme in our colours, our style sheets and script, all served locally."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ui.pages.rendering import render

_HERE = Path(__file__).parent
FAVICON = _HERE / "favicon.png"

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
_MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Noto Sans Mono", "Liberation Mono", "monospace")


def head() -> str:
    """Render the head of the page: our style sheets, the common one first, and our script.

    Gradio's own parameter for style sheets inserts every rule twice, once with a longer selector that changes its
    precedence.
    """
    common = _HERE / "style.css"
    sheets = [common, *sorted(path for path in _HERE.glob("*.css") if path != common)]
    style = "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    return render("page_head.html.jinja", style=style, script=script)


def theme() -> Any:
    """Return the theme: teal on slate, with small type and little space."""
    from gradio import themes

    look = themes.Base(
        primary_hue=themes.colors.teal,
        secondary_hue=themes.colors.slate,
        neutral_hue=themes.colors.slate,
        spacing_size=themes.sizes.spacing_sm,
        radius_size=themes.sizes.radius_md,
        text_size=themes.sizes.text_sm,
        font=_SANS,
        font_mono=_MONO,
    )
    return look.set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#101318",
        body_text_color="#1b2430",
        body_text_color_dark="#e4e8ee",
        body_text_color_subdued="#5f6b7a",
        body_text_color_subdued_dark="#98a3b3",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#171b21",
        background_fill_secondary="#f1f3f6",
        background_fill_secondary_dark="#1e232b",
        border_color_primary="#dfe3e8",
        border_color_primary_dark="#2b323c",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171b21",
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_text_color="#5f6b7a",
        block_label_text_color_dark="#98a3b3",
        block_title_text_color="#5f6b7a",
        block_title_text_color_dark="#98a3b3",
        block_title_text_weight="500",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1e232b",
        input_border_color="#d3d9e0",
        input_border_color_dark="#343c47",
        input_border_color_focus="#0f766e",
        input_border_color_focus_dark="#2dd4bf",
        input_border_width="1px",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover_dark="#0d9488",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#eef1f4",
        button_secondary_background_fill_dark="#1e232b",
        button_secondary_background_fill_hover_dark="#28303a",
        button_secondary_border_color="#d3d9e0",
        button_secondary_border_color_dark="#343c47",
        button_border_width="1px",
        button_large_radius="*radius_md",
        button_small_radius="*radius_md",
        color_accent="#0f766e",
        color_accent_soft="#e3f2f0",
        color_accent_soft_dark="#17302e",
        link_text_color="#0b6a63",
        link_text_color_dark="#5eead4",
    )
