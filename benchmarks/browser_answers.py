"""Compare the page's answers in a browser with ``predict``'s: ``python benchmarks/browser_answers.py --json``.

Chromium opens the static page of a model from a server of plain files on this machine, a worker of the page answers each
picture, and the library answers the same file, on the engine that users get:

    largest_difference   of any probability in any picture, and largest_in says in which; below 0.005 is asked for
    gate_difference      the largest of the input gate's score, None where the model has no gate
    equal_labels         share of the pictures with the same most probable label
    equal_verdicts       the same for the input gate's verdict, equal_sets for the label set, equal_flags for the quality flags,
                         equal_silence for whether the model abstains
    ties                 pictures where one of these differs and Python's own figures lie within the 0.005 of where it turns
    heat_median          correlation of the heat maps of the same label; 0.98 is asked for of heat_least, that of heat_least_in
    constant_maps        pictures whose maps have nothing to correlate, since both are the same everywhere
    missed               the pictures that miss what is asked for, and how

Pictures are drawn: seven sizes, as JPEG, progressive, turned by its EXIF orientation, PNG, transparent PNG and WebP; or, with
``--images``, those of a folder, evenly spaced in the order of their names. Ends with status 1 where anything is missed.
Needs Chromium, Playwright's Python package, and the files of ONNX Runtime Web (``--runtime``, else npm fetches them).
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from browser import chromium, opened
from PIL import Image
from playwright.sync_api import Error, Page

import lesion_hub
from lesion_hub.app.static_page import MANIFEST_NAME, write_static_page
from lesion_hub.app.static_server import served_files
from lesion_hub.data.images import IMAGE_SUFFIXES
from lesion_hub.data.synthetic import APPEARANCES, draw_lesion
from lesion_hub.inference.results import HeatMap, Prediction

SAME = 0.005
"""How far a probability may be from Python's, and so how near a limit an answer may turn."""
LEAST_CORRELATION = 0.98
NOT_FOR_BROWSERS = {".tif", ".tiff", ".jp2", ".ppm"}

DIAGNOSES = tuple(APPEARANCES)
SIZES = ((600, 450), (450, 600), (48, 40), (97, 131), (1024, 768), (240, 900), (2048, 1536))
KINDS = ("baseline", "progressive", "turned", "opaque", "transparent", "webp")
LARGEST_DRAWN = 1024

START = """async () => {
    const source = `import ${JSON.stringify(new URL("worker.js", document.baseURI).href)};`;
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })), { type: "module" });
    self.asked = (kind, request) => new Promise((resolve, reject) => {
        worker.onerror = () => reject(new Error("the worker does not start"));
        worker.onmessage = ({ data }) => {
            if (!data.progress) return data.error ? reject(new Error(data.error)) : resolve(data.answer);
        };
        worker.postMessage({ id: 1, kind, ...request });
    });
    return self.asked("load");
}"""

# The map is read back from how much of the picture it covers, as it is shown.
ANSWER = """async ([content, name]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const { maps, picture, ...answer } = await self.asked("analyse", { file: new File([bytes], name) });
    picture?.close();
    if (!maps) return answer;
    const [height, width] = maps.size;
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(maps.layers[0].bitmap, 0, 0);
    maps.layers.forEach(({ bitmap }) => bitmap.close());
    const { data } = context.getImageData(0, 0, width, height);
    return { ...answer, map: { code: maps.code, size: maps.size, covers: Array.from(data).filter((_, i) => i % 4 === 3) } };
}"""


@dataclass(frozen=True)
class Compared:
    """One picture: how far apart the answers are, which parts differ, and which of those no tie explains."""

    name: str
    difference: float
    gate_difference: float | None
    differs: frozenset[str]
    no_tie: frozenset[str]
    correlation: float | None
    constant: bool = False

    @property
    def missed(self) -> list[str]:
        """What this picture misses of what is asked for."""
        found = sorted(self.no_tie)
        if not self.difference < SAME:
            found.append(f"a probability by {self.difference:.4f}")
        if self.correlation is not None and not self.correlation >= LEAST_CORRELATION:
            found.append(f"the map at {self.correlation:.4f}")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dermoscopy-trio", help="registry name, Hub id or folder")
    parser.add_argument("--engine", default="auto", help="what runs the networks of the library")
    parser.add_argument("--images", type=Path, help="folder of pictures; without it they are drawn")
    parser.add_argument("--count", type=int, default=200, help="how many pictures")
    parser.add_argument("--runtime", type=Path, help="folder with ONNX Runtime Web's files")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    model = lesion_hub.from_pretrained(options.model, engine=options.engine)
    with tempfile.TemporaryDirectory() as scratch:
        place, drawn = Path(scratch) / "page", Path(scratch) / "drawn"
        if options.images is None:
            drawn.mkdir()
            paths = draw_pictures(drawn, options.count)
        else:
            paths = spaced_pictures(options.images, options.count)
        write_static_page(model, place, runtime=options.runtime)
        facts = json.loads((place / MANIFEST_NAME).read_text())
        rows, refused = list[Compared](), dict[str, list[str]]()
        with served_files(place) as url, answering(url) as page:
            for done, path in enumerate(paths, 1):
                try:
                    seen = page.evaluate(ANSWER, [base64.b64encode(path.read_bytes()).decode(), path.name])
                except Error as error:
                    refused[path.name] = [error.message.splitlines()[0]]
                else:
                    rows.append(compared(model, facts, path, seen))
                print(f"\r{done} of {len(paths)} pictures", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    engine = " and ".join(sorted({"torch" if member.running is None else "ONNX Runtime" for member in model.members}))
    result = {"model": options.model, "engine": engine, "pictures": len(paths), **summary(rows, facts)}
    missed = refused | {row.name: row.missed for row in rows if row.missed}
    if options.json:
        print(json.dumps({**result, "missed": missed}, indent=2))
    else:
        lines = {**result, "missed": len(missed), **{f"  {name}": ", ".join(what) for name, what in missed.items()}}
        print("\n".join(f"{name:<20} {value}" for name, value in lines.items()))
    return 1 if missed or not rows else 0


# ------------------------------------------------------------------------------------------------ pictures


def draw_pictures(folder: Path, count: int) -> list[Path]:
    """Draw lesions of every diagnosis; the numbers of sizes and of kinds share no divisor, so each size meets each kind."""
    paths = []
    for number in range(count):
        size, kind = SIZES[number % len(SIZES)], KINDS[number % len(KINDS)]
        diagnosis, share = DIAGNOSES[number // len(KINDS) % len(DIAGNOSES)], min(1, LARGEST_DRAWN / max(size))
        pixels = draw_lesion(diagnosis, number, (round(share * size[0]), round(share * size[1]))).image
        name = f"{number:04d}_{kind}_{size[0]}x{size[1]}"
        paths.append(write_picture(folder / name, Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), kind, number))
    return paths


def write_picture(stem: Path, image: Image.Image, kind: str, number: int) -> Path:
    """Write one picture as a kind of file."""
    path = stem.with_suffix({"opaque": ".png", "transparent": ".png", "webp": ".webp"}.get(kind, ".jpg"))
    if kind == "transparent":
        fading = np.linspace(0, 255, image.width).astype(np.uint8)
        image.putalpha(Image.fromarray(np.tile(fading, (image.height, 1))))
    exif = Image.Exif()
    if kind == "turned":
        exif[0x0112] = 2 + number // len(KINDS) % 7  # each way of lying on a side or on the head
        image.save(path, quality=90, exif=exif)
    elif path.suffix == ".jpg":
        image.save(path, quality=90, progressive=kind == "progressive")
    else:
        image.save(path)
    return path


def spaced_pictures(folder: Path, count: int) -> list[Path]:
    """Choose pictures of a folder and of those inside, evenly spaced in the order of their names."""
    kinds = IMAGE_SUFFIXES - NOT_FOR_BROWSERS
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds)
    return paths[:: max(1, len(paths) // count)][:count]


# ------------------------------------------------------------------------------------------------ answers


@contextmanager
def answering(url: str) -> Iterator[Page]:
    """Open the page in Chromium, and start a worker of it that answers whoever asks."""
    with chromium() as browser:
        page = browser.new_page()
        opened(page, url)
        page.evaluate(START)
        yield page


def compared(model: lesion_hub.Predictor, facts: dict[str, Any], path: Path, seen: dict[str, Any]) -> Compared:
    """Have the library answer the file, and compare what the page ``seen`` of it."""
    own = model.predict(path, explain="gradcam")
    probabilities = np.array([own.probabilities[label] for label in model.labels])
    shown = np.array(seen["probabilities"])
    differs, near = set[str](), set[str]()
    if shown.argmax() != probabilities.argmax():
        differs.add("label")
        near |= {"label"} if probabilities.max() - probabilities[shown.argmax()] < 2 * SAME else set()
    if facts["label_sets"]:
        one, other = {model.labels[i] for i in seen["set"]}, set(own.label_set().labels)
        differs |= {"set"} if one != other else set()
        near |= {"set"} if all(turns(own, facts, model.labels.index(label)) for label in one ^ other) else set()
    gate_difference = None
    if facts["gate"] and own.scope:
        gate_difference = abs(seen["verdict"]["score"] - own.scope.score)
        differs |= {"verdict"} if seen["verdict"]["scope"] != own.scope.verdict else set()
        limits = (own.scope.refuse_below, own.scope.accept_from)
        near |= {"verdict"} if min(abs(own.scope.score - limit) for limit in limits) < SAME else set()
    if facts["abstention"] and own.doubt is not None:
        differs |= {"silence"} if seen["abstains"] != (own.doubt > facts["abstention"]["limit"]) else set()
        near |= {"silence"} if "set" in differs or abs(own.doubt - facts["abstention"]["limit"]) < SAME else set()
    if set(seen["flags"]) != set(own.flags):
        differs.add("flags")
    correlation, constant = None, False
    if own.heat is not None and list(own.heat.shape) != seen["size"]:
        differs.add("size")
    elif own.heat is not None and "map" in seen:
        code = seen["map"]["code"]
        label = own.explanation.label if own.explanation else None
        heat = own.heat if code == label else model.predict(path, explain="gradcam", target=code).heat
        assert heat is not None
        correlation, constant = likeness(seen["map"], heat)
    difference = float(np.abs(shown - probabilities).max())
    return Compared(
        path.name, difference, gate_difference, frozenset(differs), frozenset(differs - near), correlation, constant
    )


def turns(own: Prediction, facts: dict[str, Any], label: int) -> bool:
    """Whether a label is in or out of the set by no more than what is taken for the same."""
    least = facts["label_sets"]["least"][label]
    return least is not None and abs(list(own.probabilities.values())[label] - least) < SAME


def likeness(shown: dict[str, Any], heat: HeatMap) -> tuple[float | None, bool]:
    """Correlate the map on the page, enlarged to the picture, with the library's (H, W); of two constant ones nothing."""
    covers = np.asarray(shown["covers"], np.float32).reshape(shown["size"])
    height, width = heat.shape
    large = np.asarray(Image.fromarray((covers / 255) ** 2).resize((width, height), Image.Resampling.BILINEAR))
    flat = [not one.std() > 0 for one in (large, heat)]
    if any(flat):
        return (None, True) if all(flat) else (0.0, False)
    return float(np.corrcoef(large.ravel(), heat.ravel())[0, 1]), False


def summary(rows: list[Compared], facts: dict[str, Any]) -> dict[str, Any]:
    """Make one figure each of what the pictures have shown."""
    if not rows:
        return {}

    def equal(part: str) -> float:
        return round(sum(part not in row.differs for row in rows) / len(rows), 4)

    furthest = max(rows, key=lambda row: row.difference)
    heats = sorted((row.correlation, row.name) for row in rows if row.correlation is not None)
    gates = [row.gate_difference for row in rows if row.gate_difference is not None]
    return {
        "largest_difference": round(furthest.difference, 6),
        "largest_in": furthest.name,
        "median_difference": round(statistics.median(row.difference for row in rows), 6),
        "gate_difference": round(max(gates), 6) if gates else None,
        "equal_labels": equal("label"),
        "equal_verdicts": equal("verdict") if facts["gate"] else None,
        "equal_sets": equal("set") if facts["label_sets"] else None,
        "equal_silence": equal("silence") if facts["abstention"] else None,
        "equal_flags": equal("flags"),
        "ties": sum(bool(row.differs - row.no_tie) for row in rows),
        "heat_median": round(statistics.median(correlation for correlation, _ in heats), 5) if heats else None,
        "heat_least": round(heats[0][0], 5) if heats else None,
        "heat_least_in": heats[0][1] if heats else None,
        "constant_maps": sum(row.constant for row in rows),
    }


if __name__ == "__main__":
    sys.exit(main())
