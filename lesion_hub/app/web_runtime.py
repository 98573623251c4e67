"""ONNX Runtime for browsers: three files of a pinned version, fetched from npm once, and refused unless they are those pinned.

They are 14 MB, most of it WebAssembly, and so travel neither in the repository nor in the wheel.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lesion_hub.errors import ConfigError, StoreError, one_line
from lesion_hub.files import cache_root, sha256_of, write_bytes

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
MODULE, GLUE, WASM = "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
PINNED: Mapping[str, str] = MappingProxyType(
    {
        MODULE: "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        GLUE: "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
        WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    }
)
"""The sha256 of every file: of the API, of what loads the WebAssembly, and of the WebAssembly, with SIMD and threads."""

_SECONDS = 300


def web_runtime(folder: Path | None = None) -> Path:
    """Find the runtime's files: in ``folder``, else in the cache, else fetched from npm into the cache."""
    if folder is not None:
        place = next((place for place in (folder, folder / "dist") if (place / WASM).is_file()), folder)
        _require_pinned(place)
        return place
    place = cache_root() / f"{PACKAGE}-{VERSION}"
    if any(not (place / name).is_file() for name in PINNED):
        _fetch(place)
    _require_pinned(place)
    return place


def _require_pinned(place: Path) -> None:
    for name, expected in PINNED.items():
        path = place / name
        if not path.is_file():
            raise StoreError(f"{path}: missing; --runtime names the folder dist/ of {PACKAGE} {VERSION}")
        if sha256_of(path) != expected:
            raise StoreError(f"{path}: is not that of {PACKAGE} {VERSION}; remove it, or name another folder with --runtime")


def _fetch(place: Path) -> None:
    """Have npm fetch the package, and keep the three files."""
    npm = shutil.which("npm")
    wanted = f"{PACKAGE}@{VERSION}"
    if npm is None:
        raise ConfigError(f"npm is not installed, which fetches {wanted}; install it, or name a folder of its files: --runtime")
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", wanted, "--silent", "--pack-destination", scratch]
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StoreError(f"npm could not fetch {wanted} ({one_line(error)[:200]}); try again, or use --runtime") from None
        packed = sorted(Path(scratch).glob("*.tgz"))
        if done.returncode or not packed:
            reason = one_line(done.stderr or "no reason given")[:200]
            raise StoreError(f"npm could not fetch {wanted} ({reason}); try again, or use --runtime")
        with tarfile.open(packed[0]) as archive:
            for name in PINNED:
                try:
                    stream = archive.extractfile(f"package/dist/{name}")
                except KeyError:
                    stream = None
                if stream is None:
                    raise StoreError(f"{wanted}: has no dist/{name}; it is not the pinned version")
                write_bytes(place / name, stream.read())
