"""Write a sample set to a folder: in parallel, file by file, so that an interrupted run can simply be repeated."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

from lesion_hub.data.synthetic.layouts import image_path, mask_folder, mask_path, tables
from lesion_hub.data.synthetic.plan import PlannedImage
from lesion_hub.data.synthetic.plant import SamplePlan, Source, plan_sample_set
from lesion_hub.data.synthetic.render import encode_planned
from lesion_hub.data.synthetic.spec import SampleSpec
from lesion_hub.errors import DataError

SPEC_FILE = "sample_set.json"

_CHUNK = 16

Task = tuple[Path, SampleSpec, PlannedImage, Source | None]


@dataclass(frozen=True)
class SampleSet:
    """A written set: its ``root``, the number of ``images`` and ``lesions``, images per label, and where masks and the
    record of planted flaws lie."""

    root: Path
    images: int
    lesions: int
    labels: dict[str, int]
    masks: Path
    planted: Path


def write_sample_set(
    out: str | os.PathLike[str],
    spec: SampleSpec,
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SampleSet:
    """Write the sample set of ``spec`` into the folder ``out`` and return what was written.

    ``progress`` is called with (images done, images in all). Files do not depend on ``processes``; more than one needs a
    caller that can be imported (a script behind ``if __name__ == "__main__"``). Run again after an interruption, it draws
    only what is missing; a folder that holds anything else is refused.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_sample_set(folder, SampleSpec(space="binary", count=4, size=32)).images
    4
    """
    if processes < 1:
        raise DataError(f"processes {processes} is too small; give 1 or more")
    root, plan = Path(out), plan_sample_set(spec)
    with _disk_errors(root):
        _claim(root, spec)
        tasks = [(root, spec, image, plan.sources.get(image.source or "")) for image in plan.images]
        for folder in {
            (root / path).parent for image in plan.images for path in (image_path(spec, image), mask_path(spec, image))
        }:
            folder.mkdir(parents=True, exist_ok=True)
        for done, _ in enumerate(_results(tasks, processes), start=1):
            if progress:
                progress(done, len(tasks))
        for name, text in tables(spec, plan).items():
            _write(root / name, text.encode())
    return _summary(root, spec, plan)


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place, why = error.filename or root, error.strerror or type(error).__name__
        raise DataError(f"{place}: cannot be written ({why}); make room or choose another folder, then run again") from error
    except BrokenProcessPool as error:
        raise DataError(f"{root}: a drawing process was killed; run again with fewer processes, nothing is lost") from error


def _claim(root: Path, spec: SampleSpec) -> None:
    """Mark the folder as this set's; refuse one that holds another set or other files."""
    root.mkdir(parents=True, exist_ok=True)
    marker, wanted = root / SPEC_FILE, json.dumps(spec.as_json(), indent=1) + "\n"
    if marker.exists():
        if marker.read_text(encoding="utf-8", errors="replace") != wanted:
            raise DataError(f"{root}: holds a sample set of another spec; choose another folder or delete it")
        return
    strangers = sorted(entry.name for entry in root.iterdir() if entry.name != f"{SPEC_FILE}.part")
    if strangers:
        raise DataError(f"{root}: is not empty (it holds {strangers[0]!r}); choose a new or empty folder")
    _write(marker, wanted.encode())


def _results(tasks: list[Task], processes: int) -> Iterator[None]:
    if processes == 1:
        yield from starmap(_write_image, tasks)
        return
    # Spawned, not forked: a caller with threads (torch, a web server) must not hand its locks down.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_write_image, *zip(*tasks, strict=True), chunksize=_CHUNK)


def _write_image(root: Path, spec: SampleSpec, image: PlannedImage, source: Source | None) -> None:
    picture_file, mask_file = root / image_path(spec, image), root / mask_path(spec, image)
    # The picture is written last: where it exists, its mask does too.
    if picture_file.exists() and mask_file.exists():
        return
    picture, mask = encode_planned(spec, image, source)
    _write(mask_file, mask)
    _write(picture_file, picture)


def _write(path: Path, content: bytes) -> None:
    """Write aside and rename, so that a file that is there is whole."""
    aside = path.with_name(f"{path.name}.part")
    aside.write_bytes(content)
    aside.replace(path)


def _summary(root: Path, spec: SampleSpec, plan: SamplePlan) -> SampleSet:
    return SampleSet(
        root=root,
        images=len(plan.images),
        lesions=len({image.lesion_id for image in plan.images}),
        labels=dict(Counter(image.label for image in plan.images)),
        masks=root / mask_folder(spec),
        planted=root / "planted.json",
    )
