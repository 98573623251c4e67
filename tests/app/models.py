"""A registry with a trio of tiny models, and uploads that carry what must never come out again."""

from __future__ import annotations

import json
import os
from io import BytesIO
from pathlib import Path

from PIL import Image

from lesion_hub.app import AppOptions
from lesion_hub.config import OperatingPoint
from lesion_hub.evaluation import plots
from lesion_hub.hub import store
from lesion_hub.hub.format import write_model
from lesion_hub.inference.ensemble import create_ensemble
from tests.hub.publishable import TRAINING, write_folder
from tests.inference.networks import classifier, picture

GOLDEN = Path(__file__).parents[1] / "hub" / "golden_card" / "metrics.json"
CAMERA = "SECRET-CAMERA-7"
POINTS = {
    "sensitivity_90": OperatingPoint(threshold=0.21, metric="sensitivity", target=0.9),
    "specificity_95": OperatingPoint(threshold=0.61, metric="specificity", target=0.95),
}
CARD = """---
license: cc-by-nc-4.0
---

# Card of {name}

**Not a medical device.** See a doctor.

<script>window.broken = 1</script>

![Reliability](plots/reliability_test.png) ![outside](../../../outside.png) ![else](https://example.org/x.png)

[bad](javascript:alert(1))
"""


def write_registry(root: Path, work: Path) -> Path:
    """``trio`` of ``one``, ``two`` and ``three``, and ``aware``, which takes age, sex and site; all v1.0.0."""
    for seed, (name, options) in enumerate({"one": {}, "two": {}, "three": {}, "aware": {"metadata": True}}.items()):
        folder = write_folder(work / name, seed)
        write_model(folder, classifier(seed=seed, **options), training=TRAINING, temperature=1.0, operating_points=POINTS)
        _publish(folder, name, root)
    create_ensemble(work / "trio", ["one", "two", "three"], operating_points=POINTS, registry=root)
    _publish(work / "trio", "trio", root)
    return root


def _publish(folder: Path, name: str, root: Path) -> None:
    (folder / "metrics.json").write_text(GOLDEN.read_text(encoding="utf-8"))
    (folder / "README.md").write_text(CARD.format(name=name))
    (folder / "plots").mkdir()
    drawn = plots.reliability_diagram(*_judged())
    (folder / "plots" / "reliability_test.png").write_bytes(drawn)
    store.publish(folder, name, version="1.0.0", notes="First.", registry=root)


def _judged() -> tuple[list[list[float]], list[int]]:
    return [[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9]], [0, 1, 1, 1]


def options_over(registry: Path, **changed: object) -> AppOptions:
    return AppOptions.of(**{"models": ("trio", "aware"), "registry": registry, "device": "cpu", **changed})


def photograph(seed: int = 0, size: tuple[int, int] = (160, 120)) -> bytes:
    """A JPEG as a phone takes it: with a camera's name and the place."""
    exif = Image.Exif()
    exif[0x010F] = CAMERA
    place = exif.get_ifd(0x8825)
    place[1], place[2] = "N", (52.0, 31.0, 12.0)
    stream = BytesIO()
    picture(size[1], size[0], seed).save(stream, "JPEG", quality=90, exif=exif, comment=CAMERA.encode())
    assert CAMERA.encode() in stream.getvalue()
    return stream.getvalue()


def metadata_in(content: bytes) -> list[str]:
    """What an image file carries beside its pixels."""
    image = Image.open(BytesIO(content))
    found = [key for key in ("exif", "comment", "icc_profile", "xmp") if image.info.get(key)]
    return found + [str(value) for value in dict(image.getexif()).values()]


def as_json(value: object) -> str:
    return json.dumps(value, default=str)


def files_on_disk() -> list[Path]:
    """What lies in the folder that Gradio would keep files in."""
    return [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]
