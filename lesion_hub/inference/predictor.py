"""Predictor: what ``from_pretrained`` returns, one model or an ensemble alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, overload

import numpy as np
import torch
from numpy.typing import NDArray

from lesion_hub.config import OperatingPoint, validated
from lesion_hub.errors import ConfigError
from lesion_hub.inference.attribution.targets import select
from lesion_hub.inference.combine import Combination
from lesion_hub.inference.engine import Answers, answer
from lesion_hub.inference.framing import Framing
from lesion_hub.inference.inputs import ImageInput, OpenedImage, is_single, open_image
from lesion_hub.inference.members import Member
from lesion_hub.inference.options import PredictOptions
from lesion_hub.inference.patients import Patient, encode_patients
from lesion_hub.inference.reading import in_chunks
from lesion_hub.inference.results import CasePrediction, Prediction
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import LabelSpace, label_space

if TYPE_CHECKING:
    from typing_extensions import Unpack

Progress = Callable[[int, int | None], None]


class PredictArguments(TypedDict, total=False):
    """The keywords of ``Predictor.predict``, for type checkers."""

    explain: str | None
    target: str | None
    tta: int
    top: int
    batch_size: int
    metadata: Any
    progress: Progress | None


class Predictor:
    """Scores and explains images with one or several members.

    It holds no state but the networks, which it puts into evaluation mode, so threads may share it.

    >>> model = Predictor.of(LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32))
    >>> prediction = model.predict(np.zeros((45, 60, 3), np.uint8), explain="gradcam", target="mel")
    >>> sorted(prediction.probabilities) == sorted(model.labels), prediction.heat.shape
    (True, (45, 60))
    """

    def __init__(
        self,
        members: Sequence[Member],
        combination: Combination,
        operating_points: Mapping[str, OperatingPoint] | None = None,
        *,
        name: str = "model",
        revision: str | None = None,
    ) -> None:
        self.members = tuple(member.ready() for member in members)
        self.combination = combination
        self.operating_points = dict(operating_points or {})
        self.name = name
        self.revision = revision
        self._malignancy = _malignancy_column(combination.space)

    @classmethod
    def of(cls, classifier: LesionClassifier, name: str = "model", **options: Any) -> Predictor:
        """A predictor over a single classifier."""
        return cls([Member(name, classifier)], Combination.single(classifier.space), name=name, **options)

    @property
    def space(self) -> LabelSpace:
        return self.combination.space

    @property
    def labels(self) -> tuple[str, ...]:
        return self.space.labels

    @property
    def framings(self) -> tuple[Framing, ...]:
        """The distinct ways in which the members resize and crop."""
        return tuple(dict.fromkeys(member.framing for member in self.members))

    @overload
    def predict(self, images: ImageInput, **options: Unpack[PredictArguments]) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Iterable[ImageInput], **options: Unpack[PredictArguments]) -> list[Prediction]: ...

    def predict(
        self,
        images: Any,
        *,
        explain: str | None = None,
        target: str | None = None,
        tta: int = 1,
        top: int = 3,
        batch_size: int = 32,
        metadata: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Predict one image, or each of many.

        Args:
            images: path, bytes of an image file, Pillow image or uint8 (H, W, 3) array; or any iterable of these.
            explain: attribution method for a heat map (``gradcam``, …, see ``attribution.METHODS``), None for no map.
            target: label that the map is about; None is the most probable one. ``malignant`` works wherever it has a meaning.
            tta: number of mirrored and turned views to average, 1..8.
            top: how many labels ``Prediction.top()`` and ``to_dict()`` show.
            metadata: ``{"age": 50, "sex": "female", "site": "back"}`` for one image, or one such mapping (or None) for each.
            batch_size: how many images are in memory at a time.
            progress: called with (images done, images in all or None).

        Returns:
            A Prediction for one image, a list of them for many. Heat maps stay in memory: use ``stream`` for many of them.
        """
        options = {"explain": explain, "target": target, "tta": tta, "top": top, "batch_size": batch_size}
        if not is_single(images):
            return list(self.stream(images, metadata=metadata, progress=progress, **options))
        chosen = self._checked(options, "predict")
        opened = open_image(images, self.framings, keep=chosen.explain is not None)
        return self.predict_opened([opened], chosen, [metadata])[0]

    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        metadata: Iterable[Patient | None] | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Iterator[Prediction]:
        """``predict`` for any number of images, one answer at a time; memory holds two batches, whatever their number."""
        chosen = self._checked(options, "predict")
        total = len(images) if isinstance(images, Sized) else None
        patients = iter(metadata) if metadata is not None else None
        done = 0
        open_ = partial(open_image, framings=self.framings, keep=chosen.explain is not None)
        for chunk in in_chunks(images, open_, chosen.batch_size):
            known = [_next(patients) for _ in chunk] if patients is not None else None
            yield from self.predict_opened(chunk, chosen, known)
            done += len(chunk)
            if progress:
                progress(done, total)

    def predict_case(self, images: Sequence[ImageInput], *, metadata: Patient | None = None, **options: Any) -> CasePrediction:
        """One answer for several images of one lesion: the mean of their probabilities; maps are about the case's label.

        >>> model = Predictor.of(LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32))
        >>> len(model.predict_case([np.zeros((45, 60, 3), np.uint8)] * 2).images)
        2
        """
        chosen = self._checked(options, "predict_case")
        if is_single(images) or not images:
            raise ConfigError("a case is a list of one or more images of a lesion")
        opened = [open_image(image, self.framings, keep=chosen.explain is not None) for image in images]
        answers = self._answer(opened, chosen, [metadata] * len(opened), one_case=True)
        singles = tuple(self._results(answers, opened, chosen))
        pooled = Answers(answers.combined.mean(0, keepdims=True), [rows.mean(0, keepdims=True) for rows in answers.by_member])
        whole = self._prediction(0, pooled, chosen)
        return CasePrediction(**{f.name: getattr(whole, f.name) for f in fields(whole)}, images=singles)

    def predict_opened(
        self, opened: Sequence[OpenedImage], options: PredictOptions, metadata: Sequence[Patient | None] | None = None
    ) -> list[Prediction]:
        """Predict images that were opened for ``framings``, as one batch."""
        return self._results(self._answer(opened, options, metadata), opened, options) if opened else []

    def embed(self, images: Any, batch_size: int = 32) -> NDArray[np.float32]:
        """Pooled features before the classifier, side by side for the members of an ensemble.

        Returns:
            (F,) float32 for one image, (N, F) for many.
        """
        if is_single(images):
            return self._features([open_image(images, self.framings)])[0]
        chunks = in_chunks(images, partial(open_image, framings=self.framings), batch_size)
        rows = [self._features(chunk) for chunk in chunks]
        return np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Predictor:
        """Move every member."""
        for member in self.members:
            member.classifier.to(device=device, dtype=dtype)
        return self

    def compile(self, **options: Any) -> Predictor:
        """Compile the networks with ``torch.compile``: pays on a GPU and for many images of one batch size.

        Explanations go on running uncompiled.
        """
        for member in self.members:
            member.classifier.compile(**options)
        return self

    @property
    def classifier(self) -> LesionClassifier:
        """The only member's network; an ensemble has several, see ``members``."""
        if len(self.members) != 1:
            raise ConfigError(f"{self.name} is an ensemble of {len(self.members)}; take one of .members")
        return self.members[0].classifier

    def _checked(self, options: Mapping[str, Any], where: str) -> PredictOptions:
        """The options of a call; a target that this model does not know raises before any image is opened."""
        chosen = validated(PredictOptions, options, where)
        if chosen.target is not None:
            select(chosen.target, self.space)
        return chosen

    def _answer(
        self,
        opened: Sequence[OpenedImage],
        options: PredictOptions,
        metadata: Sequence[Patient | None] | None,
        *,
        one_case: bool = False,
    ) -> Answers:
        patients = encode_patients(metadata)
        return answer(self.members, self.combination, opened, options, patients, one_case=one_case)

    @torch.inference_mode()
    def _features(self, opened: Sequence[OpenedImage]) -> NDArray[np.float32]:
        parts = [
            member.classifier.features(member.batch([image.crops[member.framing] for image in opened])).float().cpu()
            for member in self.members
        ]
        return np.asarray(torch.cat(parts, dim=1).numpy())

    def _results(self, answers: Answers, opened: Sequence[OpenedImage], options: PredictOptions) -> list[Prediction]:
        return [self._prediction(i, answers, options, image) for i, image in enumerate(opened)]

    def _prediction(self, i: int, answers: Answers, options: PredictOptions, image: OpenedImage | None = None) -> Prediction:
        row = answers.combined[i]
        malignancy = float(row @ self._malignancy) if self._malignancy is not None else None
        apart = self.combination.disagreement([rows[i : i + 1] for rows in answers.by_member])
        return Prediction(
            probabilities=dict(zip(self.labels, map(float, row), strict=True)),
            malignancy=malignancy,
            decisions={
                name: malignancy >= point.threshold for name, point in self.operating_points.items() if malignancy is not None
            },
            members={
                member.name: dict(zip(member.space.labels, map(float, rows[i]), strict=True))
                for member, rows in zip(self.members, answers.by_member, strict=True)
            },
            disagreement=float(apart[0]) if apart is not None else None,
            quality=image.quality if image else None,
            explanation=answers.explanations[i] if answers.explanations else None,
            shown=options.top,
        )

    def __repr__(self) -> str:
        names = ", ".join(member.name for member in self.members)
        return f"Predictor({self.name!r}, revision={self.revision!r}, space={self.space.name!r}, members=[{names}])"


def _next(patients: Iterator[Patient | None]) -> Patient | None:
    try:
        return next(patients)
    except StopIteration:
        raise ConfigError("there are fewer metadata than images; give one mapping, or None, for each image") from None


def _malignancy_column(space: LabelSpace) -> NDArray[np.float64] | None:
    """(C,) weights whose dot product with the probabilities is the malignant one, by the ``binary`` convention."""
    binary = label_space("binary")
    if space.name == "binary_ak_benign":
        return np.array([float(bool(flag)) for flag in space.malignant])
    return space.map_to(binary).matrix[:, binary.index("malignant")] if space.maps_to(binary) else None
