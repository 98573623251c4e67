"""Predictor: what ``from_pretrained`` returns, one model or an ensemble alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.config import OperatingPoint
from lesion_hub.data.images import load_rgb
from lesion_hub.errors import ConfigError
from lesion_hub.inference.combine import Combination
from lesion_hub.inference.members import Member
from lesion_hub.inference.results import Prediction
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import LabelSpace, label_space

ImageInput = str | Path | bytes | Image.Image | NDArray[Any]


class Predictor:
    """Scores images with one or several members.

    >>> model = Predictor.of(LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32).eval())
    >>> prediction = model.predict(Image.new("RGB", (60, 45)))
    >>> sorted(prediction.probabilities) == sorted(model.labels)
    True
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
        self.members = tuple(members)
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

    @overload
    def predict(self, images: ImageInput) -> Prediction: ...
    @overload
    def predict(self, images: list[Any] | tuple[Any, ...]) -> list[Prediction]: ...

    def predict(self, images: Any) -> Any:
        """Predict one image, or each of a list of them.

        Args:
            images: path, bytes of an image file, PIL image or uint8 (H, W, 3) array; or a list of these.

        Returns:
            A Prediction for one input, a list of them for a list.
        """
        if isinstance(images, (list, tuple)):
            return self._predict([_as_rgb(image) for image in images])
        return self._predict([_as_rgb(images)])[0]

    def _predict(self, images: list[Image.Image]) -> list[Prediction]:
        if not images:
            return []
        by_member = [torch.softmax(member.logits(images), dim=1).double().numpy() for member in self.members]
        combined = self.combination(by_member)
        return [self._result(i, combined, by_member) for i in range(len(images))]

    def _result(self, i: int, combined: NDArray[np.float64], by_member: list[NDArray[np.float64]]) -> Prediction:
        malignancy = float(combined[i] @ self._malignancy) if self._malignancy is not None else None
        return Prediction(
            probabilities=dict(zip(self.labels, map(float, combined[i]), strict=True)),
            malignancy=malignancy,
            decisions={
                name: malignancy >= point.threshold for name, point in self.operating_points.items() if malignancy is not None
            },
            members={
                member.name: dict(zip(member.space.labels, map(float, rows[i]), strict=True))
                for member, rows in zip(self.members, by_member, strict=True)
            },
        )

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Predictor:
        """Move every member."""
        for member in self.members:
            member.classifier.to(device=device, dtype=dtype)
        return self

    @property
    def classifier(self) -> LesionClassifier:
        """The only member's network; an ensemble has several, see ``members``."""
        if len(self.members) != 1:
            raise ConfigError(f"{self.name} is an ensemble of {len(self.members)}; take one of .members")
        return self.members[0].classifier

    def __repr__(self) -> str:
        names = ", ".join(member.name for member in self.members)
        return f"Predictor({self.name!r}, revision={self.revision!r}, space={self.space.name!r}, members=[{names}])"


def _as_rgb(image: ImageInput) -> Image.Image:
    return load_rgb(Image.fromarray(image) if isinstance(image, np.ndarray) else image)


def _malignancy_column(space: LabelSpace) -> NDArray[np.float64] | None:
    """(C,) weights whose dot product with the probabilities is the malignant one, by the ``binary`` convention."""
    binary = label_space("binary")
    if space.name == "binary_ak_benign":
        return np.array([float(bool(flag)) for flag in space.malignant])
    return space.map_to(binary).matrix[:, binary.index("malignant")] if space.maps_to(binary) else None
