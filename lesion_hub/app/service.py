"""The work of the page without Gradio: load models, predict and explain one image, and go through a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar, cast
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import pandas as pd
import torch

from lesion_hub.app import pictures
from lesion_hub.app.options import AppOptions
from lesion_hub.app.uploads import Upload, check_batch, open_upload, safe_cell
from lesion_hub.config import REPO_ID
from lesion_hub.data.schema import OLDEST_AGE
from lesion_hub.errors import ConfigError, ImageError, LesionHubError, TaxonomyError
from lesion_hub.hub.store import resolve
from lesion_hub.hub.versions import split_revision
from lesion_hub.inference import Prediction, Predictor, from_pretrained
from lesion_hub.inference.abstention import fitted_error
from lesion_hub.inference.attribution import METHODS, target_labels
from lesion_hub.inference.preprocess import Patient
from lesion_hub.taxonomy import nearest

DEFAULT_METHOD = "gradcam"

# The same for every file in every zip, so that it does not tell when the page was used.
_NO_DATE = (1980, 1, 1, 0, 0, 0)

_Function = TypeVar("_Function", bound=Callable[..., object])


@dataclass(frozen=True)
class ServedModel:
    """A loaded model: its folder holds the card, the metrics and the plots; callers choose it by its key."""

    key: str
    name: str
    predictor: Predictor
    folder: Path

    @property
    def version(self) -> str | None:
        return self.predictor.revision

    @property
    def title(self) -> str:
        return self.predictor.title

    @property
    def card_url(self) -> str | None:
        """The card's address on the Hub, for a model of the Hub."""
        if not REPO_ID.fullmatch(self.name) or self.version is None:
            return None
        return f"https://huggingface.co/{self.name}/blob/{self.version}/README.md"

    @property
    def takes_metadata(self) -> bool:
        return any(member.classifier.takes_metadata for member in self.predictor.members)

    def abstain_for(self, error: float | None) -> float | None:
        """Return the error by which the model keeps silent: the one wanted, where a threshold was chosen for it."""
        rules = self.predictor.rules
        return fitted_error(error, rules.abstention if rules is not None else None)

    @property
    def targets(self) -> tuple[str, ...]:
        """The labels that a map can explain: the model's own, and malignancy where the labels say anything about it."""
        labels = self.predictor.labels
        try:
            target_labels("malignant", self.predictor.space)
        except TaxonomyError:
            return labels
        return labels if "malignant" in labels else (*labels, "malignant")


@dataclass(frozen=True)
class Answer:
    """A served model's prediction for one image; ``abstain`` is the error by which it may have kept silent."""

    served: ServedModel
    prediction: Prediction
    abstain: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: the prediction, and the model and version that made it."""
        return {"model": self.served.name, "version": self.served.version, **self.prediction.to_dict()}


@dataclass(frozen=True)
class BatchItem:
    """One file of a batch: its answer, or the one line that says why there is none."""

    name: str
    answer: Answer | None = None
    error: str | None = None


class Service:
    """The models of ``options``, loaded once; no call stores anything.

    service = Service(AppOptions(models=("dermoscopy-trio",)))
    service.predict(Upload("mole.jpg", content)).prediction.label
    """

    def __init__(self, options: AppOptions) -> None:
        self.options = options
        on_gpu = _gpu_decorator()
        self.models: Mapping[str, ServedModel] = _by_key([_load(name, options) for name in options.models])

        # Called with the model's key: ZeroGPU sends the arguments to another process, and the models are there already.
        def predict(key: str, image: Any, explain: str | None, target: str | None, patient: Patient | None) -> Prediction:
            served = self.models[key]
            return served.predictor.predict(
                image, explain=explain, target=target, metadata=patient, abstain=served.abstain_for(options.abstain)
            )

        self._predict = on_gpu(predict)
        # Gradio limits its own events; this also holds for callers beside it.
        self._turn = threading.BoundedSemaphore(options.concurrency)

    @property
    def default(self) -> ServedModel:
        return next(iter(self.models.values()))

    def served(self, key: str | None = None) -> ServedModel:
        """Find a model by its key, the default without one; an unknown key is one line."""
        if not key:
            return self.default
        if key not in self.models:
            raise ConfigError(f"model {key[:80]!r} is not served here; {nearest(key, self.models)}")
        return self.models[key]

    def predict(
        self,
        upload: Upload | None,
        *,
        model: str | None = None,
        patient: Patient | None = None,
        method: str | None = None,
        label: str | None = None,
    ) -> Answer:
        """Predict, and with ``method`` explain ``label`` (None: the most probable one), in one model call."""
        served = self.served(model)
        image = open_upload(upload, self.options)
        target = None
        if method is not None:
            if method not in METHODS:
                raise ConfigError(f"unknown attribution method {method[:80]!r}; {nearest(method, METHODS)}")
            target = target_labels(label[:80], served.predictor.space)[0] if label else None
        with self._turn:
            prediction = self._predict(served.key, image, method, target, _filled_in(patient))
        return Answer(served, prediction, served.abstain_for(self.options.abstain))

    def predict_batch(
        self, uploads: list[Upload], *, model: str | None = None, method: str | None = DEFAULT_METHOD
    ) -> Iterator[BatchItem]:
        """Yield an item for each file in turn; one that cannot be read has its error in place of an answer.

        ``uploads`` is emptied on the way, so that nothing holds a file that is done.
        """
        check_batch(uploads, self.options)
        self.served(model)

        def items() -> Iterator[BatchItem]:
            while uploads:
                upload = uploads.pop(0)
                try:
                    yield BatchItem(upload.name, self.predict(upload, model=model, method=method))
                except ImageError as error:
                    yield BatchItem(upload.name, error=str(error))

        return items()


def _load(name: str, options: AppOptions) -> ServedModel:
    """Load ``name`` or ``name@revision``; a model that is missing is one line."""
    bare, own = split_revision(name)
    if own is None or len(options.models) == 1:
        own = split_revision(name, options.revision if not Path(bare).is_dir() else None)[1]
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = resolve(bare, own, registry=options.registry)
        loaded = from_pretrained(bare, revision=own, registry=options.registry, device=device, engine=options.engine)
    except LesionHubError as error:
        raise type(error)(f"cannot serve {name}: {error}") from None
    predictor = loaded.for_display()
    return ServedModel(predictor.name, predictor.name, predictor, found.folder)


def _by_key(loaded: list[ServedModel]) -> dict[str, ServedModel]:
    """Give each model its key, its name or, where several have that, its title; equal titles are one line."""
    names = [served.name for served in loaded]
    keyed = [replace(served, key=served.title) if names.count(served.name) > 1 else served for served in loaded]
    found = {served.key: served for served in keyed}
    if len(found) < len(keyed):
        twice = next(served.key for served in keyed if found[served.key] is not served)
        raise ConfigError(f"two models would be served as {twice!r}; leave one out, or rename its folder")
    return found


def _gpu_decorator() -> Callable[[_Function], _Function]:
    """Return ``spaces.GPU`` where the ``spaces`` package is installed; it has no effect outside of ZeroGPU.

    There the import must come before the models are loaded: until then CUDA is not to be seen, and must not be started.
    """
    found = find_spec("spaces")
    if found is None or found.origin is None:  # a mere folder of that name, as a checkout has one, is no package
        return lambda function: function
    return cast(Callable[[_Function], _Function], import_module("spaces").GPU)


def _filled_in(patient: Patient | None) -> Patient | None:
    """Keep the fields that were filled in; an impossible age is one line."""
    known = {key: value for key, value in (patient or {}).items() if value not in (None, "")}
    age = known.get("age")
    if age is not None and not 0 <= float(age) <= OLDEST_AGE:
        raise ConfigError(f"age {age:g} is not in 0..{OLDEST_AGE}; leave it empty if it is not known")
    return known or None


@dataclass
class BatchResults:
    """The results of a batch so far: of each image its row and its overlay, and no pixels of its own."""

    display_side: int
    items: list[BatchItem] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    overlays: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, item: BatchItem) -> None:
        self.rows.append(_row(item))
        if item.answer is not None:
            prediction = item.answer.prediction
            if prediction.explanation is not None:
                stem = item.name.rsplit(".", 1)[0] or "image"
                content = pictures.overlay_jpeg(prediction, self.display_side)
                self.overlays.append((f"{len(self.rows):03d}_{stem}_heat.jpg", content))
            # The table needs no explanation: without it the image and its maps can be freed.
            item = replace(item, answer=replace(item.answer, prediction=replace(prediction, explanation=None)))
        self.items.append(item)

    def csv(self) -> Upload:
        """Write the rows as CSV, safe to open as a spreadsheet."""
        shown = [
            {key: safe_cell(value) if isinstance(value, str) else value for key, value in row.items()} for row in self.rows
        ]
        return Upload("lesions.csv", pd.DataFrame(shown).to_csv(index=False).encode("utf-8"))

    def parquet(self) -> Upload:
        """Write the rows as Parquet, typed."""
        stream = BytesIO()
        pd.DataFrame(self.rows).to_parquet(stream, index=False)
        return Upload("lesions.parquet", stream.getvalue())

    def zip(self) -> Upload:
        """Put the overlays into a zip, stored: JPEGs do not get smaller by deflating."""
        stream = BytesIO()
        with ZipFile(stream, "w", ZIP_STORED) as archive:
            for name, content in self.overlays:
                archive.writestr(ZipInfo(name, _NO_DATE), content)
        return Upload("overlays.zip", stream.getvalue())


def _row(item: BatchItem) -> dict[str, Any]:
    """Make a file's row of the table: the prediction, or the error."""
    if item.answer is None:
        return {"file": item.name, "error": item.error}
    served, prediction = item.answer.served, item.answer.prediction
    return {
        "file": item.name,
        "error": None,
        "model": served.name,
        "version": served.version,
        "label": prediction.label,
        "probability": prediction.probabilities[prediction.label],
        "malignancy": prediction.malignancy,
        **{f"suspicious_{name}": reached for name, reached in prediction.decisions.items()},
        "disagreement": prediction.disagreement,
        "label_set": " ".join(prediction.label_set().labels) if prediction.has_sets else None,
        "abstains": prediction.abstains,
        "scope": prediction.scope.verdict if prediction.scope else None,
        "scope_score": prediction.scope.score if prediction.scope else None,
        "warnings": " ".join(prediction.flags),
        **{f"p_{label}": value for label, value in prediction.probabilities.items()},
    }
