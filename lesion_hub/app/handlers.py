"""Handlers of the requests of the page and of programs: an error becomes one message, and nobody is shown a stack trace."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from lesion_hub.app import fragments, pictures, words
from lesion_hub.app.gradio_internals import hidden_file
from lesion_hub.app.model_facts import model_summary
from lesion_hub.app.service import DEFAULT_METHOD, BatchResults, Service
from lesion_hub.app.uploads import FileStore, Upload
from lesion_hub.errors import ConfigError, LesionHubError
from lesion_hub.inference.attribution import METHODS
from lesion_hub.taxonomy import SEXES, SITES, nearest

logger = logging.getLogger(__name__)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _message_of(error: Exception) -> str:
    """Return the message that a person is shown: our own errors' text; any other error is logged, and not told."""
    if isinstance(error, LesionHubError):
        return str(error)
    logger.error("a request failed", exc_info=error)
    return words.OUR_FAULT


@dataclass(frozen=True)
class Handlers:
    """The handlers of one service's requests; ``files`` holds the files that they receive and return.

    ``withdraw_batch`` takes the batches of a session out of the queue. ``running`` holds, by session, what cancels a batch that
    is being analysed.
    """

    service: Service
    files: FileStore
    withdraw_batch: Callable[[str], Awaitable[None]]
    running: dict[str, threading.Event] = field(default_factory=dict)

    # -------------------------------------------------------------------------------------------- the page

    def analyse(
        self,
        upload: Upload | None,
        model: str | None,
        age: float | None,
        sex: str | None,
        site: str | None,
        method: str | None,
        label: str | None,
    ) -> tuple[str, ...]:
        """Return (warnings, bars, malignancy, members, heat maps) as HTML; after an error its message and four empty texts.

        Of a picture out of scope the verdict comes first, and all that the model answers is folded into the second part.
        """
        try:
            patient = {"age": age, "sex": sex, "site": site}
            answer = self.service.predict(upload, model=model, patient=patient, method=method or DEFAULT_METHOD, label=label)
            warnings = fragments.scope_html(answer) + fragments.warnings_html(answer)
            shown = (
                fragments.bars_html(answer),
                fragments.malignancy_html(answer),
                fragments.members_html(answer),
                fragments.heat_maps_html(answer, self.service.options),
            )
            scope = answer.prediction.scope
            if scope is not None and scope.verdict == "out of scope":
                return warnings, fragments.held_back_html(shown), "", "", ""
            return warnings, *shown
        except Exception as error:  # noqa: BLE001 - the last line of defence
            return fragments.render("error", text=_message_of(error)), "", "", "", ""

    def explain_again(self, upload: Upload | None, *values: Any) -> Any:
        """Analyse again after another method or label was chosen; change nothing where there is no image yet."""
        return tuple(gr.skip() for _ in range(5)) if upload is None else self.analyse(upload, *values)

    def batch_page(self, uploads: list[Upload], model: str | None, request: gr.Request) -> Iterator[tuple[str, str, str]]:
        """Yield (progress, table, downloads) as HTML after each file, until the batch is done, cancelled or fails."""
        visitor = str(request.session_hash)
        cancelled = self.running[visitor] = threading.Event()
        results = BatchResults(self.service.options.display_side)
        total = len(uploads)

        def progress(word: str = "analysed") -> str:
            return fragments.render("batch_progress", done=len(results.items), total=total, word=word)

        def downloads(note: str = "") -> str:
            return fragments.downloads_html(results, note) if results.items else ""

        try:
            items = self.service.predict_batch(uploads, model=model)
            yield progress(), "", ""
            for item in items:
                results.add(item)
                if cancelled.is_set():
                    table = fragments.batch_table_html(results.items)
                    yield progress("analysed, then cancelled"), table, downloads(words.CANCELLED)
                    return
                yield progress(), fragments.batch_table_html(results.items), ""
            yield progress(), fragments.batch_table_html(results.items), downloads()
        except Exception as error:  # noqa: BLE001 - the last line of defence
            message = fragments.render("error", text=_message_of(error))
            yield message, fragments.batch_table_html(results.items), downloads(words.STOPPED)
        finally:
            self.running.pop(visitor, None)

    async def cancel_batch(self, request: gr.Request) -> str:
        """Stop this visitor's batch after the file that is being analysed, or take it out of the queue; say which."""
        visitor = str(request.session_hash)
        await self.withdraw_batch(visitor)
        running = self.running.get(visitor)
        if running is None:
            return fragments.render("cancelling", text=words.NOTHING_RUNS)
        running.set()
        return fragments.render("cancelling", text=words.CANCELLING)

    # -------------------------------------------------------------------------------------------- programs

    def predict(
        self,
        image: Upload | None,
        model: str | None = None,
        age: float | None = None,
        sex: str | None = None,
        site: str | None = None,
    ) -> dict[str, Any]:
        """Estimate what an image of a lesion shows. Not a diagnosis."""
        answer = self.service.predict(image, model=model, patient={"age": age, "sex": sex, "site": site})
        return {**answer.to_dict(), "notice": words.NOTICE}

    def explain(
        self,
        image: Upload | None,
        method: str | None = None,
        label: str | None = None,
        member: str | None = None,
        model: str | None = None,
    ) -> tuple[Upload, dict[str, Any]]:
        """Draw over the image the heat map of a label (default: the most probable), averaged over the members or one's."""
        answer = self.service.predict(image, model=model, method=method or DEFAULT_METHOD, label=label)
        chosen = member or None
        known = [one.name for one in answer.served.predictor.members]
        if chosen and chosen not in known:
            raise ConfigError(f"no member {chosen[:80]!r}; {nearest(chosen, known)}")
        content = pictures.overlay_jpeg(answer.prediction, self.service.options.display_side, chosen)
        told = answer.to_dict()
        told["explanation"]["member"] = chosen
        return Upload("overlay.jpg", content), {**told, "notice": words.NOTICE}

    def batch(self, files: list[Upload], model: str | None = None) -> tuple[list[dict[str, Any]], Upload, Upload, Upload]:
        """Return a row for each image, the rows as CSV and Parquet, and overlays in a zip. A bad file's row has its error."""
        results = BatchResults(self.service.options.display_side)
        for item in self.service.predict_batch(files, model=model):
            results.add(item)
        return results.rows, results.csv(), results.parquet(), results.zip()

    def models(self) -> list[dict[str, Any]]:
        """List the models that are served: versions, labels, members, operating points, metrics with intervals."""
        return [model_summary(served) for served in self.service.models.values()]


def _endpoint(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Make an endpoint whose errors reach the client as one line, and leave no stack trace of Gradio's in the log."""

    @wraps(function)
    def endpoint(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the last line of defence
            raise gr.Error(_message_of(error), print_exception=False) from None

    return endpoint


def add_endpoints(handlers: Handlers) -> None:
    """Add the endpoints to an invisible button: Gradio ties every endpoint to an event."""
    files, options, models = handlers.files, handlers.service.options, list(handlers.service.models)
    one_image: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": options.concurrency}

    def model() -> gr.Dropdown:
        return gr.Dropdown(models, value=models[0], label="model", visible=False)

    hidden = gr.Button("endpoints", visible=False)
    hidden.click(
        _endpoint(handlers.predict),
        inputs=[
            hidden_file(files, label="image file"),
            model(),
            gr.Number(None, label="age in years", visible=False),
            gr.Dropdown(["", *SEXES], value="", label="sex", visible=False),
            gr.Dropdown(["", *SITES], value="", label="site", visible=False),
        ],
        outputs=[gr.JSON(label="prediction", visible=False)],
        api_name="predict",
        **one_image,
    )
    hidden.click(
        _endpoint(handlers.explain),
        inputs=[
            hidden_file(files, label="image file"),
            gr.Dropdown(list(METHODS), value=DEFAULT_METHOD, label="attribution method", visible=False),
            gr.Textbox("", label="label to explain, empty for the most probable", visible=False),
            gr.Textbox("", label="member, empty for all averaged", visible=False),
            model(),
        ],
        outputs=[hidden_file(files, label="overlay"), gr.JSON(label="prediction", visible=False)],
        api_name="explain",
        **one_image,
    )
    hidden.click(
        _endpoint(handlers.batch),
        inputs=[hidden_file(files, label="image files", many=True), model()],
        outputs=[
            gr.JSON(label="rows", visible=False),
            hidden_file(files, label="CSV"),
            hidden_file(files, label="Parquet"),
            hidden_file(files, label="overlays"),
        ],
        api_name="batch",
        concurrency_id="batch",
        concurrency_limit=1,
    )
    hidden.click(_endpoint(handlers.models), outputs=[gr.JSON(label="models", visible=False)], api_name="models")
