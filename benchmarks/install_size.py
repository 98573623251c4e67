"""Say what each extra of the package takes on disk, of the libraries installed here: ``python benchmarks/install_size.py``.

A row holds everything that ``pip install 'lesion-hub[EXTRA]'`` brings, dependencies of dependencies included, as files are
recorded by the installer. PyTorch and the CUDA libraries that come with it are shown apart: of the CPU build there are none.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("", "data", "train", "app", "onnx", "transformers", "all")
OF_TORCH = ("torch", "triton", "nvidia-", "cuda-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    rows = {}
    for extra in EXTRAS:
        found = closure("lesion-hub", {extra})
        sizes = {name: megabytes(package) for name, package in found.items() if name != "lesion-hub"}
        torch = sum(size for name, size in sizes.items() if name.startswith(OF_TORCH) and name != "torchvision")
        rows[extra or "(none)"] = {
            "packages": len(sizes),
            "torch_mb": round(torch),
            "rest_mb": round(sum(sizes.values()) - torch),
        }
    if as_json:
        print(json.dumps(rows))
        return
    for extra, row in rows.items():
        print(f"{extra:>13} {row['packages']:4} packages {row['rest_mb']:6} MB, and PyTorch's {row['torch_mb']} MB")


def closure(name: str, extras: set[str]) -> dict[str, Distribution]:
    """Collect what a package with these extras needs, by canonical name; what is not installed is left out."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(name, extra) for extra in {"", *extras}]
    while waiting:
        name, extra = waiting.pop()
        name = canonicalize_name(name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            package = found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed.name, wanted) for wanted in {"", *needed.extras}]
    return found


def megabytes(package: Distribution) -> float:
    """Add up the package's recorded files."""
    return sum(file.size or 0 for file in package.files or ()) / 1e6


if __name__ == "__main__":
    main()
