"""What augmentation a recipe asks for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from lesion_hub.config import Options
from lesion_hub.data.artefacts import ARTEFACTS, SEVERITIES
from lesion_hub.taxonomy import nearest

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class AugmentationOptions(Options):
    """The random changes of every training image, every time it is shown; the defaults suit dermoscopy.

    ``scale`` is the range of the crop's area as a share of the image, ``ratio`` that of its stretching (1 is none); both
    (1, 1) is the largest undistorted crop. ``shift`` is how far it may lie off centre, as a share of the room that there
    is. ``rotation`` is in degrees, to either side; what turns in from beyond the border is reflected. ``hflip``,
    ``vflip``, ``blur``, ``erase`` and the values of ``artefacts`` are probabilities.

    ``brightness``, ``contrast`` and ``saturation`` draw a factor from 1 - v to 1 + v, ``hue`` a turn of -v to v of the
    colour circle. ``blur_sigma`` is in pixels of the network's input, ``erase_area`` a share of it; an erased box takes
    the mean colour of the normalisation. ``artefacts`` lays hair, rulers, ink, dark corners or gel bubbles over the
    image, from ``artefact_layers`` drawings of each kind made once per run.

    >>> AugmentationOptions(rotation=15.0, artefacts={"hair": 0.2}).vflip
    0.5
    """

    scale: tuple[Positive, Positive] = (0.5, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    shift: Share = 1.0
    hflip: Share = 0.5
    vflip: Share = 0.5
    rotation: Annotated[float, Field(ge=0, le=180)] = 180.0
    brightness: NonNegative = 0.2
    contrast: NonNegative = 0.2
    saturation: NonNegative = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    blur: Share = 0.0
    blur_sigma: tuple[Positive, Positive] = (0.3, 2.0)
    erase: Share = 0.0
    erase_area: tuple[Positive, Positive] = (0.02, 0.2)
    artefacts: dict[str, Share] = Field(default_factory=dict)
    artefact_severity: tuple[int, int] = (1, 3)
    artefact_layers: Annotated[int, Field(ge=1)] = 32

    @field_validator("scale", "ratio", "blur_sigma", "erase_area", "artefact_severity")
    @classmethod
    def _increasing(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"{value[0]:g} is above {value[1]:g}; give the smaller one first")
        return value

    @field_validator("artefacts")
    @classmethod
    def _known_artefacts(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if name not in ARTEFACTS:
                raise ValueError(f"unknown artefact {name!r}; {nearest(name, ARTEFACTS)}")
        return value

    @model_validator(mode="after")
    def _in_range(self) -> AugmentationOptions:
        if self.scale[1] > 1 or self.erase_area[1] > 1:
            raise ValueError("scale and erase_area are shares of the image; give at most 1")
        if not set(self.artefact_severity) <= set(SEVERITIES):
            raise ValueError("artefact_severity goes from 1 to 5")
        return self

    @classmethod
    def none(cls) -> AugmentationOptions:
        """The largest central crop, undistorted, and nothing else."""
        still = dict.fromkeys(("shift", "hflip", "vflip", "rotation", "brightness", "contrast", "saturation", "hue"), 0.0)
        return cls(scale=(1, 1), ratio=(1, 1), **still)

    @property
    def changes_colour(self) -> bool:
        return max(self.brightness, self.contrast, self.saturation, self.hue) > 0
