"""What programs may call: ``/predict``, ``/explain``, ``/batch`` and ``/models``, typed and documented by their components."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lesion_hub.app.handlers import Handlers, for_programs
from lesion_hub.app.parcels import parcel
from lesion_hub.app.service import DEFAULT_METHOD
from lesion_hub.app.vault import Vault
from lesion_hub.inference.attribution.methods import METHODS
from lesion_hub.taxonomy import SEXES, SITES


def add_endpoints(handlers: Handlers, vault: Vault) -> None:
    """Wire the endpoints to a button that nobody sees: Gradio ties every endpoint to an event."""
    models, options = list(handlers.service.models), handlers.service.options
    one: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": options.concurrency}

    def model() -> gr.Dropdown:
        return gr.Dropdown(models, value=models[0], label="model", visible=False)

    hidden = gr.Button("endpoints", visible=False)
    hidden.click(
        for_programs(handlers.predict),
        inputs=[
            parcel(vault, label="image file"),
            model(),
            gr.Number(None, label="age in years", visible=False),
            gr.Dropdown(["", *SEXES], value="", label="sex", visible=False),
            gr.Dropdown(["", *SITES], value="", label="site", visible=False),
        ],
        outputs=[gr.JSON(label="prediction", visible=False)],
        api_name="predict",
        **one,
    )
    hidden.click(
        for_programs(handlers.explain),
        inputs=[
            parcel(vault, label="image file"),
            gr.Dropdown(list(METHODS), value=DEFAULT_METHOD, label="attribution method", visible=False),
            gr.Textbox("", label="label to explain, empty for the most probable", visible=False),
            gr.Textbox("", label="member, empty for all averaged", visible=False),
            model(),
        ],
        outputs=[parcel(vault, label="overlay"), gr.JSON(label="prediction", visible=False)],
        api_name="explain",
        **one,
    )
    hidden.click(
        for_programs(handlers.batch),
        inputs=[parcel(vault, many=True, label="image files"), model()],
        outputs=[
            gr.JSON(label="rows", visible=False),
            parcel(vault, label="CSV"),
            parcel(vault, label="Parquet"),
            parcel(vault, label="overlays"),
        ],
        api_name="batch",
        concurrency_id="batch",
        concurrency_limit=1,
    )
    hidden.click(for_programs(handlers.models), outputs=[gr.JSON(label="models", visible=False)], api_name="models")
