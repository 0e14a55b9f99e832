"""One look for every Gradio page: system fonts, warm greys, one accent; the colours stand in static/tokens.css."""

from __future__ import annotations

import gradio as gr

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

# No single `$`: a reply may well name two prices.
LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]

# Theme variable -> token; each is the same in light and dark because the token changes.
_TOKENS = {
    "body_background_fill": "bg",
    "body_text_color": "ink",
    "body_text_color_subdued": "muted",
    "background_fill_primary": "surface",
    "background_fill_secondary": "raised",
    "block_background_fill": "surface",
    "block_border_color": "line",
    "block_label_background_fill": "surface",
    "block_label_text_color": "muted",
    "block_title_text_color": "ink",
    "block_info_text_color": "muted",
    "border_color_primary": "line",
    "border_color_accent": "accent",
    "border_color_accent_subdued": "line_strong",
    "color_accent_soft": "accent_soft",
    "link_text_color": "accent",
    "link_text_color_hover": "accent_strong",
    "link_text_color_active": "accent_strong",
    "link_text_color_visited": "accent",
    "panel_background_fill": "surface",
    "panel_border_color": "line",
    "accordion_text_color": "ink",
    "table_text_color": "ink",
    "table_border_color": "line",
    "table_even_background_fill": "surface",
    "table_odd_background_fill": "surface",
    "table_row_focus": "accent_soft",
    "code_background_fill": "raised",
    "input_background_fill": "raised",
    "input_background_fill_focus": "surface",
    "input_border_color": "line_strong",
    "input_border_color_focus": "accent",
    "input_placeholder_color": "muted",
    "checkbox_background_color": "surface",
    "checkbox_background_color_selected": "accent",
    "checkbox_border_color": "line_strong",
    "checkbox_border_color_selected": "accent",
    "checkbox_border_color_focus": "accent",
    "checkbox_label_background_fill": "raised",
    "checkbox_label_background_fill_selected": "accent_soft",
    "checkbox_label_border_color": "line",
    "checkbox_label_border_color_selected": "accent",
    "checkbox_label_text_color": "ink",
    "checkbox_label_text_color_selected": "ink",
    "slider_color": "accent",
    "loader_color": "accent",
    "stat_background_fill": "accent_soft",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent_strong",
    "button_primary_border_color": "accent",
    "button_primary_border_color_hover": "accent_strong",
    "button_primary_text_color": "on_accent",
    "button_primary_text_color_hover": "on_accent",
    "button_secondary_background_fill": "surface",
    "button_secondary_background_fill_hover": "raised",
    "button_secondary_border_color": "line_strong",
    "button_secondary_border_color_hover": "line_strong",
    "button_secondary_text_color": "ink",
    "button_secondary_text_color_hover": "ink",
    "button_cancel_background_fill": "bad_soft",
    "button_cancel_background_fill_hover": "bad_soft",
    "button_cancel_border_color": "bad",
    "button_cancel_border_color_hover": "bad",
    "button_cancel_text_color": "bad",
    "button_cancel_text_color_hover": "bad",
    "error_background_fill": "bad_soft",
    "error_border_color": "bad",
    "error_text_color": "bad",
    "error_icon_color": "bad",
}
# Variables that have no `_dark` twin.
_SINGLE = {"color_accent"}


def make_theme() -> gr.themes.Base:
    """The theme of both pages; it fetches nothing from another host."""
    theme = gr.themes.Base(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        radius_size="lg",
        font=_FONT,
        font_mono=_MONO,
    )
    values = {"color_accent": "var(--fb-accent)"}
    for name, token in _TOKENS.items():
        colour = f"var(--fb-{token.replace('_', '-')})"
        values[name] = colour
        values[f"{name}_dark"] = colour
    return theme.set(
        **values,
        block_label_text_size="*text_sm",
        block_title_text_weight="550",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        button_primary_shadow="none",
        button_secondary_shadow="none",
        button_large_text_weight="600",
        button_medium_text_weight="550",
        button_transform_hover="none",
        input_shadow="none",
        input_shadow_focus="0 0 0 3px var(--fb-accent-soft)",
        layout_gap="14px",
    )


# Scripts of a page beside pages.js, events.js and its own, in the order in which they need each other.
_SCRIPTS = {
    "annotate": ("words", "spans", "ranking", "form", "lesson"),
    "mine": ("words", "spans", "ranking", "form", "annotate"),
    "play": ("words", "spans", "ranking", "form", "annotate"),
}


# The form of an annotation looks the same wherever it is filled in.
_FORM_STYLES = ("annotate", "saying", "working")
_STYLES = {
    "annotate": (*_FORM_STYLES, "lesson"),
    "mine": (*_FORM_STYLES, "mine"),
    "play": (*_FORM_STYLES, "play"),
    "operate": ("operate", "pictures", "gate"),
}


def styles(page: str) -> tuple[str, ...]:
    """The style sheets of `page`, in order."""
    return ("tokens", "pages", *_STYLES[page])


def head(page: str) -> str:
    """What goes into the `<head>` of `page`: our icon and scripts, all from this server."""
    scripts = ("pages", "events", *_SCRIPTS.get(page, ()), page)
    return '<link rel="icon" href="/static/icon.svg" type="image/svg+xml">' + "".join(
        f'<script src="/static/{name}.js"></script>' for name in scripts
    )
