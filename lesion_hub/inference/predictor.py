"""Predictor: images in, predictions out, for one model and for an ensemble alike.

A chunk of images is opened and cropped by several threads (`in_chunks`, `preprocess.open_image`), every member makes one
forward pass per orientation, `members.Combination` makes one answer of theirs, and, where a map is asked for, the same
passes are explained (`attribution`). What comes out is a `results.Prediction` per image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict, TypeVar, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from lesion_hub.config import AnswerRules, OperatingPoint, Options, ProperShare, validated
from lesion_hub.errors import ConfigError, ImageError, StoreError
from lesion_hub.hub.format import StorageType
from lesion_hub.hub.release import Published
from lesion_hub.hub.store import Resolved, publish
from lesion_hub.inference.attribution import (
    METHODS,
    Evidence,
    averaged,
    draw_maps,
    member_labels,
    target_labels,
)
from lesion_hub.inference.decisions import MOST_PROBABLE, Decide, Prior, decision_name, malignant_scores
from lesion_hub.inference.device import find_device
from lesion_hub.inference.engine import Engine, one_torch_thread
from lesion_hub.inference.gate import Gate, scopes
from lesion_hub.inference.label_sets import COVERAGE
from lesion_hub.inference.members import Combination, Member, Probabilities
from lesion_hub.inference.preprocess import (
    ORIENTATIONS,
    Framing,
    ImageInput,
    OpenedImage,
    Orientation,
    Patient,
    encode_patients,
    is_single,
    open_image,
    orientations,
)
from lesion_hub.inference.results import CasePrediction, Explanation, Prediction, Scope
from lesion_hub.inference.rules import apply_rules, check_rules
from lesion_hub.models import LesionClassifier
from lesion_hub.progress import Progress
from lesion_hub.taxonomy import LabelSpace, nearest

if TYPE_CHECKING:
    from typing_extensions import Unpack

_Source = TypeVar("_Source")
_Opened = TypeVar("_Opened")


class PredictOptions(Options):
    """How to predict; checked before any image is touched.

    ``explain`` names an attribution method, None draws no map; ``target`` is the label it is about, None the most probable
    one. ``tta`` in 1..8 is the number of mirrored and turned views that are averaged. ``top`` is how many labels the
    result shows. ``batch_size`` images at most are in memory at a time. ``coverage`` is that of the label set shown; ``decide``
    names the rule that the label is decided by, ``prior`` the prevalence that probabilities are re-weighted to
    (``inference.decisions``); ``abstain`` is the error that the answers given may have, None has the model never keep silent.
    """

    explain: str | None = None
    target: str | None = None
    tta: Annotated[int, Field(ge=1, le=len(ORIENTATIONS))] = 1
    top: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 32
    coverage: ProperShare = COVERAGE
    decide: Decide = MOST_PROBABLE
    prior: Prior | None = None
    abstain: ProperShare | None = None

    @field_validator("explain")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and value not in METHODS:
            raise ValueError(f"unknown attribution method {value!r}; {nearest(value, METHODS)}")
        return value

    @model_validator(mode="after")
    def _target_is_of_a_map(self) -> PredictOptions:
        if self.target is not None and self.explain is None:
            raise ValueError(f"target {self.target!r} is what a map is about, and none is asked for; add explain='gradcam'")
        return self


class PredictArguments(TypedDict, total=False):
    """The keywords of ``Predictor.predict``, for type checkers."""

    explain: str | None
    target: str | None
    tta: int
    top: int
    batch_size: int
    metadata: Any
    progress: Progress | None
    coverage: float
    decide: Any
    prior: dict[str, float] | None
    abstain: float | None


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
        rules: AnswerRules | None = None,
        name: str = "model",
        revision: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self.members = tuple(member.ready() for member in members)
        self.combination = combination
        self.operating_points = dict(operating_points or {})
        self.rules = rules
        self.name = name
        self.revision = revision
        self.folder = folder

    @classmethod
    def of(
        cls,
        classifier: LesionClassifier,
        name: str = "model",
        *,
        engine: Engine | None = None,
        gate: Gate | None = None,
        **options: Any,
    ) -> Predictor:
        """Make a predictor of a single classifier, in torch unless there is an engine with its weights."""
        return cls([Member(name, classifier, engine, gate)], Combination.single(classifier.space), name=name, **options)

    @property
    def title(self) -> str:
        """Its name, and its version where it has one."""
        return f"{self.name} {self.revision}" if self.revision else self.name

    def for_display(self) -> Predictor:
        """Return the same predictor under the name to show: one of a bare folder is named without the path to it."""
        if self.folder is None or self.revision is not None:
            return self
        shown = Resolved(self.name, self.folder, None).display_name
        members = [replace(member, name=shown) if member.name == self.name else member for member in self.members]
        points, rules, folder = self.operating_points, self.rules, self.folder
        return Predictor(members, self.combination, points, rules=rules, name=shown, folder=folder)

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

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The input gates of the members that have one; without any, predictions say nothing of an image's scope."""
        return tuple(member.gate for member in self.members if member.gate is not None)

    @property
    def classifier(self) -> LesionClassifier:
        """The only member's network; an ensemble has several, see ``members``."""
        if len(self.members) != 1:
            raise ConfigError(f"{self.name} is an ensemble of {len(self.members)}; take one of .members")
        return self.members[0].classifier

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
        **rules: Any,
    ) -> Any:
        """Predict one image, or each of many.

        Args:
            images: a path, a file opened with ``"rb"`` (a ``BytesIO``, an upload's ``.file``), the bytes of an image file, a
                Pillow image or a uint8 (H, W, 3) array; or any iterable of these. No URL.
            explain: attribution method for a heat map (``gradcam``, …, see ``attribution.METHODS``), None for no map.
            target: label that the map is about; None is the most probable one. ``malignant`` works wherever it has a meaning.
            tta: number of mirrored and turned views to average, 1..8.
            top: how many labels ``Prediction.top()`` and ``to_dict()`` show.
            metadata: ``{"age": 50, "sex": "female", "site": "back"}`` for one image, or one such mapping (or None) for each.
            batch_size: how many images are in memory at a time.
            progress: called with (images done, images in all or None).
            rules: how the answer is read off the probabilities. ``coverage`` of the label set shown (0.9); ``decide`` by
                ``"most_probable"``, ``"balanced"``, an operating point such as ``"sensitivity_95"``, or
                ``{"cost": {"mel": {"nv": 20}}}``; ``prior={"mel": 0.02}``, the prevalence to re-weight to; ``abstain=0.05``,
                the error that the answers given may have.

        Returns:
            A Prediction for one image, a list of them for many. Heat maps stay in memory: use ``stream`` for many of them.
        """
        options = {"explain": explain, "target": target, "tta": tta, "top": top, "batch_size": batch_size, **rules}
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
        """Predict any number of images, one answer at a time; memory holds two batches, whatever their number."""
        for answer in self.try_each(images, metadata=metadata, progress=progress, **options):
            if isinstance(answer, ImageError):
                raise answer
            yield answer

    def try_each(
        self,
        images: Iterable[ImageInput],
        *,
        metadata: Iterable[Patient | None] | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Iterator[Prediction | ImageError]:
        """Predict as ``stream`` does; the answer to an image that cannot be opened is its `ImageError`.

        >>> model = Predictor.of(LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32))
        >>> [type(answer).__name__ for answer in model.try_each([np.zeros((45, 60, 3), np.uint8), b"no image"])]
        ['Prediction', 'ImageError']
        """
        chosen = self._checked(options, "predict")
        if is_single(images):
            images = [cast(ImageInput, images)]
        total = len(images) if isinstance(images, Sized) else None
        patients = iter(metadata) if metadata is not None else None
        done = 0

        def opened(image: ImageInput) -> OpenedImage | ImageError:
            try:
                return open_image(image, self.framings, keep=chosen.explain is not None)
            except ImageError as error:
                return error

        for chunk in in_chunks(images, opened, chosen.batch_size):
            known = list(islice(patients, len(chunk))) if patients is not None else [None] * len(chunk)
            if len(known) < len(chunk):
                raise ConfigError("there are fewer metadata than images; give one mapping, or None, for each image")
            good = [(image, patient) for image, patient in zip(chunk, known, strict=True) if not isinstance(image, ImageError)]
            found = iter(self.predict_opened([image for image, _ in good], chosen, [patient for _, patient in good]))
            yield from (image if isinstance(image, ImageError) else next(found) for image in chunk)
            done += len(chunk)
            if progress:
                progress(done, total)

    def predict_case(self, images: Sequence[ImageInput], *, metadata: Patient | None = None, **options: Any) -> CasePrediction:
        """Give one answer for several images of one lesion: the mean of their probabilities; maps are about the case's label.

        >>> model = Predictor.of(LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32))
        >>> len(model.predict_case([np.zeros((45, 60, 3), np.uint8)] * 2).images)
        2
        """
        chosen = self._checked(options, "predict_case")
        if is_single(images) or not images:
            raise ConfigError("a case is a list of one or more images of a lesion; a single image goes to predict")
        opened = [open_image(image, self.framings, keep=chosen.explain is not None) for image in images]
        found = self._score(opened, chosen, [metadata] * len(opened), one_case=True)
        singles = self._predictions(found, chosen, opened)
        means = [rows.mean(0, keepdims=True) for rows in found.by_member]
        worst = [min(found.scopes, key=lambda scope: scope.score)] if found.scopes else None
        whole = self._predictions(_Found(found.combined.mean(0, keepdims=True), means, worst), chosen)[0]
        return CasePrediction(**vars(whole), images=tuple(singles))

    def predict_opened(
        self, opened: Sequence[OpenedImage], options: PredictOptions, metadata: Sequence[Patient | None] | None = None
    ) -> list[Prediction]:
        """Predict images that were opened for ``framings``, as one batch."""
        if not opened:
            return []
        return self._predictions(self._score(opened, options, metadata), options, opened)

    def embed(self, images: Any, batch_size: int = 32) -> NDArray[np.float32]:
        """Compute the pooled features before the classifier, side by side for the members of an ensemble.

        Returns:
            (F,) float32 for one image, (N, F) for many.
        """
        single = is_single(images)
        rows = []
        for chunk in in_chunks([images] if single else images, partial(open_image, framings=self.framings), batch_size):
            with torch.inference_mode():
                parts = [member.classifier.features(member.batch(chunk)).float().cpu() for member in self.members]
                rows.append(torch.cat(parts, dim=1).numpy())
        features = np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)
        return np.asarray(features[0] if single else features)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Predictor:
        """Move every member; ``device`` as for ``from_pretrained``."""
        place = None if device is None else find_device(device)
        for member in self.members:
            member.classifier.to(device=place, dtype=dtype)
        return self

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        licence: str,
        training_data: str | None = None,
        split: str | Path | None = None,
        storage: StorageType = "float32",
    ) -> Path:
        """Write the folder of a model that was trained elsewhere (see ``from_network``), to be calibrated and measured there.

        The arguments are those of ``hub.trained_elsewhere.write_trained_elsewhere``. A model that was loaded is refused: its
        folder says what it was trained on, which a new one would not.
        """
        if self.folder is not None:
            raise ConfigError(f"{self.name}: is in {self.folder} already; copy that (lesion-hub pull --to), or push_to_hub")
        if len(self.members) != 1:
            raise ConfigError(f"{self.name}: is an ensemble; publish its members and combine them (lesion-hub ensemble create)")
        from lesion_hub.hub.trained_elsewhere import write_trained_elsewhere  # not needed to predict, and slow to import

        place = Path(folder).expanduser()
        write_trained_elsewhere(
            place, self.classifier, licence=licence, training_data=training_data, split=split, storage=storage
        )
        self.folder = place
        return place

    def push_to_hub(self, name: str, *, version: str, notes: str, **options: Any) -> Published:
        """Publish the folder that this model was saved to, or loaded from: ``lesion_hub.publish``, which has the options.

        ``name`` is ``org/name`` on the Hub, or a plain name in a registry. The folder must be calibrated and have its card.
        """
        if self.folder is None:
            raise ConfigError(f"{self.name}: is in no folder yet; save_pretrained first, then calibrate and evaluate it there")
        return publish(self.folder, name, version=version, notes=notes, **options)

    def compile(self, **options: Any) -> Predictor:
        """Compile the networks with ``torch.compile``: pays on a GPU and for many images of one batch size.

        Explanations go on running uncompiled, and an engine is no longer asked.
        """
        self.members = tuple(member.compile(**options) for member in self.members)
        return self

    def __repr__(self) -> str:
        names = ", ".join(member.name for member in self.members)
        return f"Predictor({self.name!r}, revision={self.revision!r}, space={self.space.name!r}, members=[{names}])"

    def _checked(self, options: Mapping[str, Any], where: str) -> PredictOptions:
        """Check the options of a call; a target that this model does not know raises before any image is opened."""
        chosen = validated(PredictOptions, options, where)
        if chosen.target is not None:
            target_labels(chosen.target, self.space)
        check_rules(chosen, self.space, self.operating_points, self.rules)
        return chosen

    def _score(
        self,
        opened: Sequence[OpenedImage],
        options: PredictOptions,
        metadata: Sequence[Patient | None] | None,
        *,
        one_case: bool = False,
    ) -> _Found:
        """Score and explain N images, see ``_scored``, with what is left to torch in one thread where engines do the rest."""
        tails_only = options.explain is None or METHODS[options.explain].layerwise
        with one_torch_thread() if tails_only and all(member.running for member in self.members) else nullcontext():
            return self._scored(opened, options, metadata, one_case)

    def _scored(
        self, opened: Sequence[OpenedImage], options: PredictOptions, metadata: Sequence[Patient | None] | None, one_case: bool
    ) -> _Found:
        """Score N images: probabilities, scopes, and an explanation each where ``options`` ask for it.

        With ``one_case`` all explanations are about the label that is the most probable for all images together.
        """
        patients = encode_patients(metadata)
        scored = [_forward(member, opened, options, patients) for member in self.members]
        by_member = [one.probabilities for one in scored]
        combined = self.combination(by_member)
        if not np.isfinite(combined).all():  # no threshold says anything of them
            raise StoreError(f"{self.name}: its scores are no numbers; fetch or publish the model again, or use it in float32")
        judged = [one.log_odds for one in scored if one.log_odds is not None]
        found = _Found(combined, by_member, scopes(self.gates, judged) if judged else None)
        if options.explain is None:
            return found

        if options.target is not None:
            name, labels = target_labels(options.target, self.space)
            names, selected = [name] * len(opened), np.tile(labels, (len(opened), 1))
        else:
            best = np.full(len(opened), combined.mean(axis=0).argmax()) if one_case else combined.argmax(axis=1)
            names, selected = [self.labels[i] for i in best], np.eye(len(self.space), dtype=bool)[best]

        sizes = [image.size for image in opened]
        maps = [
            draw_maps(METHODS[options.explain], one.passes, member_labels(selected, mapping), member.framing, sizes)
            for member, one, mapping in zip(self.members, scored, self.combination.maps, strict=True)
        ]
        explanations = []
        for name, image, own in zip(names, opened, zip(*maps, strict=True), strict=True):
            assert image.image is not None, "images to be explained are opened with keep=True"
            heat = averaged(own, self.combination.weights)
            by_name = {member.name: one for member, one in zip(self.members, own, strict=True)}
            explanations.append(Explanation(options.explain, name, heat, by_name, image.image))
        return found._replace(explanations=explanations)

    def _predictions(
        self, found: _Found, options: PredictOptions, opened: Sequence[OpenedImage] | None = None
    ) -> list[Prediction]:
        """Make a Prediction of each of the N rows that ``_score`` found; without ``opened`` they are of no single image."""
        combined, by_member = found.combined, found.by_member
        # Scores that operating points are chosen on (`evaluation.predictions`): a label that abstains is shared out.
        scores = None if self.space.malignancy_map is None else malignant_scores(combined, self.space)[0]
        apart = self.combination.disagreement(by_member)
        scope = None if found.scopes is None else np.array([one.score for one in found.scopes])
        known = (self.space, self.operating_points, self.rules)
        ruled = apply_rules(combined, options, *known, disagreement=apart, scope=scope)
        names = dict(zip(self.labels, self.space.descriptions, strict=True))
        predictions = []
        for i, row in enumerate(ruled.probabilities):
            score = None if scores is None else float(scores[i])
            prediction = Prediction(
                probabilities=dict(zip(self.labels, map(float, row), strict=True)),
                malignancy=None if ruled.malignancy is None else float(ruled.malignancy[i]),
                decisions={} if score is None else {n: score >= point.threshold for n, point in self.operating_points.items()},
                members={
                    member.name: dict(zip(member.space.labels, map(float, rows[i]), strict=True))
                    for member, rows in zip(self.members, by_member, strict=True)
                },
                disagreement=None if apart is None else float(apart[i]),
                quality=opened[i].quality if opened else None,
                scope=found.scopes[i] if found.scopes else None,
                explanation=found.explanations[i] if found.explanations else None,
                shown=options.top,
                decided=self.labels[ruled.decided[i]],
                decided_by=decision_name(options.decide),
                at_training_mix=None if options.prior is None else dict(zip(self.labels, map(float, combined[i]), strict=True)),
                doubt=None if ruled.doubt is None else float(ruled.doubt[i]),
                abstains=None if ruled.abstains is None else bool(ruled.abstains[i]),
                coverage=options.coverage,
                rules=self.rules,
                names=names,
            )
            predictions.append(prediction)
        return predictions


class _Found(NamedTuple):
    """What was found in N images: combined probabilities (N, C), each member's (N, C_m), N scopes and N explanations."""

    combined: Probabilities
    by_member: Sequence[Probabilities]
    scopes: Sequence[Scope] | None = None
    explanations: Sequence[Explanation] | None = None


class _Forward(NamedTuple):
    """One member's passes over N images: mean probabilities (N, C_m), its gate's log-odds (N,), what maps are drawn from."""

    probabilities: Probabilities
    log_odds: NDArray[np.float64] | None
    passes: list[tuple[Orientation, Evidence]]


def _forward(member: Member, opened: Sequence[OpenedImage], options: PredictOptions, patients: Tensor | None) -> _Forward:
    """Run one member over every orientation of N images.

    One forward pass serves prediction, gate and map: what a map is about is known only when all members have been scored. The
    gate judges the image as it is, not its mirrored and turned views.
    """
    logits: list[Tensor] = []
    passes: list[tuple[Orientation, Evidence]] = []
    log_odds, gate = None, member.gate
    # Tensors of inference mode could not be differentiated afterwards.
    with torch.inference_mode() if options.explain is None else torch.no_grad():
        batch = member.batch(opened)
        known = None if patients is None else patients.to(batch)
        for orientation in orientations(options.tta, member.framing.size):
            images = orientation.apply(batch)
            reading, state = gate is not None and gate.reads_features and not logits, None
            if options.explain is None:
                scores, state = member.score_and_features(images, known) if reading else (member.score(images, known), None)
            else:
                cut = METHODS[options.explain].cut(member.classifier)
                scores, state = member.score_in_parts(cut, images, known)
                passes.append((orientation, Evidence(cut, images, state, known, member.score)))
            if gate is not None and not logits:
                if reading and (state is None or state is images):  # of a method that needs no cut
                    state = member.score_and_features(images, known)[1]
                log_odds = gate.log_odds(state if reading and state is not None else scores)
            logits.append(scores)
    rows = [torch.softmax(scores.cpu().double(), dim=1).numpy() for scores in logits]
    return _Forward(np.asarray(rows[0] if len(rows) == 1 else np.mean(rows, axis=0)), log_odds, passes)


def in_chunks(sources: Iterable[_Source], open_: Callable[[_Source], _Opened], size: int) -> Iterator[list[_Opened]]:
    """Apply ``open_`` to every source, in order, in lists of ``size``; at most two such lists exist at a time.

    What ``open_`` raises is raised here, when its turn has come.

    >>> list(in_chunks(range(5), lambda number: number * 10, 2))
    [[0, 10], [20, 30], [40]]
    """
    remaining = iter(sources)
    pool = ThreadPoolExecutor(max(1, torch.get_num_threads()), thread_name_prefix="open-image")
    pending: deque[list[Future[_Opened]]] = deque()
    try:
        while True:
            while len(pending) < 2 and (chunk := list(islice(remaining, size))):
                pending.append([pool.submit(open_, source) for source in chunk])
            if not pending:
                return
            yield [future.result() for future in pending.popleft()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
