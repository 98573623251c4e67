"""The page that needs no server: a folder of plain files, in which the visitor's own browser computes.

``spaces/lesion-browser`` holds the page's modules. To them come the model as one graph per member (`inference.pixel_graph`),
``model.json``, which says how their answers become one and in which words that is told, ONNX Runtime for browsers
(`app.web_runtime`) and pictures to try. Any static host will do for the folder.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lesion_hub import __version__
from lesion_hub.app import pictures, web_runtime, words
from lesion_hub.app.static_manifest import manifest
from lesion_hub.errors import StoreError
from lesion_hub.files import json_text, packaged_folder, require_new_folder, sha256_of_json, write_bytes
from lesion_hub.hub.layout import CARD_NAME
from lesion_hub.hub.space import PublishedSpace, pinned_parts, publish_static_space
from lesion_hub.inference import Predictor, from_pretrained
from lesion_hub.inference.pixel_graph import kept_pixel_graph
from lesion_hub.progress import Progress

MANIFEST_NAME, PAGE_NAME, WORKER_NAME = "model.json", "index.html", "service-worker.js"
GRAPHS, RUNTIME, EXAMPLES = "graphs", "runtime", "examples"
_WASM = f"{RUNTIME}/{web_runtime.WASM}"
_FACTS = "const PAGE = null; // filled in when the page is written"

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
"""What the page may load and where it may send anything: its own files, and nowhere."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What a host would best send with every file; where it cannot, the page's service worker adds it. Two permit threads."""


@dataclass(frozen=True)
class StaticPage:
    """A folder that was written: what it answers with, its files, and the bytes of the graphs and of the runtime."""

    folder: Path
    title: str
    files: tuple[str, ...]
    graph_bytes: int
    runtime_bytes: int


def packaged_page() -> Path:
    """Find the page's folder that comes with the package."""
    return packaged_folder("_browser", "spaces/lesion-browser")


def write_static_page(
    predictor: Predictor,
    folder: Path,
    *,
    runtime: Path | None = None,
    examples: Path | None = None,
    progress: Progress | None = None,
) -> StaticPage:
    """Write the page of a model into a new or empty folder; any host of files then serves it.

    Args:
        predictor: the model, in float32 on the CPU; of what takes patient metadata, the answer without any.
        folder: where the files go.
        runtime: folder with the files of `web_runtime`; None fetches them once from npm.
        examples: folder of pictures to try; None takes the packaged Space's.
        progress: called with (members done, members in all).
    """
    require_new_folder(folder)
    predictor = predictor.for_display()
    place = web_runtime.web_runtime(runtime)
    files: dict[str, bytes] = {f"{RUNTIME}/{name}": (place / name).read_bytes() for name in web_runtime.PINNED}
    graphs: list[dict[str, Any]] = []
    for done, member in enumerate(predictor.members):
        data = kept_pixel_graph(member, rounded=True)
        digest = hashlib.sha256(data).hexdigest()
        name = f"{GRAPHS}/{member.name.replace('/', '_')}-{digest[:12]}.onnx"
        files[name] = data
        graphs.append({"file": name, "sha256": digest, "bytes": len(data)})
        if progress:
            progress(done + 1, len(predictor.members))
    shown_pictures = _pictures(examples)
    files |= shown_pictures
    wasm = {"file": _WASM, "sha256": web_runtime.PINNED[web_runtime.WASM], "bytes": len(files[_WASM])}
    runtime_files = {"module": f"{RUNTIME}/{web_runtime.MODULE}", "glue": f"{RUNTIME}/{web_runtime.GLUE}", "wasm": wasm}
    facts = manifest(predictor, graphs, runtime_files)
    files[MANIFEST_NAME] = json_text(facts).encode()
    source = packaged_page()
    for path in sorted(source.iterdir()):
        if path.suffix in (".js", ".css") or path.name == CARD_NAME:
            files[path.name] = path.read_bytes()
    files[PAGE_NAME] = _page(facts, sorted(shown_pictures)).encode()
    files[WORKER_NAME] = _service_worker(files).encode()
    for name, content in files.items():
        write_bytes(folder / name, content)
    sizes = [sum(len(content) for name, content in files.items() if name.startswith(part)) for part in (GRAPHS, RUNTIME)]
    return StaticPage(folder, predictor.title, tuple(sorted(files)), *sizes)


def publish_static_page(
    name: str,
    model: str,
    *,
    runtime: Path | None = None,
    private: bool = False,
    registry: str | Path | None = None,
    token: str | None = None,
    engine: Literal["torch", "onnx-int8"] = "torch",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PublishedSpace:
    """Write the page of a published model and push it as a static Space; the same content makes no commit.

    With ``engine="onnx-int8"`` it computes in 8 bits, by the files that passed their gate.

    >>> publish_static_page("org/skin", "dermoscopy-trio@v2.0.0").location  # doctest: +SKIP
    'https://huggingface.co/spaces/org/skin'
    """
    parts = pinned_parts(model, registry=registry, token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "page"
        predictor = from_pretrained(parts[0].name, revision=parts[0].revision, registry=registry, token=token, engine=engine)
        write_static_page(predictor, folder, runtime=runtime, progress=progress)
        return publish_static_space(name, folder, parts, private=private, token=token, dry_run=dry_run)


# ------------------------------------------------------------------------------------------------ its files


def _page(facts: dict[str, Any], examples: Sequence[str]) -> str:
    """Render index.html from the page's template, and those of the Gradio page's that both use."""
    folders = [packaged_page(), Path(__file__).parent / "templates"]
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    titles = [(name, Path(name).stem.replace("_", " ")) for name in examples]
    return environment.get_template(f"{PAGE_NAME}.jinja").render(
        words=words, facts=facts, policy=POLICY, examples=titles, version=__version__
    )


def _service_worker(files: Mapping[str, bytes]) -> str:
    """Fill in what the service worker keeps for offline use, all but the large files, and the version that it is."""
    kept = sorted(name for name in files if not name.startswith(f"{GRAPHS}/") and name not in (CARD_NAME, _WASM))
    version = sha256_of_json({name: hashlib.sha256(files[name]).hexdigest() for name in kept})
    facts = {"version": version[:16], "files": [".", *kept], "headers": HEADERS}
    source = files[WORKER_NAME].decode()
    if source.count(_FACTS) != 1:
        raise StoreError(f"{packaged_page() / WORKER_NAME}: has no single {_FACTS!r}, where its facts go")
    return source.replace(_FACTS, f"const PAGE = {json.dumps(facts, indent=2)};")


def _pictures(folder: Path | None) -> dict[str, bytes]:
    """Read the pictures to try, as JPEGs."""
    return {f"{EXAMPLES}/{one.title.replace(' ', '_')}.jpg": one.content for one in pictures.examples(folder)}
