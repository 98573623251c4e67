"""What the page can do, without the page: models by name, one image's reading, many images' readings."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_hub.app.gpu import device, on_gpu
from lesion_hub.app.intake import Upload, check_batch, open_upload
from lesion_hub.app.options import AppOptions
from lesion_hub.config import REPO_ID
from lesion_hub.errors import ConfigError, ImageError, LesionHubError, TaxonomyError
from lesion_hub.hub.store import resolve
from lesion_hub.inference import Prediction, Predictor, from_pretrained
from lesion_hub.inference.attribution.methods import METHODS
from lesion_hub.inference.attribution.targets import select
from lesion_hub.inference.patients import Patient
from lesion_hub.taxonomy import nearest

DEFAULT_METHOD = "gradcam"
OLDEST = 120


@dataclass(frozen=True)
class Served:
    """A loaded model: its folder holds the card, the metrics and the plots."""

    name: str
    predictor: Predictor
    folder: Path

    @property
    def version(self) -> str | None:
        return self.predictor.revision

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}" if self.version else self.name

    @property
    def card_url(self) -> str | None:
        """The card's place on the Hub, for a model of the Hub."""
        if not REPO_ID.fullmatch(self.name) or self.version is None:
            return None
        return f"https://huggingface.co/{self.name}/blob/{self.version}/README.md"

    @property
    def takes_metadata(self) -> bool:
        return any(member.classifier.takes_metadata for member in self.predictor.members)

    @property
    def targets(self) -> tuple[str, ...]:
        """Labels that a map can be about: the model's own, and malignancy where the labels know it."""
        labels = self.predictor.labels
        try:
            select("malignant", self.predictor.space)
        except TaxonomyError:
            return labels
        return labels if "malignant" in labels else (*labels, "malignant")


@dataclass(frozen=True)
class Reading:
    """One image's answer by one model."""

    served: Served
    prediction: Prediction

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: what the prediction says, and which version says it."""
        return {"model": self.served.name, "version": self.served.version, **self.prediction.to_dict()}


@dataclass(frozen=True)
class BatchItem:
    """One file of a batch: its reading, or the one line that says why there is none."""

    name: str
    reading: Reading | None = None
    error: str | None = None


class Service:
    """The models of ``options``, loaded once; every call leaves nothing behind.

    service = Service(AppOptions(models=("ham10000-trio",)))
    service.read(Upload("mole.jpg", content)).prediction.label
    """

    def __init__(self, options: AppOptions) -> None:
        self.options = options
        loaded = [_load(name, options) for name in options.models]
        self.models: Mapping[str, Served] = {served.name: served for served in loaded}
        # A closure over the models, not a method: ZeroGPU sends the arguments to another process, and the models are there.
        self._predict = on_gpu(self._predict_here)
        # Gradio limits its own events; this also holds for callers beside it.
        self._turn = threading.BoundedSemaphore(options.concurrency)

    @property
    def default(self) -> Served:
        return next(iter(self.models.values()))

    def served(self, name: str | None = None) -> Served:
        """A model by name, the default without one; an unknown name is one line."""
        if not name:
            return self.default
        if name not in self.models:
            raise ConfigError(f"model {name[:80]!r} is not served here; {nearest(name, self.models)}")
        return self.models[name]

    def read(
        self,
        upload: Upload | None,
        *,
        model: str | None = None,
        patient: Patient | None = None,
        method: str | None = None,
        label: str | None = None,
    ) -> Reading:
        """Predict, and with ``method`` explain ``label`` (None: the most probable one), in one model call."""
        served = self.served(model)
        image = open_upload(upload, self.options)
        explain, target = _explanation_of(served, method, label)
        with self._turn:
            prediction = self._predict(served.name, image, explain, target, _known(patient))
        return Reading(served, prediction)

    def read_many(
        self, uploads: Sequence[Upload], *, model: str | None = None, method: str | None = DEFAULT_METHOD
    ) -> Iterator[BatchItem]:
        """Each file's reading in turn; one that cannot be read is an item with its error, and the next goes on."""
        waiting = list(uploads)
        check_batch(waiting, self.options)
        self.served(model)
        waiting.reverse()
        while waiting:
            upload = waiting.pop()  # nothing holds a file that is done
            try:
                yield BatchItem(upload.name, self.read(upload, model=model, method=method))
            except ImageError as error:
                yield BatchItem(upload.name, error=str(error))

    def member(self, reading: Reading, name: str | None) -> str | None:
        """A member by name, None for all of them averaged; an unknown name is one line."""
        if not name:
            return None
        known = [member.name for member in reading.served.predictor.members]
        if name not in known:
            raise ConfigError(f"no member {name[:80]!r}; {nearest(name, known)}")
        return name

    def _predict_here(
        self, name: str, image: Any, explain: str | None, target: str | None, patient: Patient | None
    ) -> Prediction:
        return self.models[name].predictor.predict(image, explain=explain, target=target, metadata=patient)


def _load(name: str, options: AppOptions) -> Served:
    """``name`` or ``name@revision``; a model that is missing is one line."""
    bare, _, own = name.partition("@") if not Path(name).exists() else (name, "", "")
    revision = own or (options.revision if not Path(bare).is_dir() else None)
    try:
        found = resolve(bare, revision, registry=options.registry)
        predictor = from_pretrained(bare, revision=revision, registry=options.registry, device=device(options.device))
    except LesionHubError as error:
        raise type(error)(f"cannot serve {name}: {error}") from None
    return Served(found.display_name, predictor, found.folder)


def _explanation_of(served: Served, method: str | None, label: str | None) -> tuple[str | None, str | None]:
    if method is None:
        return None, None
    if method not in METHODS:
        raise ConfigError(f"unknown attribution method {method[:80]!r}; {nearest(method, METHODS)}")
    if not label:
        return method, None
    return method, select(label[:80], served.predictor.space)[0]


def _known(patient: Patient | None) -> Patient | None:
    """What was filled in; an impossible age is one line."""
    known = {key: value for key, value in (patient or {}).items() if value not in (None, "")}
    age = known.get("age")
    if age is not None and not 0 <= float(age) <= OLDEST:
        raise ConfigError(f"age {age:g} is not in 0..{OLDEST}; leave it empty if it is not known")
    return known or None
