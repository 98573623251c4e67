"""Check a release's files: ``python release/check_dist.py dist``; ``make dist`` builds them first.

The sdist holds what it should and nothing that a command made; a wheel built from it again holds the same files, byte for byte.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

IN_WHEEL = (
    "lesion_hub/py.typed",
    "lesion_hub/models/families.json",
    "lesion_hub/app/style.css",
    "lesion_hub/_model_cards/card.md.jinja",
    "lesion_hub/_space/app.py",
    "lesion_hub/_browser/index.html.jinja",
    "lesion_hub/training/recipes/ham10000_default.yaml",
)
IN_SDIST = (
    "LICENSE",
    "CITATION.cff",
    "CHANGELOG.md",
    "README.md",
    "setup.cfg",
    "pyproject.toml",
    "docs/conf.py",
    "tests/conftest.py",
)
NEVER = ("node_modules/", "/runs/", "/demo/", "/site/", ".venv", "__pycache__", ".lock", ".doctrees", "/cache/images")
# Written by every build anew; RECORD follows from the others.
OF_THE_BUILD = ("WHEEL", "RECORD")


def files_of_wheel(path: Path) -> dict[str, str]:
    """The sha256 of each file."""
    with zipfile.ZipFile(path) as wheel:
        return {name: hashlib.sha256(wheel.read(name)).hexdigest() for name in wheel.namelist() if not name.endswith("/")}


def files_of_sdist(path: Path) -> set[str]:
    with tarfile.open(path) as sdist:
        return {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}


def problems_of(wheel: dict[str, str], sdist: set[str]) -> list[str]:
    """What is missing or should not be there, a line each."""
    licensed = any(name.endswith("LICENSE") and ".dist-info/" in name for name in wheel)
    missing = [f"the wheel lacks {name}" for name in IN_WHEEL if name not in wheel]
    missing += [f"the sdist lacks {name}" for name in IN_SDIST if name not in sdist]
    missing += [] if licensed else ["the wheel lacks its licence"]
    if not any(name.startswith("lesion_hub/_registry/") and name.endswith("model.safetensors") for name in wheel):
        missing.append("the wheel lacks the shipped models")
    extra = [f"should not be there: {name}" for name in sorted({*wheel, *sdist}) if any(word in f"/{name}" for word in NEVER)]
    outside = sorted({name.split("/")[0] for name in wheel if not name.startswith("lesion_hub")})
    return missing + extra + [f"the wheel installs {name} beside lesion_hub" for name in outside]


def rebuilt(sdist: Path) -> dict[str, str]:
    """The files of the wheel that the sdist builds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, str(sdist)]
        subprocess.run(command, check=True)
        return files_of_wheel(next(Path(folder).glob("*.whl")))


def main(folder: Path) -> int:
    wheel_path, sdist_path = next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))
    wheel, sdist = files_of_wheel(wheel_path), files_of_sdist(sdist_path)
    problems = problems_of(wheel, sdist)
    again = rebuilt(sdist_path)
    differing = [name for name in sorted({*wheel, *again}) if wheel.get(name) != again.get(name)]
    problems += [f"differs when built again: {name}" for name in differing if not name.endswith(OF_THE_BUILD)]
    for line in problems:
        print(line, file=sys.stderr)
    if not problems:
        print(f"{wheel_path.name}: {len(wheel)} files; {sdist_path.name}: {len(sdist)} files; the same wheel built again")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
