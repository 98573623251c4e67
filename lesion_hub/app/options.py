"""The options of the page: which models it serves, and the limits of a request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from lesion_hub import DEFAULT_MODEL
from lesion_hub.config import Count, Options, validated

MEGABYTE = 1_000_000


class AppOptions(Options):
    """Models by registry name, Hub id or folder, the first being the default; and the limits of a request.

    ``revision`` pins the first model (and every one that has no ``@revision`` of its own). ``engine`` is that of
    ``from_pretrained``. ``max_bytes`` and ``max_pixels`` are of one image, ``max_batch_bytes`` of all images of a request,
    ``memory_bytes`` of all files and requests that arrive or wait at a time. A request of which nearly nothing arrives for
    ``idle_seconds`` is given up. ``concurrency`` is how many model calls run at once, ``queue_size`` how many requests may
    wait for that; the next one is told that the page is busy.
    ``keep_seconds`` is how long a file or a result that nobody takes stays in memory. ``examples`` is a folder of images to
    try; without it those of the packaged Space are shown. ``display_side`` is the longer side, in pixels, of the pictures that
    the page shows. ``abstain`` is the error that answers may have before the model keeps silent, where that was fitted.

    >>> AppOptions(models=("dermoscopy-trio",), max_files=10).max_files
    10
    """

    models: tuple[str, ...] = Field(default=(DEFAULT_MODEL,), min_length=1)
    revision: str | None = None
    registry: str | Path | None = None
    device: str | None = None
    engine: str = "auto"
    examples: Path | None = None
    max_bytes: Count = 20 * MEGABYTE
    max_pixels: Count = 50_000_000
    max_files: Count = 50
    max_batch_bytes: Count = 200 * MEGABYTE
    memory_bytes: Count = 400 * MEGABYTE
    idle_seconds: Annotated[float, Field(gt=0)] = 10.0
    concurrency: Annotated[int, Field(ge=1, le=8)] = 1
    queue_size: Count = 32
    keep_seconds: Annotated[float, Field(gt=0)] = 120.0
    display_side: Annotated[int, Field(ge=64, le=4096)] = 896
    abstain: Annotated[float, Field(gt=0, lt=1)] | None = 0.1

    @field_validator("models", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """Take a single name as a list of one."""
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_fits_into_the_other(self) -> AppOptions:
        """Refuse an image that is no batch, and a batch that finds no memory: each upload would be refused."""
        if self.max_bytes > self.max_batch_bytes:
            raise ValueError(f"max_bytes ({self.max_bytes}) is more than max_batch_bytes ({self.max_batch_bytes})")
        if self.max_batch_bytes > self.memory_bytes:
            raise ValueError(f"max_batch_bytes ({self.max_batch_bytes}) is more than memory_bytes ({self.memory_bytes})")
        return self

    @classmethod
    def of(cls, **options: Any) -> AppOptions:
        """Build the options from those that are not None; a mistake is one line."""
        return validated(cls, {name: value for name, value in options.items() if value is not None}, "serve")
