"""The page: header, tabs and endpoints, and the settings under which Gradio may serve it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from lesion_hub.app import fragments, words
from lesion_hub.app.airlock import Airlock
from lesion_hub.app.endpoints import add_endpoints
from lesion_hub.app.handlers import Handlers
from lesion_hub.app.options import AppOptions
from lesion_hub.app.service import Service
from lesion_hub.app.sessions import forgetful
from lesion_hub.app.tabs.about import about_tab
from lesion_hub.app.tabs.batch import batch_tab
from lesion_hub.app.tabs.lesion import lesion_tab
from lesion_hub.app.tabs.models import models_tab
from lesion_hub.app.theme import css, theme
from lesion_hub.app.vault import Vault


class Page(gr.Blocks):
    """A ``gr.Blocks`` that is only ever served behind its airlock, with nothing shared, traced or sent home."""

    def __init__(self, service: Service, vault: Vault) -> None:
        super().__init__(title=words.TITLE, analytics_enabled=False, delete_cache=(10, 60), fill_width=True)
        self.service = service
        self.vault = vault
        handlers = Handlers(service)
        with self:
            gr.HTML(fragments.header(list(service.models.values())), elem_id="lesion-header")
            with gr.Tabs():
                with gr.Tab("Lesion", id="lesion"):
                    lesion_tab(handlers, vault)
                with gr.Tab("Batch", id="batch"):
                    batch_tab(handlers, vault)
                with gr.Tab("Models", id="models"):
                    models_tab(service)
                with gr.Tab("About", id="about"):
                    about_tab(service.options)
            add_endpoints(handlers, vault)
        self.queue(max_size=service.options.queue_size, default_concurrency_limit=service.options.concurrency, api_open=False)

    def launch(self, *args: Any, **chosen: Any) -> Any:
        """``gr.Blocks.launch`` with this page's settings; what is chosen goes before them."""
        return super().launch(*args, **{**launch_settings(self.service.options, self.vault), **chosen})


def launch_settings(options: AppOptions, vault: Vault) -> dict[str, Any]:
    """Everything that Gradio could share, keep, trace or fetch is off."""
    return {
        "theme": theme(),
        "css": css(),
        "head": fragments.script(options),
        "app_kwargs": {"middleware": [Middleware(Airlock, vault=vault, options=options)], "lifespan": forgetful},
        "share": False,
        "show_error": False,
        "quiet": True,
        "footer_links": ["api"],
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "ssr_mode": False,
        "num_workers": 0,
        "max_file_size": options.max_bytes,
    }
