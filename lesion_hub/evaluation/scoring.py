"""Score a data set with ``Predictor.predict``, as users do, in bounded memory; save and read the results as a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.images import ImageSource, load_rgb
from lesion_hub.data.scan import image_sources
from lesion_hub.errors import DataError, TaxonomyError, one_line
from lesion_hub.evaluation.assessment import ImageTraits, image_traits
from lesion_hub.evaluation.predictions import Predictions, check_predictions
from lesion_hub.files import write_bytes
from lesion_hub.inference import Predictor
from lesion_hub.inference.predictor import in_chunks
from lesion_hub.inference.results import Scope
from lesion_hub.progress import Progress
from lesion_hub.taxonomy import ABSTAIN, LabelSpace, finest_common, label_space

if TYPE_CHECKING:
    from datasets import Dataset

FACTS = ("image_id", "group", "age", "sex", "site", "source")
BATCH = 32
_PREFIX = "p_"


@dataclass(frozen=True, eq=False)
class Scored:
    """Images with their probabilities (N, C) float64 and labels (N,) int64, both in ``space``.

    ``facts`` has a row per image: image_id, group, age, sex, site, source, width, height, skin_tone, disagreement, and of a
    model with a gate scope (the verdict) and scope_score. ``native`` are the (N, C_m) probabilities in the model's own labels,
    None where ``space`` is those.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    space: LabelSpace
    facts: pd.DataFrame
    native: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def groups(self) -> list[str]:
        """Return the (N,) lesion or patient of each image."""
        return list(self.facts["group"].astype(str))

    @property
    def disagreement(self) -> NDArray[np.float64] | None:
        """Return the (N,) disagreements of an ensemble's members; None for a single model, or where they are not kept."""
        return self._whole("disagreement")

    @property
    def scope(self) -> NDArray[np.float64] | None:
        """Return the gate's (N,) scores; None without a gate, or where they are not kept."""
        return self._whole("scope_score")

    def _whole(self, name: str) -> NDArray[np.float64] | None:
        """Return a column of ``facts``, None where it is not known of every image."""
        found = self.facts.get(name)
        return None if found is None or found.isna().any() else found.to_numpy(dtype=np.float64)

    @property
    def predictions(self) -> Predictions:
        """Return the probabilities and labels as checked ``Predictions``."""
        return check_predictions(self.probabilities, self.labels, self.space)

    def select(self, rows: NDArray[np.int64]) -> Scored:
        """Return the (M,) ``rows`` alone."""
        native = None if self.native is None else self.native[rows]
        return Scored(self.probabilities[rows], self.labels[rows], self.space, self.facts.iloc[rows], native)

    def table(self) -> pd.DataFrame:
        """Return a row per image: its facts, the true and the predicted label, and a column ``p_<label>`` for each label."""
        names = np.array(self.space.labels, dtype=object)
        labels = {"label": names[self.labels], "predicted": names[self.probabilities.argmax(axis=1)]}
        columns = {f"{_PREFIX}{label}": self.probabilities[:, i] for i, label in enumerate(self.space.labels)}
        return self.facts.assign(**labels, **columns)

    def save(self, path: Path) -> None:
        """Write ``table`` as Parquet, whole or not at all."""
        file = BytesIO()
        self.table().to_parquet(file, index=False)
        write_bytes(path, file.getvalue())


def score_dataset(
    predictor: Predictor,
    dataset: Dataset,
    truth: LabelSpace,
    *,
    space: LabelSpace | str | None = None,
    tta: int = 1,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> Scored:
    """Score every image of ``dataset``, whose labels are in ``truth``; at most two batches of images are in memory.

    ``space`` is the label space to score in, by default the finest that model and data share. Images whose label is unknown in
    it are left out. ``progress`` is called with (images done, images in all).
    """
    target = shared_space(predictor.space, truth, space)
    labels = truth.map_to(target).labels(np.asarray(dataset.with_format("numpy")["label"][:], dtype=np.int64))
    kept = np.flatnonzero(labels != ABSTAIN)
    if not len(kept):
        raise DataError(f"no image has a label in {target.name!r}; evaluate in another label space")
    chosen = dataset.select(kept) if len(kept) < len(labels) else dataset
    facts = pd.DataFrame({name: chosen[name][:] for name in FACTS})
    patients = patients_of(chosen)
    probabilities = np.empty((len(kept), len(predictor.space)))
    disagreement: list[float | None] = []
    scopes: list[Scope | None] = []
    traits: list[ImageTraits] = []
    for chunk in in_chunks(image_sources(chosen), _open_and_measure, batch_size):
        start, stop = len(traits), len(traits) + len(chunk)
        images = [image for image, _ in chunk]
        answers = predictor.predict(images, tta=tta, batch_size=batch_size, metadata=patients[start:stop])
        probabilities[start:stop] = [list(answer.probabilities.values()) for answer in answers]
        disagreement += [answer.disagreement for answer in answers]
        scopes += [answer.scope for answer in answers]
        traits += [measured for _, measured in chunk]
        if progress is not None:
            progress(stop, len(kept))
    # The mean of several rows may sum to a little more or less than 1.
    native = probabilities / probabilities.sum(axis=1, keepdims=True)
    mapped = predictor.space.map_to(target).probabilities(native)
    facts = facts.join(pd.DataFrame(traits)).assign(disagreement=pd.Series(disagreement, dtype="float64"))
    if predictor.gates:
        judged = [scope for scope in scopes if scope is not None]
        facts = facts.assign(scope=[one.verdict for one in judged], scope_score=[one.score for one in judged])
    return Scored(mapped, labels[kept], target, facts, native=None if predictor.space == target else native)


def patients_of(dataset: Dataset) -> list[dict[str, Any]]:
    """Return age, sex and site of every image, as ``predict`` takes them; None where they are not known."""
    facts = pd.DataFrame({name: dataset[name][:] for name in ("age", "sex", "site")})
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in facts.to_dict("records")]


def _open_and_measure(source: ImageSource) -> tuple[Image.Image, ImageTraits]:
    image = load_rgb(source)
    return image, image_traits(image)


def in_space(scored: Scored, space: LabelSpace) -> Scored:
    """Map probabilities and labels of the same images to a coarser space; a label that is unknown in it becomes ``ABSTAIN``."""
    mapping = scored.space.map_to(space)
    return replace(
        scored,
        probabilities=mapping.probabilities(scored.probabilities),
        labels=mapping.labels(scored.labels),
        space=space,
        native=scored.probabilities if scored.native is None else scored.native,
    )


def shared_space(model: LabelSpace, data: LabelSpace, wanted: LabelSpace | str | None = None) -> LabelSpace:
    """Return the label space to evaluate in: the ``wanted`` one, or the finest that both sides map into.

    >>> shared_space(label_space("ham7"), label_space("isic8")).name
    'ham7'
    """
    if wanted is None:
        try:
            return finest_common([model, data])
        except TaxonomyError:
            raise TaxonomyError(
                f"the model's labels ({model.name}) and the data's ({data.name}) have no label space in common; "
                "evaluate it on data of its own diagnoses"
            ) from None
    target = label_space(wanted) if isinstance(wanted, str) else wanted
    for side in (model, data):
        side.map_to(target)
    return target


def read_scored(path: Path, space: LabelSpace) -> Scored:
    """Read a file of ``Scored.save`` whose labels are those of ``space``."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise DataError(f"{path}: cannot be read as predictions ({reason}); evaluate again") from None
    columns = [f"{_PREFIX}{label}" for label in space.labels]
    missing = [name for name in ("image_id", "group", "label", *columns) if name not in table]
    if missing:
        raise DataError(f"{path}: has no column {missing[0]!r}; these predictions are of other labels than {space.name!r}")
    labels = np.array([space.index(label) for label in table["label"]], dtype=np.int64)
    known = [name for name in map(str, table.columns) if name not in ("label", "predicted") and not name.startswith(_PREFIX)]
    return Scored(table[columns].to_numpy(dtype=np.float64), labels, space, table[known])


def views_of(predictor: Predictor, tta: bool) -> int:
    """Return how many mirrored and turned views to average: 1 without ``tta``, else 8, or 4 where an input is not square.

    >>> from lesion_hub.models import LesionClassifier
    >>> views_of(Predictor.of(LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32)), tta=True)
    8
    """
    if not tta:
        return 1
    return 8 if all(framing.size[0] == framing.size[1] for framing in predictor.framings) else 4
