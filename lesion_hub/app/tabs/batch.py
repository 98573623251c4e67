"""Many images: a table that grows, and files to take home."""

from __future__ import annotations

import gradio as gr

from lesion_hub.app import fragments
from lesion_hub.app.handlers import Handlers
from lesion_hub.app.parcels import parcel
from lesion_hub.app.vault import Vault

SEND_FILES = "(files, model) => window.lesionHub.withFiles([files, model])"


def batch_tab(handlers: Handlers, vault: Vault) -> None:
    """Lay the tab out and wire it."""
    service = handlers.service
    gr.HTML(fragments.file_picker(service.options), elem_id="batch-files")
    model = gr.Dropdown(
        [(served.title, name) for name, served in service.models.items()],
        value=service.default.name,
        label="Model",
        filterable=False,
        visible=len(service.models) > 1,
        elem_id="batch-model",
    )
    with gr.Row():
        run = gr.Button("Analyse all", variant="primary", elem_id="batch-run", min_width=140)
        cancel = gr.Button("Cancel", elem_id="batch-cancel", min_width=140)
    progress = gr.HTML(elem_id="batch-progress")
    downloads = gr.HTML(elem_id="batch-downloads")
    table = gr.HTML(elem_id="batch-table")
    running = run.click(
        handlers.batch_page,
        inputs=[parcel(vault, many=True, label="files"), model],
        outputs=[progress, table, downloads],
        js=SEND_FILES,
        api_name="batch_page",
        api_visibility="private",
        show_progress="hidden",
        concurrency_id="batch",
        concurrency_limit=1,
    )
    cancel.click(None, cancels=[running])
    cancel.click(
        handlers.cancel_batch,
        outputs=[progress],
        api_name="batch_cancel",
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
