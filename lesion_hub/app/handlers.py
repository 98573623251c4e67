"""From a request to its answer: mistakes become one message on the page, and nothing of what went wrong here is shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from lesion_hub.app import fragments, pictures, words
from lesion_hub.app.batch import Results
from lesion_hub.app.cards import model_summary
from lesion_hub.app.intake import Upload, check_batch
from lesion_hub.app.service import DEFAULT_METHOD, Service
from lesion_hub.errors import LesionHubError

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def message_of(error: Exception) -> str:
    """What a person is told. Only our own errors speak; of any other the log gets the details."""
    if isinstance(error, LesionHubError):
        return str(error)
    logger.error("a request failed", exc_info=error)
    return words.OUR_FAULT


def for_programs(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """An endpoint whose mistakes reach the client as one line, and are no stack trace in our log."""

    @wraps(function)
    def endpoint(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the last line of defence
            raise gr.Error(message_of(error), print_exception=False) from None

    return endpoint


@dataclass(frozen=True)
class Handlers:
    """The page's and the programs' requests over one service."""

    service: Service
    stopped: set[str] = field(default_factory=set)

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
        """(warnings, bars, malignancy, members, look) as HTML; with a mistake its message and nothing else."""
        try:
            patient = {"age": age, "sex": sex, "site": site}
            reading = self.service.read(upload, model=model, patient=patient, method=method or DEFAULT_METHOD, label=label)
            return (
                fragments.warnings(reading),
                fragments.bars(reading),
                fragments.malignancy(reading),
                fragments.members(reading),
                fragments.look(reading, self.service.options),
            )
        except Exception as error:  # noqa: BLE001 - the last line of defence
            return fragments.trouble(message_of(error)), "", "", "", ""

    def explain_again(self, upload: Upload | None, *values: Any) -> Any:
        """``analyse`` with another method or label; nothing happens before there is an image."""
        return tuple(gr.skip() for _ in range(5)) if upload is None else self.analyse(upload, *values)

    def batch_page(self, uploads: list[Upload], model: str | None, request: gr.Request) -> Iterator[tuple[str, str, str]]:
        """(progress, table, downloads) as HTML, again after each file, until it is done or cancelled."""
        visitor = str(request.session_hash)
        self.stopped.discard(visitor)
        results = Results(self.service.options.display_side)
        total = len(uploads)
        try:
            check_batch(uploads, self.service.options)
            yield fragments.batch_progress(0, total), "", ""
            for item in self.service.read_many(_handed_over(uploads), model=model):
                results.add(item)
                if visitor in self.stopped:
                    break
                yield fragments.batch_progress(len(results.items), total), fragments.batch_table(results.items), ""
            word = "analysed, then cancelled" if visitor in self.stopped else "analysed"
            yield (
                fragments.batch_progress(len(results.items), total, word),
                fragments.batch_table(results.items),
                fragments.downloads(results),
            )
        except Exception as error:  # noqa: BLE001 - the last line of defence
            yield fragments.trouble(message_of(error)), fragments.batch_table(results.items), ""

    def cancel_batch(self, request: gr.Request) -> str:
        """Stop this visitor's batch behind the file that is being read; the rows so far stay."""
        self.stopped.add(str(request.session_hash))
        return fragments.cancelled()

    # -------------------------------------------------------------------------------------------- programs

    def predict(
        self,
        image: Upload | None,
        model: str | None = None,
        age: float | None = None,
        sex: str | None = None,
        site: str | None = None,
    ) -> dict[str, Any]:
        """What the model estimates from an image of a lesion. Not a diagnosis."""
        reading = self.service.read(image, model=model, patient={"age": age, "sex": sex, "site": site})
        return {**reading.to_dict(), "notice": words.NOTICE}

    def explain(
        self,
        image: Upload | None,
        method: str | None = None,
        label: str | None = None,
        member: str | None = None,
        model: str | None = None,
    ) -> tuple[Upload, dict[str, Any]]:
        """The image under the heat map of what speaks for a label (default: the most probable), averaged or one member's."""
        reading = self.service.read(image, model=model, method=method or DEFAULT_METHOD, label=label)
        assert image is not None
        chosen = self.service.member(reading, member)
        content = pictures.overlay(reading.prediction, self.service.options.display_side, chosen)
        answer = reading.to_dict()
        answer["explanation"]["member"] = chosen
        return Upload("overlay.jpg", content), {**answer, "notice": words.NOTICE}

    def batch(self, files: list[Upload], model: str | None = None) -> tuple[list[dict[str, Any]], Upload, Upload, Upload]:
        """Rows for many images, the same as CSV and Parquet, and a zip of overlays. A bad file is a row with its error."""
        results = Results(self.service.options.display_side)
        check_batch(files, self.service.options)
        for item in self.service.read_many(_handed_over(files), model=model):
            results.add(item)
        return results.rows, results.csv(), results.parquet(), results.zip()

    def models(self) -> list[dict[str, Any]]:
        """The models that are served: versions, labels, members, operating points, metrics with intervals."""
        return [model_summary(served) for served in self.service.models.values()]


def _handed_over(uploads: list[Upload]) -> list[Upload]:
    """The uploads, no longer held by the list that they came in."""
    handed = list(uploads)
    uploads.clear()
    return handed
