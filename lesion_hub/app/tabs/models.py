"""What is served: versions, metrics with intervals, the reliability plot, the cards."""

from __future__ import annotations

import gradio as gr

from lesion_hub.app import fragments
from lesion_hub.app.service import Service


def models_tab(service: Service) -> None:
    """One article for each model, from the files of its folder."""
    gr.HTML("".join(fragments.model(served) for served in service.models.values()), elem_id="models-card")
