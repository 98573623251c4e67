"""Images too many for the disk: decoded as they are asked for, and the choice between keeping and streaming them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.cache.build import Progress, build_cache
from lesion_hub.data.cache.layout import image_ids, plan_cache
from lesion_hub.data.cache.reading import ImageReader
from lesion_hub.data.cache.spec import CacheSpec, decode_into
from lesion_hub.data.images import ImageSource
from lesion_hub.errors import ConfigError, ImageError

Access = Literal["resident", "mapped", "stream"]


class ImageStream(ImageReader):
    """Images decoded and resized at every reading, by a pool of ``threads`` (None: one for each core).

    Needs no disk, and memory only for the batches in flight; returns the very pixels that an `ImageCache` of the same
    images and spec holds. Pillow decodes outside the interpreter's lock, so threads suffice. Use it as a context
    manager, or `close` it, to end its threads.

    >>> from io import BytesIO
    >>> from PIL import Image
    >>> file = BytesIO()
    >>> Image.new("RGB", (8, 6), "white").save(file, "PNG")
    >>> with ImageStream([file.getvalue()] * 5, CacheSpec(3, 4)) as stream:
    ...     [batch.shape for batch in stream.batches([[0, 1], [4, 3, 2]])]
    [(2, 3, 4, 3), (3, 3, 4, 3)]
    """

    def __init__(
        self,
        paths: Sequence[ImageSource],
        spec: CacheSpec | None = None,
        *,
        ids: Sequence[str] | None = None,
        threads: int | None = None,
        on_error: str = "fail",
    ) -> None:
        if on_error not in ("fail", "skip"):
            raise ConfigError(f"on_error {on_error!r}: use one of fail, skip")
        self.spec = spec or CacheSpec()
        self.ids = image_ids(paths, ids)
        self.threads = threads or os.cpu_count() or 1
        self.on_error = on_error
        self._paths = paths
        self._sizes = np.zeros((len(paths), 2), np.int32)
        self._errors: dict[int, str] = {}
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="image-decode")

    @property
    def errors(self) -> Mapping[int, str]:
        return MappingProxyType(self._errors)

    @property
    def sizes(self) -> NDArray[np.int32]:
        return self._sizes.copy()

    def _fill(self, out: NDArray[np.uint8], indices: NDArray[np.intp]) -> None:
        for _ in self._pool.map(self._decode, out, indices.tolist()):
            pass

    def _decode(self, out: NDArray[np.uint8], index: int) -> None:
        try:
            self._sizes[index] = decode_into(out, self._paths[index], self.spec, self.ids[index])
        except ImageError as error:
            if self.on_error == "fail":
                raise
            out[:] = 0
            self._errors[index] = str(error)

    def close(self) -> None:
        """End the decoding threads; nothing can be read afterwards."""
        self._pool.shutdown()

    def __enter__(self) -> ImageStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        remade = partial(ImageStream, ids=self.ids, threads=self.threads, on_error=self.on_error)
        return remade, (self._paths, self.spec)


def plan_access(n_images: int, spec: CacheSpec, *, device_budget: int, disk_budget: int) -> Access:
    """How training should get its images, the budgets in bytes (``device_budget=0``: no accelerator to hold them).

    ``"resident"``: all in the accelerator's memory; ``"mapped"``: from the cache on disk; ``"stream"``: decoded again
    in every epoch, for neither has room.

    >>> spec = CacheSpec(224, 298)
    >>> plan_access(10_015, spec, device_budget=40 << 30, disk_budget=0)
    'resident'
    >>> plan_access(400_000, spec, device_budget=40 << 30, disk_budget=1 << 40)
    'mapped'
    """
    needed = spec.nbytes(n_images)
    if needed <= device_budget:
        return "resident"
    return "mapped" if needed <= disk_budget else "stream"


def cache_or_stream(
    paths: Sequence[ImageSource],
    root: str | Path,
    spec: CacheSpec | None = None,
    *,
    device_budget: int = 0,
    disk_budget: int | None = None,
    ids: Sequence[str] | None = None,
    processes: int | None = None,
    on_error: str = "fail",
    progress: Progress | None = None,
    identify: str = "stat",
) -> tuple[Access, ImageReader]:
    """The access that the budgets (bytes) permit, and its reader: an `ImageCache` where the disk has room for one.

    Else the reader is an `ImageStream`, with ``processes`` as its threads. ``disk_budget`` None means what is free
    under ``root`` and what a cache of these images takes there already. When the access is ``"resident"``, the reader's
    `to_numpy` gives the array to move. The other options are those of `build_cache`.
    """
    spec = spec or CacheSpec()
    if disk_budget is None:
        plan = plan_cache(paths, spec, ids=ids, identify=identify)
        disk_budget = _room(Path(root) / plan.fingerprint)
    access = plan_access(len(paths), spec, device_budget=device_budget, disk_budget=disk_budget)
    if spec.nbytes(len(paths)) > disk_budget:
        return access, ImageStream(paths, spec, ids=ids, threads=processes, on_error=on_error)
    cache = build_cache(
        paths, root, spec, ids=ids, processes=processes, on_error=on_error, progress=progress, identify=identify
    )
    return access, cache


def _room(directory: Path) -> int:
    taken = sum(shard.stat().st_size for shard in directory.glob("*.u8"))
    existing = next(folder for folder in (directory, *directory.absolute().parents) if folder.exists())
    return taken + shutil.disk_usage(existing).free
