"""One lesion: an image in, the differential, the score, the members' views and the heat map out."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lesion_hub.app import fragments, words
from lesion_hub.app.examples import examples
from lesion_hub.app.handlers import Handlers
from lesion_hub.app.parcels import parcel
from lesion_hub.app.service import DEFAULT_METHOD, Served
from lesion_hub.app.vault import Vault
from lesion_hub.inference.attribution.methods import METHODS
from lesion_hub.taxonomy import SEXES, SITES

MOST_PROBABLE = "the most probable"


def lesion_tab(handlers: Handlers, vault: Vault) -> None:
    """Lay the tab out and wire it."""
    service = handlers.service
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            gr.HTML(fragments.picker(), elem_id="lesion-image")
            gr.HTML(fragments.example_row(examples(service.options.examples)), elem_id="lesion-examples")
            model = _model_picker(handlers)
            patient, note = _patient(service.default)
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
                    _targets(service.default),
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
                    score = gr.HTML(elem_id="lesion-malignancy")
                    members = gr.HTML(elem_id="lesion-members")
            look = gr.HTML(elem_id="lesion-look")
    image = parcel(vault, label="image file")
    inputs = [image, model, *patient, method, label]
    outputs = [warnings, bars, score, members, look]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": [bars]}
    reading: dict[str, Any] = {
        **private,
        "inputs": inputs,
        "outputs": outputs,
        "js": f"(...values) => window.lesionHub.withLesion(values.slice(0, {len(inputs)}))",
        "concurrency_id": "model",
        "concurrency_limit": service.options.concurrency,
    }
    analysed = run.click(handlers.analyse, api_name="analyse", **reading)
    analysed.then(None, js="() => window.lesionHub.ready()")
    gr.on([method.input, label.input], handlers.explain_again, api_name="explain_again", trigger_mode="always_last", **reading)
    model.input(
        lambda name: _for_model(service.served(name)),
        inputs=[model],
        outputs=[label, note, *patient],
        api_name="choose_model",
        **private,
    )


def _model_picker(handlers: Handlers) -> gr.Dropdown:
    models = handlers.service.models
    return gr.Dropdown(
        [(served.title, name) for name, served in models.items()],
        value=handlers.service.default.name,
        label="Model",
        filterable=False,
        visible=len(models) > 1,
        elem_id="lesion-model",
    )


def _patient(served: Served) -> tuple[list[Any], gr.HTML]:
    """Age, sex and site, shown where the model takes them; otherwise a word that it does not."""
    taken = served.takes_metadata
    note = gr.HTML(_note(served), elem_id="lesion-metadata-note")
    with gr.Row():
        age = gr.Number(
            None, label="Age", minimum=0, maximum=120, precision=0, visible=taken, elem_id="lesion-age", min_width=90
        )
        sex = gr.Dropdown(
            [("not given", ""), *SEXES], value="", label="Sex", visible=taken, elem_id="lesion-sex", min_width=110
        )
        site = gr.Dropdown(
            [("not given", ""), *SITES], value="", label="Site", visible=taken, elem_id="lesion-site", min_width=130
        )
    return [age, sex, site], note


def _note(served: Served) -> str:
    return f'<p class="lh-small">{words.METADATA if served.takes_metadata else words.NO_METADATA}</p>'


def _targets(served: Served) -> list[tuple[str, str]]:
    return [(MOST_PROBABLE, ""), *((fragments.full_name(served, label), label) for label in served.targets)]


def _for_model(served: Served) -> list[Any]:
    """What changes on the page with the model."""
    shown = gr.update(visible=served.takes_metadata)
    return [gr.Dropdown(choices=_targets(served), value=""), _note(served), shown, shown, shown]
