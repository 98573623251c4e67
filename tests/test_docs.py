"""The documents hold: README's commands run in order, every command named parses, every link and name leads somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from lesion_hub import __version__
from lesion_hub.cli import app
from lesion_hub.training import train
from lesion_hub.training.recipe_files import load_recipe, read_yaml, shipped_recipes
from tests.fenced_blocks import REASONS, RUN, Block, blocks_of, commands_in, prose_of
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *(page for room in ("docs", "model_cards", "spaces/*") for page in sorted(ROOT.glob(f"{room}/*.md"))),
]
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
TO_RUN = [block for block in blocks_of(README) if block.runs]
BLOCK_SECONDS = 540
# What README's commands need of the checkout; all else there is large, or made by commands.
COPIED = ("lesion_hub", "training", "registry", "model_cards", "spaces", "examples", "benchmarks", "docs")


# ------------------------------------------------------------------------------------------------ README's blocks run


class Scratch:
    """A copy of the checkout in which README's blocks run in order, each in a shell of its own."""

    def __init__(self, folder: Path, blocks: list[Block], seconds: float = BLOCK_SECONDS) -> None:
        self.checkout = folder / "checkout"
        for name in COPIED:
            shutil.copytree(ROOT / name, self.checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.programs = _programs(folder / "bin")
        self.home = folder / "home"
        self.home.mkdir()
        self.blocks = blocks
        self.seconds = seconds
        self.done = 0
        self.broken: Block | None = None

    def run_through(self, last: int) -> None:
        """Run what comes before block ``last`` and has not run yet, then that block; nothing after one that failed."""
        if self.broken is not None:
            pytest.skip(f"{self.broken} failed before")
        for place in range(self.done, last + 1):
            self.broken = self.blocks[place]
            self._run(self.broken)
            self.broken, self.done = None, place + 1

    def _run(self, block: Block) -> None:
        interpreter = ["python", "-"] if block.language == "python" else ["bash", "-euo", "pipefail", "-s"]
        process = subprocess.Popen(
            interpreter,
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(block.text, timeout=self.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what the block started must not outlive it
            output, _ = process.communicate()
            raise AssertionError(f"{block} ran over {self.seconds} s\n{block.text}\n{output}") from None
        assert process.returncode == 0, f"{block} ended with status {process.returncode}\n{block.text}\n{output}"
        assert (block.prints or "") in output, f"{block} printed something else than the page shows\n{output}"

    @property
    def environment(self) -> dict[str, str]:
        """That of the tests, their one thread included, but offline and with homes and caches of its own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LESION_HUB_", "PYTHON"))}
        return {
            **kept,
            "PATH": f"{self.programs}{os.pathsep}{kept['PATH']}",
            "PYTHONPATH": str(self.checkout),
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "huggingface"),
            "HF_HUB_OFFLINE": "1",
            "LESION_HUB_CACHE": str(self.home / "cache"),
            "COLUMNS": "120",
        }


def _programs(folder: Path) -> Path:
    """Commands that run in the environment of the tests, whatever PATH holds."""
    folder.mkdir()
    starts = {
        "python": "",
        "python3": "",
        "lesion-hub": "-c 'from lesion_hub.cli import main; main()'",
        "accelerate": "-m accelerate.commands.accelerate_cli",
        "torchrun": "-m torch.distributed.run",
    }
    for name, arguments in starts.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("readme"), TO_RUN)


@pytest.mark.slow
@pytest.mark.timeout(BLOCK_SECONDS + 60)
@pytest.mark.parametrize("place", range(len(TO_RUN)), ids=[str(block) for block in TO_RUN])
def test_blocks_of_the_readme_run_in_order(place: int, scratch: Scratch) -> None:
    scratch.run_through(place)


@pytest.mark.slow
def test_the_blocks_about_a_network_trained_elsewhere_run_in_order(tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(ROOT / "docs" / "publish.md") if block.runs and "elsewhere/" in block.text]
    assert [block.language for block in blocks] == ["bash", "python", "bash"]
    Scratch(tmp_path, blocks).run_through(len(blocks) - 1)


def test_a_block_that_fails_shows_its_output(tmp_path: Path) -> None:
    page = "```python\nprint('so far')\n```\n\n```bash\nlesion-hub info nothing-of-that-name\n```\n\n```bash\ntrue\n```\n"
    scratch = Scratch(tmp_path, blocks_of(tmp_path / "page.md", page))
    scratch.run_through(0)
    with pytest.raises(AssertionError, match=r"(?s)page\.md:5 ended with status 1.*nothing-of-that-name"):
        scratch.run_through(1)
    with pytest.raises(pytest.skip.Exception, match=r"page\.md:5 failed before"):
        scratch.run_through(2)


def test_a_block_that_hangs_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, blocks_of(tmp_path / "page.md", "```bash\necho begun\nsleep 600 | cat\n```\n"), seconds=2)
    with pytest.raises(AssertionError, match=r"(?s)page\.md:1 ran over 2 s.*begun"):
        scratch.run_through(0)


# ------------------------------------------------------------------------------------------------ markers


def test_a_marker_counts_only_directly_above_its_block() -> None:
    page = (
        "<!-- not run: needs GPUs -->\n```bash\na\n```\n\n<!-- not run: needs GPUs -->\n\n```bash\nb\n```\n```yaml\nc: 1\n```\n"
    )
    assert [(block.reason, block.runs) for block in blocks_of(Path("page.md"), page)] == [
        ("needs GPUs", False),
        (None, True),
        (None, False),
    ]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_reasons_are_known_and_every_marker_has_its_block(page: Path) -> None:
    marked = [block for block in blocks_of(page) if block.reason is not None]
    assert {block.reason for block in marked} <= set(REASONS)
    assert len(marked) == page.read_text(encoding="utf-8").count("\n<!-- not run:")


def test_contributing_lists_the_reasons() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    assert [reason for reason in REASONS if f"`{reason}`" not in text] == []


def test_only_commands_are_marked() -> None:
    assert [str(block) for block in BLOCKS if block.reason and block.language not in RUN] == []


# ------------------------------------------------------------------------------------------------ commands parse


def check_lesion_hub(words: list[str], *, whole: bool) -> None:
    """The sub-command and its options exist; of a ``whole`` command everything parses."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"{' '.join(words)}: there is no {rest[0]!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    given = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    assert given <= known, f"{' '.join(words)}: no {sorted(given - known)}"
    if whole and "--help" not in rest:
        command.make_context(command.name, list(rest))


def check_training(words: list[str]) -> None:
    """The options exist, and a recipe given by name is a shipped one that takes what is set."""
    arguments, unknown = train.parser().parse_known_args(words)
    assert [word for word in unknown if word.startswith("--") and word not in SEARCH_OPTIONS] == [], words
    if Path(arguments.recipe).suffix != ".yaml":
        assert arguments.recipe in shipped_recipes()
        load_recipe(arguments.recipe, arguments.set)


# What cross_validate.py, search.py and find_lr.py take beside train.py's own.
SEARCH_OPTIONS = ("--folds", "--space", "--vary", "--trials", "--sampler", "--prune", "--json", "--steps", "--picture")
TRAINERS = re.compile(r"training[./](train|cross_validate|search|find_lr)(\.py)?")
SCRIPT = re.compile(r"(training|benchmarks|examples|spaces)/.*\.(py|sh)")


def check_command(words: list[str], *, whole: bool = True) -> None:
    if "…" in " ".join(words):
        words, whole = [word for word in words if "…" not in word], False
    if words[:1] == ["lesion-hub"] and words[1:2] in (["train"], ["cross-validate"], ["search"], ["find-lr"]):
        if "--recipe" in words:
            check_training(words[2:])
    elif words[0] == "lesion-hub":
        optional = any(set("[]") & set(word) for word in words)
        check_lesion_hub([word.strip("[]") for word in words], whole=whole and not optional)
    for place, word in enumerate(words):
        if TRAINERS.fullmatch(word) and "--recipe" in words:
            check_training(words[place + 1 :])
        if SCRIPT.fullmatch(word):
            assert (ROOT / word).is_file(), f"{word} is not there"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in ("bash", "sh")], ids=str)
def test_commands_in_blocks_parse(block: Block) -> None:
    for words in commands_in(block.text):
        check_command(words)


MADE_BY = re.compile(r"(?:--(?:out|to|overlay|registry)|data sample) ([\w.-][\w./-]*)")


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a git checkout")
def test_git_ignores_what_the_commands_of_the_pages_make() -> None:
    made = {match.rstrip("/") for block in BLOCKS for match in MADE_BY.findall(block.text) if block.language in RUN} | {"audit"}
    assert "my-images" in made
    told = subprocess.run(
        ["git", "check-ignore", "--stdin", "--no-index"],
        input="\n".join(f"{path}/x" for path in made),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    ignored = {line.removesuffix("/x") for line in told.stdout.splitlines()}
    assert made - ignored == set()


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_in_the_text_name_what_exists(page: Path) -> None:
    for code in re.findall(r"`((?:lesion-hub|python|accelerate) [^`]+)`", prose_of(page)):
        for words in commands_in(code.replace("\n", " ")):
            check_command(words, whole=False)


@pytest.mark.parametrize(
    "line",
    [
        "lesion-hub data schow data/",
        "lesion-hub publish runs/x a --verssion 1.0.0",
        "lesion-hub publish runs/x a --version 1.0.0",
        "python training/train.py --recipe ham10000_defualt --data data",
        "python training/train.py --recipe demo --set model.bakbone=x",
        "python examples/nothing.py",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"."):
        check_command(line.split())


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_python_blocks_compile_and_import_what_exists(block: Block) -> None:
    compile(block.text, str(block), "exec")
    for line in re.findall(
        r"^(?:from (?:lesion_hub|training)[\w.]* import .+|import (?:lesion_hub|training)[\w.]*)$", block.text, re.M
    ):
        exec(line, {})  # the line is ours, and imports alone


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_recipes_shown_are_recipes(block: Block, tmp_path: Path) -> None:
    shown = tmp_path / "shown.yaml"
    shown.write_text(block.text, encoding="utf-8")
    if {"data", "model", "epochs"} <= set(read_yaml(shown)):
        load_recipe(shown)


# ------------------------------------------------------------------------------------------------ links and names


def _anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_images_lead_somewhere(page: Path) -> None:
    text = prose_of(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    broken = []
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in _anchors(place)):
            broken.append(target)
    assert broken == []


ROOMS = "lesion_hub|training|tests|spaces|examples|benchmarks|model_cards|docs"


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_files_and_names_in_the_text_exist(page: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", prose_of(page))
    paths = [span for span in spans if re.fullmatch(rf"(?:{ROOMS})/[\w./-]*", span)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    names = [span.removesuffix("()") for span in spans if re.fullmatch(r"(?:lesion_hub|training)(?:\.\w+)+(?:\(\))?", span)]
    assert [name for name in names if not _exists(name)] == []


def _exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    words = dotted.split(".")
    for length in range(len(words), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(words[:length]))
        except ModuleNotFoundError:
            continue
        for word in words[length:]:
            if not hasattr(found, word):
                return False
            found = getattr(found, word)
        return True
    return False


# ------------------------------------------------------------------------------------------------ the five projects, citation


@pytest.fixture(scope="module")
def five_projects() -> ModuleType:
    return load_script("examples/five_projects.py")


def test_the_table_of_the_five_projects_is_that_of_its_results(five_projects: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    shutil.copy(five_projects.PAGE, page)
    five_projects.write_table(five_projects.RESULTS, page)
    assert page.read_text(encoding="utf-8") == five_projects.PAGE.read_text(encoding="utf-8"), (
        "run python examples/five_projects.py --table"
    )


def test_every_recipe_of_the_five_projects_is_run_as_a_recipe_that_exists(five_projects: ModuleType) -> None:
    planned = {job.recipe for job in five_projects.JOBS}
    prefixes = ("isic2019_", "isic_binary_", "melanoma10k_", "clinical6_")
    systems = {name for name in shipped_recipes() if name.startswith(prefixes)}
    assert planned == systems | {"ham10000_focal_cnn", "ham10000_efficientnet_b4", "ham10000_efficientnet_b7"}
    for job in five_projects.JOBS:
        load_recipe(job.recipe, five_projects.settings(job, "small", "false"))
        load_recipe(job.recipe, five_projects.settings(job, "full", ""))


def test_results_are_of_planned_recipes_and_name_no_place_outside(five_projects: ModuleType) -> None:
    results = json.loads(five_projects.RESULTS.read_text(encoding="utf-8"))
    assert {entry["recipe"] for entry in results} <= {job.recipe for job in five_projects.JOBS}
    commands = [entry["command"] for entry in results if "command" in entry]  # the others were not run
    assert commands and [command for command in commands if re.search(r"(^|[ =\[])/", command)] == []


def test_the_citation_names_the_version_and_the_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {key: citation[key] for key in ("cff-version", "version", "license", "type")} == {
        "cff-version": "1.2.0",
        "version": __version__,
        "license": "Apache-2.0",
        "type": "software",
    }
    assert set(citation) >= {"title", "message", "authors", "date-released", "references"}
