"""Intended use, limits, what is stored, and how programs call the page."""

from __future__ import annotations

import gradio as gr

from lesion_hub.app import fragments
from lesion_hub.app.options import AppOptions


def about_tab(options: AppOptions) -> None:
    gr.HTML(fragments.about(options), elem_id="about")
