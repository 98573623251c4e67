"""The page: its tabs, its theme, and the ``gr.Blocks`` that holds both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes.utils.fonts import Font
from starlette.middleware import Middleware

from lesion_hub.app import fragments, words
from lesion_hub.app.gradio_internals import (
    BlocksWithoutTraces,
    files_of_calls,
    hidden_file,
    replace_sessions,
    withdraw_calls,
    without_reloading,
)
from lesion_hub.app.handlers import Handlers, add_endpoints
from lesion_hub.app.middleware import PageMiddleware
from lesion_hub.app.service import DEFAULT_METHOD, ServedModel, Service
from lesion_hub.app.uploads import FileStore
from lesion_hub.data.schema import OLDEST_AGE
from lesion_hub.inference.attribution import METHODS
from lesion_hub.taxonomy import SEXES, SITES

_MOST_PROBABLE = "the most probable"


class Page(BlocksWithoutTraces):
    """A ``gr.Blocks`` that is always served behind `PageMiddleware`, without sharing, tracing or telemetry."""

    def __init__(self, service: Service, files: FileStore) -> None:
        super().__init__(title=words.TITLE, analytics_enabled=False, delete_cache=(10, 60), fill_width=True)
        self.space_id = None  # else Gradio's page asks other hosts for fonts and for the Space's author
        self.service = service
        self.files = files
        files.in_use = partial(files_of_calls, self)
        handlers = Handlers(service, files, partial(withdraw_calls, self, api_name="batch_page"))
        with self:
            gr.HTML(fragments.render("header", models=list(service.models.values())), elem_id="lesion-header")
            with gr.Tabs():
                for title, add_tab in TABS.items():
                    with gr.Tab(title, id=title.lower()):
                        add_tab(handlers)
            add_endpoints(handlers)
        self.queue(max_size=service.options.queue_size, default_concurrency_limit=service.options.concurrency, api_open=False)

    def launch(self, *args: Any, **chosen: Any) -> Any:
        """Launch with everything off that Gradio could share, keep, trace or fetch, unless ``chosen`` turns it on."""
        options = self.service.options
        settings: dict[str, Any] = {
            "theme": theme(),
            "css": (Path(__file__).parent / "style.css").read_text(encoding="utf-8"),
            "head": fragments.script(options),
            "app_kwargs": {
                "middleware": [Middleware(PageMiddleware, files=self.files, options=options)],
                "lifespan": replace_sessions(options),
            },
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
        with without_reloading():
            return super().launch(*args, **{**settings, **chosen})


# ------------------------------------------------------------------------------------------------ tabs


def lesion_tab(handlers: Handlers) -> None:
    """Lay out and wire the tab of one lesion: an image in; probabilities, malignancy score, members and heat map out."""
    service = handlers.service
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            gr.HTML(fragments.render("lesion_picker"), elem_id="lesion-image")
            gr.HTML(fragments.examples_html(service.options), elem_id="lesion-examples")
            model = _model_choice(service, "lesion-model")
            note, patient = _patient_fields(service.default)
            run = gr.Button("Analyse", variant="primary", elem_id="lesion-run")
            with gr.Row(equal_height=True):
                method = gr.Dropdown(
                    [(entry.title, entry.name) for entry in METHODS.values()],
                    value=DEFAULT_METHOD,
                    label="Heat map by",
                    filterable=False,
                    elem_id="lesion-method",
                    min_width=190,
                )
                label = gr.Dropdown(
                    _target_choices(service.default),
                    value="",
                    label="Explain",
                    filterable=False,
                    elem_id="lesion-label",
                    min_width=190,
                )
        with gr.Column(scale=7, min_width=300):
            warnings = gr.HTML(elem_id="lesion-warnings")
            with gr.Row(equal_height=False):
                with gr.Column(min_width=260):
                    bars = gr.HTML(f'<p class="lh-small">{words.BEFORE}</p>', elem_id="lesion-bars")
                with gr.Column(min_width=260):
                    malignancy = gr.HTML(elem_id="lesion-malignancy")
                    members = gr.HTML(elem_id="lesion-members")
            heat_maps = gr.HTML(elem_id="lesion-maps")
    inputs = [hidden_file(handlers.files, label="image file"), model, *patient, method, label]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": [bars]}
    analysis: dict[str, Any] = {
        **private,
        "inputs": inputs,
        "outputs": [warnings, bars, malignancy, members, heat_maps],
        "js": f"(...values) => window.lesionHub.withLesion(values.slice(0, {len(inputs)}))",
        "concurrency_id": "model",
        "concurrency_limit": service.options.concurrency,
    }
    analysed = run.click(handlers.analyse, api_name="analyse", **analysis)
    analysed.then(None, js="() => window.lesionHub.ready()")
    gr.on([method.input, label.input], handlers.explain_again, api_name="explain_again", trigger_mode="always_last", **analysis)

    def choose_model(key: str) -> list[Any]:
        """Return the updates of label, note and patient fields for another model."""
        served = service.served(key)
        shown = gr.update(visible=served.takes_metadata)
        return [gr.Dropdown(choices=_target_choices(served), value=""), _patient_note(served), shown, shown, shown]

    model.input(choose_model, inputs=[model], outputs=[label, note, *patient], api_name="choose_model", **private)


def batch_tab(handlers: Handlers) -> None:
    """Lay out and wire the tab of many images: a row for each, and the table and the overlays to download."""
    service = handlers.service
    gr.HTML(fragments.render("batch_picker", options=service.options), elem_id="batch-files")
    model = _model_choice(service, "batch-model")
    with gr.Row():
        run = gr.Button("Analyse all", variant="primary", elem_id="batch-run", min_width=140)
        cancel = gr.Button("Cancel", elem_id="batch-cancel", min_width=140)
    progress = gr.HTML(elem_id="batch-progress")
    downloads = gr.HTML(elem_id="batch-downloads")
    table = gr.HTML(elem_id="batch-table")
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    run.click(
        handlers.batch_page,
        inputs=[hidden_file(handlers.files, label="files", many=True), model],
        outputs=[progress, table, downloads],
        js="(files, model) => window.lesionHub.withFiles([files, model])",
        api_name="batch_page",
        concurrency_id="batch",
        concurrency_limit=1,
        **private,
    )
    cancel.click(handlers.cancel_batch, outputs=[progress], api_name="batch_cancel", queue=False, **private)


def models_tab(handlers: Handlers) -> None:
    """Show one article for each model, from the files of its folder."""
    gr.HTML("".join(map(fragments.model_html, handlers.service.models.values())), elem_id="models-card")


def about_tab(handlers: Handlers) -> None:
    """Show what the page is for and not for, its limits, and what is stored."""
    gr.HTML(fragments.render("about", options=handlers.service.options), elem_id="about")


TABS: dict[str, Callable[[Handlers], None]] = {
    "Lesion": lesion_tab,
    "Batch": batch_tab,
    "Models": models_tab,
    "About": about_tab,
}
"""Each tab's title, and the function that fills it."""


def _model_choice(service: Service, elem_id: str) -> gr.Dropdown:
    return gr.Dropdown(
        [(served.title, key) for key, served in service.models.items()],
        value=service.default.key,
        label="Model",
        filterable=False,
        visible=len(service.models) > 1,
        elem_id=elem_id,
    )


def _patient_fields(served: ServedModel) -> tuple[gr.HTML, list[Any]]:
    """Make a note that says whether the model takes age, sex and site, and their fields, shown where it does."""
    taken = served.takes_metadata
    note = gr.HTML(_patient_note(served), elem_id="lesion-metadata-note")
    with gr.Row():
        age = gr.Number(
            None, label="Age", minimum=0, maximum=OLDEST_AGE, precision=0, visible=taken, elem_id="lesion-age", min_width=90
        )
        sex = gr.Dropdown(
            [("not given", ""), *SEXES], value="", label="Sex", visible=taken, elem_id="lesion-sex", min_width=110
        )
        site = gr.Dropdown(
            [("not given", ""), *SITES], value="", label="Site", visible=taken, elem_id="lesion-site", min_width=130
        )
    return note, [age, sex, site]


def _patient_note(served: ServedModel) -> str:
    return f'<p class="lh-small">{words.METADATA if served.takes_metadata else words.NO_METADATA}</p>'


def _target_choices(served: ServedModel) -> list[tuple[str, str]]:
    return [(_MOST_PROBABLE, ""), *((fragments.full_name(served, label), label) for label in served.targets)]


# ------------------------------------------------------------------------------------------------ theme

_TEXT = [Font("system-ui"), Font("Segoe UI"), Font("Roboto"), Font("Helvetica Neue"), Font("Arial"), Font("sans-serif")]
_CODE = [Font("ui-monospace"), Font("SFMono-Regular"), Font("Menlo"), Font("Consolas"), Font("monospace")]


def theme() -> gr.themes.Base:
    """Make the base theme with system fonts, and with colours whose contrast is AA or better in light and dark."""
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
