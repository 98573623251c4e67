"""The options of a prediction, checked before any image is touched."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from lesion_hub.config import Options
from lesion_hub.inference.attribution.methods import METHODS
from lesion_hub.inference.views import VIEWS
from lesion_hub.taxonomy import nearest


class PredictOptions(Options):
    """How to predict.

    ``explain`` names an attribution method, None draws no map; ``target`` is the label it is about, None the most probable
    one. ``tta`` in 1..8 is the number of mirrored and turned views that are averaged. ``top`` is how many labels the
    result shows. ``batch_size`` images at most are in memory at a time.
    """

    explain: str | None = None
    target: str | None = None
    tta: Annotated[int, Field(ge=1, le=len(VIEWS))] = 1
    top: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 32

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
