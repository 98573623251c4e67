"""The page's looks: the system's own fonts, one accent, nothing fetched from anywhere."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils.fonts import Font

_TEXT = [Font("system-ui"), Font("Segoe UI"), Font("Roboto"), Font("Helvetica Neue"), Font("Arial"), Font("sans-serif")]
_CODE = [Font("ui-monospace"), Font("SFMono-Regular"), Font("Menlo"), Font("Consolas"), Font("monospace")]


def theme() -> gr.themes.Base:
    """Base, with system fonts and colours whose contrast is AA or better in light and dark."""
    return gr.themes.Base(
        primary_hue="teal", secondary_hue="slate", neutral_hue="slate", font=_TEXT, font_mono=_CODE, radius_size="sm"
    ).set(
        body_background_fill="#f7f8fa",
        body_background_fill_dark="#10151c",
        body_text_color="#17202b",
        body_text_color_dark="#e6ebf1",
        body_text_color_subdued="#4a5868",
        body_text_color_subdued_dark="#aab6c4",
        block_background_fill="#ffffff",
        block_background_fill_dark="#18202a",
        block_border_color="#d5dbe3",
        block_border_color_dark="#303c4a",
        block_label_text_color="#3b4858",
        block_label_text_color_dark="#c3cedb",
        block_title_text_color="#3b4858",
        block_title_text_color_dark="#c3cedb",
        block_info_text_color="#4a5868",
        block_info_text_color_dark="#aab6c4",
        button_primary_background_fill="#0f6b68",
        button_primary_background_fill_hover="#0b5553",
        button_primary_background_fill_dark="#0f6b68",
        button_primary_background_fill_hover_dark="#14807c",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        input_background_fill="#ffffff",
        input_background_fill_dark="#10151c",
        input_border_color="#8492a3",
        input_border_color_dark="#5d6c7e",
        input_placeholder_color="#5b6878",
        input_placeholder_color_dark="#93a1b1",
        link_text_color="#0b5f5c",
        link_text_color_dark="#6fd0ca",
        link_text_color_hover="#083f3d",
        link_text_color_hover_dark="#a5e6e1",
        link_text_color_visited="#0b5f5c",
        link_text_color_visited_dark="#6fd0ca",
        shadow_drop="none",
        block_shadow="none",
    )


def css() -> str:
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
