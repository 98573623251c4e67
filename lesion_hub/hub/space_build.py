"""How a Space is built on its machine: the package travels within it, and requirements.txt names the public packages it needs.

The builder of Gradio Spaces installs requirements.txt before it copies the repo, so that a wheel in the repo would not be there
yet; and a private Space's wheel has no address that its build could fetch it from. A folder beside ``app.py`` needs no
installing, is in every duplicate, and is the version that the Space was published with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from lesion_hub import __version__
from lesion_hub.errors import StoreError
from lesion_hub.hub.release import Content

PACKAGE = "lesion_hub"
"""Folder of a Space that holds the package."""

DOCKERFILE = "Dockerfile"
PORT = 7860
CPU_TORCH = "--extra-index-url https://download.pytorch.org/whl/cpu"
ZERO_GPU_PYTHON = "3.10.13"
"""The Python that ZeroGPU, which has builds of PyTorch of its own, takes."""

_PROJECT = "lesion-hub"
_WRITTEN = "# Written by lesion-hub publish-space"
# Folders of the checkout that travel inside the wheel: training, and what `files.packaged_folder` finds. A page needs none.
_GUESTS = frozenset({"training", "_registry", "_model_cards", "_space", "_browser"})
_SUFFIXES = frozenset({".py", ".typed", ".jinja", ".yaml", ".json", ".css", ".js"})
_EXTRA = re.compile(r"""(?:\s*and\s*)?extra\s*==\s*["'][\w.-]+["']""")


def package_files() -> Content:
    """List the package as a wheel of it installs it, without training and the models, and with its licence.

    >>> package_files()["lesion_hub/app/serving.py"].name
    'serving.py'
    """
    package = Path(__file__).resolve().parents[1]
    names = (path.relative_to(package) for path in sorted(package.rglob("*")) if path.suffix in _SUFFIXES and path.is_file())
    files: Content = {
        f"{PACKAGE}/{name.as_posix()}": package / name
        for name in names
        if name.parts[0] not in _GUESTS and not any(part.startswith(".") for part in name.parts)
    }
    installed = _installed()
    licence = next((file for file in installed.files or () if file.name == "LICENSE"), None)
    if licence is None:
        raise StoreError(f"{_PROJECT}: its installation holds no LICENSE, which goes where its code goes; install it anew")
    files[f"{PACKAGE}/LICENSE"] = Path(str(licence.locate()))
    return files


def is_for_cpu(hardware: str) -> bool:
    """Tell whether a flavour of hardware has no GPU: ``cpu-basic``, ``cpu-upgrade``."""
    return hardware.startswith("cpu-")


def is_zero_gpu(hardware: str) -> bool:
    """Tell whether a flavour lends a GPU for each call: ``zero-a10g``."""
    return hardware.startswith("zero-")


def requirements(hardware: str, gradio: str | None = None) -> list[str]:
    """List what a page needs of the public packages, from the package's own metadata, with the bounds that stand there.

    Args:
        hardware: flavour of the Space; ZeroGPU needs the package ``spaces`` too.
        gradio: the exact version of Gradio, which is the one that the page was tested with.

    >>> requirements("cpu-basic", "6.31.0")[:2]
    ['torch>=2.4', 'torchvision>=0.19']
    """
    needed = list(dict.fromkeys(_needed(_installed(), "app")))
    if is_zero_gpu(hardware):
        needed.append("spaces")
    if gradio is None:
        return needed
    bounds = next(Requirement(line).specifier for line in needed if Requirement(line).name == "gradio")
    if gradio not in bounds:
        raise StoreError(f"README.md: sdk_version {gradio} is not in {bounds}, which lesion-hub {__version__} needs; change it")
    return [f"gradio=={gradio}" if Requirement(line).name == "gradio" else line for line in needed]


def requirements_text(needed: list[str], hardware: str, own: Path | None = None) -> str:
    """Return requirements.txt: what the package needs, with PyTorch's CPU build for a CPU, and then the lines of ``own``.

    ``own`` is the file of a Space of somebody's own, for what its ``app.py`` imports; one that was written here is left out.
    """
    lines = [
        f"{_WRITTEN}: what lesion-hub {__version__} needs, which is in the folder {PACKAGE}.",
        *(
            [f"# Of PyTorch the CPU build: on a GPU take this line out ({hardware} has none).", CPU_TORCH]
            if is_for_cpu(hardware)
            else []
        ),
        *needed,
    ]
    text = own.read_text(encoding="utf-8") if own is not None and own.is_file() else ""
    if text.strip() and not text.startswith(_WRITTEN):
        if any(_names_us(line) for line in text.splitlines()):
            raise StoreError(f"{own}: names {_PROJECT}, which travels within the Space; take that line out")
        lines += ["# Of this Space's own:", *text.splitlines()]
    return "\n".join(lines) + "\n"


def dockerfile(python: str) -> str:
    """Return a Dockerfile for the same files: it runs as the user that Docker Spaces run as, and on any other machine."""
    return f"""\
# The page of lesion-hub {__version__}. Elsewhere: docker build -t skin . && docker run -p {PORT}:{PORT} skin
FROM python:{python}-slim

RUN useradd --create-home --uid 1000 user
USER 1000
ENV HOME=/home/user \\
    PATH=/home/user/.local/bin:$PATH \\
    PYTHONUNBUFFERED=1 \\
    GRADIO_SERVER_NAME=0.0.0.0 \\
    GRADIO_SERVER_PORT={PORT}
WORKDIR /home/user/app

# Before all else, so that a change to the page or a model installs nothing again.
COPY --chown=1000 requirements.txt ./
RUN pip install --no-cache-dir --user -r requirements.txt

COPY --chown=1000 . ./
EXPOSE {PORT}
CMD ["python", "app.py"]
"""


def _installed() -> Distribution:
    """Find the package's metadata; those of another version than the code's are refused."""
    try:
        found = distribution(_PROJECT)
    except PackageNotFoundError:
        raise StoreError(
            f"{_PROJECT} is not installed, so that nothing says what it needs; pip install it, and run it again"
        ) from None
    if found.version != __version__:
        raise StoreError(f"{_PROJECT} {found.version} is installed and {__version__} runs; install it anew (pip install -e .)")
    return found


def _needed(package: Distribution, *extras: str) -> Iterator[str]:
    """Yield the requirements of the package and of its ``extras``, and of extras that those name; other markers stay."""
    for line in package.requires or ():
        wanted = Requirement(line)
        if wanted.marker is not None and "extra" in str(wanted.marker):
            if not any(wanted.marker.evaluate({"extra": extra}) for extra in extras):
                continue
            rest = _EXTRA.sub("", str(wanted.marker)).strip()
            line = line.split(";")[0].strip() + (f"; {rest}" if rest else "")
        if canonicalize_name(wanted.name) == _PROJECT:
            yield from _needed(package, *wanted.extras)
        else:
            yield line


def _names_us(line: str) -> bool:
    try:
        return canonicalize_name(Requirement(line.split("#")[0].strip()).name) == _PROJECT
    except InvalidRequirement:  # an option of pip, a comment, an empty line
        return False
