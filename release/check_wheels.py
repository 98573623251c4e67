"""Check that all we depend on has wheels for every Python promised: ``python release/check_wheels.py``; needs uv.

Nothing is installed: uv resolves setup.cfg's requirements, the extras' too, newest and lowest, for each Python.
"""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LOWEST_FOR = ("3.10", "3.11")  # the first versions of torch that we take know no newer Python
EXTRAS = ("data", "train", "app", "onnx", "search", "transformers")


def requirements() -> str:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    sections = [config["options"]["install_requires"], *(config["options.extras_require"][name] for name in EXTRAS)]
    return "\n".join(line for text in sections for line in text.split("\n") if line and not line.startswith("lesion-hub"))


def resolves(python: str, resolution: str) -> bool:
    command = [
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--only-binary",
        ":all:",
        "--python-version",
        python,
        "--resolution",
        resolution,
        "-",
    ]
    done = subprocess.run(command, input=requirements(), capture_output=True, text=True, check=False)
    print(f"Python {python}, {resolution}: {'wheels for all' if done.returncode == 0 else done.stderr.strip()}")
    return done.returncode == 0


if __name__ == "__main__":
    asked = [(python, "highest") for python in PYTHONS] + [(python, "lowest-direct") for python in LOWEST_FOR]
    sys.exit(0 if not [pair for pair in asked if not resolves(*pair)] else 1)
