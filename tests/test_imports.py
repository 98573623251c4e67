"""The walls: which part may import which, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lesion_hub"

FLOOR = {"errors", "extras", "files", "progress", "diagnosis_names", "taxonomy", "config"}
ALLOWED = {
    "errors": set(),
    "extras": {"errors"},
    "files": {"errors"},
    "progress": set(),
    "diagnosis_names": set(),
    "taxonomy": {"errors", "diagnosis_names"},
    "config": {"errors", "taxonomy", "files"},
    "data": FLOOR,
    "models": FLOOR,
    "hub": FLOOR | {"data", "models"},
    "inference": FLOOR | {"data", "models", "hub"},
    "evaluation": FLOOR | {"data", "models", "hub", "inference"},
    "app": FLOOR | {"data", "models", "hub", "inference", "evaluation"},
    "score": FLOOR | {"data", "models", "hub", "inference"},
    "cli": FLOOR | {"data", "models", "hub", "inference", "evaluation", "app"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, above_functions: bool = False) -> set[str]:
    """Modules that a file imports, wherever in it, TYPE_CHECKING blocks aside (they are never run).

    ``above_functions`` leaves out what is imported inside functions, when they are called.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if (isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING")
        or (above_functions and isinstance(block, ast.FunctionDef))
        for node in ast.walk(block)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_arrow_against_the_design(path):
    parts = module_name(path).split(".")
    if len(parts) == 1:
        return  # the package itself imports lazily
    room = parts[1]
    reached = {name.split(".")[1] for name in imported(path) if name.startswith("lesion_hub.")}
    rooms = {r for r in reached if r in ALLOWED} - {room}
    assert rooms <= ALLOWED[room], f"{room} must not import {sorted(rooms - ALLOWED[room])}"


OUTSIDE = ("training", "spaces", "tests", "benchmarks", "lesion_hub.training")


def outside(path: Path, *, above_functions: bool = False) -> set[str]:
    """What a file of the library imports from outside it."""
    names = imported(path, above_functions=above_functions)
    return {name for name in names if any(name == room or name.startswith(f"{room}.") for room in OUTSIDE)}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_the_library_never_imports_training_or_spaces(path):
    """But for the commands that train, which import training when they run."""
    if path == PACKAGE / "cli" / "train.py":
        assert {name.split(".")[1] for name in outside(path)} == {"training"}
        assert not outside(path, above_functions=True)
    else:
        assert not outside(path)


def test_there_is_no_import_cycle():
    modules = {module_name(path): path for path in FILES}
    graph = {}
    for name, path in modules.items():
        targets = {m for m in imported(path) if m in modules and m != name}
        # `from package import submodule` names both; the package's own __init__ is only an arrow if it is outside
        graph[name] = {t for t in targets if not name.startswith(t + ".")}
    tuple(TopologicalSorter(graph).static_order())


def test_importing_the_commands_does_not_import_training():
    code = "import lesion_hub, lesion_hub.cli, sys; sys.exit('lesion_hub.training' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_imports_neither_torch_nor_datasets():
    code = "import lesion_hub, sys; sys.exit(bool({'torch', 'datasets', 'transformers', 'timm', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loading_a_model_imports_nothing_that_only_data_maps_and_cards_need():
    unwanted = {"pandas", "datasets", "transformers", "sklearn", "matplotlib", "captum", "jinja2", "gradio"}
    code = f"import lesion_hub, sys; lesion_hub.from_pretrained; sys.exit(' '.join({unwanted} & set(sys.modules)) or None)"
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert not found.returncode, found.stderr


def test_every_public_name_resolves():
    import lesion_hub

    for name in lesion_hub.__all__:
        assert getattr(lesion_hub, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lesion_hub.no_such_name
