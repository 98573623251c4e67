"""Rehearse a Space before anybody sees it: publish it, build it, start it, ask it, end it, and start it without a network.

    python spaces/rehearse.py
    python spaces/rehearse.py --layer .venv

The Space is published to a Hub on loopback, downloaded from there into an empty folder, and built in a fresh environment from
its requirements.txt alone. ``app.py`` then runs with what a Space of the free hardware has: its variables, 2 cores, 16 GB,
under the name of somebody's duplicate, and with a home that it cannot write into. It is asked by a program and in Chromium.
The first model is fetched from the Hub, so that the second start, without one, shows that the cache is enough.

``--layer`` puts the packages of an environment that exists under the fresh one, so that only what is missing is installed;
what is installed there in editable mode is not seen. ``--no-torch-index`` is for machines that do not reach PyTorch's own
index: then PyPI's build is installed, which brings CUDA's libraries along and answers the same on a CPU.

Ends with 1 where a step fails, with 2 where all of them work and a figure is over its aim. Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for tests.hub_server; what is rehearsed never sees it

from tests.browsers import browser_program  # noqa: E402
from tests.hub_server import HubServer, free_port  # noqa: E402

CORES, MEMORY = 2, 16 << 30
START_AIM, PEAK_AIM, STOP_AIM = 30.0, 1500.0, 10.0
START_PATIENCE, STOP_PATIENCE = 300.0, 60.0
OWNER, VISITOR = "user", "visitor"
TOKEN = "hf_test"
DROP_CAPABILITY, OVERRIDE_PERMISSIONS = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    what: str
    figure: float | str
    unit: str = ""
    aim: float | None = None

    @property
    def missed(self) -> bool:
        return self.aim is not None and isinstance(self.figure, (int, float)) and self.figure > self.aim


class StepFailed(Exception):
    """A step of the rehearsal did not work."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dermoscopy-trio", help="registry name (default: %(default)s)")
    parser.add_argument("--registry", type=Path, help="registry of --model")
    parser.add_argument("--layer", type=Path, metavar="VENV", help="environment whose packages lie under the fresh one")
    parser.add_argument("--no-torch-index", action="store_true", help="leave out the index of PyTorch's CPU build")
    parser.add_argument("--once", action="store_true", help="leave out the second start, of a duplicate without a network")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures: list[Figure] = []
    failure = None
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as scratch:
        try:
            for figure in rehearse(options, Path(scratch)):
                figures.append(figure)
                if not options.json:
                    show(figure)
        except StepFailed as error:
            failure = str(error)
    missed = [figure.what for figure in figures if figure.missed]
    if options.json:
        print(json.dumps({"figures": list(map(asdict, figures)), "missed": missed, "failure": failure}))
    elif failure:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failure else 2 if missed else 0


def show(figure: Figure) -> None:
    value = f"{figure.figure:,.1f}" if isinstance(figure.figure, float) else str(figure.figure)
    aim = "" if figure.aim is None else f"aim {figure.aim:,.0f} {figure.unit}{', MISSED' if figure.missed else ''}"
    print(f"{figure.what:<42} {value:>10} {figure.unit:<6} {aim}".rstrip(), flush=True)


def rehearse(options: argparse.Namespace, scratch: Path) -> Iterator[Figure]:
    """Go through all steps in ``scratch`` and yield what was measured; raise StepFailed where one does not work."""
    hub = HubServer(scratch / "hub", free_port())
    environment = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(scratch / "publisher"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    os.environ.update(environment)
    os.environ.pop("HF_HUB_OFFLINE", None)
    hub.start()
    try:
        space, expected, about = publish(options, scratch)
        yield from about
        python = scratch / "environment" / "bin" / "python"
        yield from install(options, space, python.parents[1])
        check_origin(space, python)
        example = min((space / "examples").iterdir())
        with RunningSpace(space, python, scratch, space_id=f"{OWNER}/skin") as page:
            yield Figure("process start to page up", page.up_seconds, "s", START_AIM)
            yield Figure("of it, processor time", page.cpu_seconds, "s")
            answer, seconds = ask(page.url, example)
            yield Figure("first prediction with a heat map", seconds, "s")
            require_same(answer, expected, "the Space answers otherwise than the library")
            yield Figure("another one", ask(page.url, example)[1], "s")
            yield look(page.url)
            yield Figure("peak memory", page.peak_bytes() / 1e6, "MB", PEAK_AIM)
            yield Figure("end after SIGTERM", page.end(), "s", STOP_AIM)
        hub.kill()
        if options.once:
            return
        with RunningSpace(space, python, scratch, space_id=f"{VISITOR}/copy-of-skin", HF_HUB_OFFLINE="1") as page:
            yield Figure("a duplicate, offline, start to page up", page.up_seconds, "s", START_AIM)
            answer, seconds = ask(page.url, example)
            require_same(answer, expected, "offline the Space answers otherwise")
            yield Figure("its first prediction", seconds, "s")
            page.end()
    finally:
        hub.kill()


# ------------------------------------------------------------------------------------------------- publish and build


def publish(options: argparse.Namespace, scratch: Path) -> tuple[Path, dict[str, float], list[Figure]]:
    """Publish the model and a Space of it, and download the Space: its folder, and what the library answers there."""
    from huggingface_hub import snapshot_download

    import lesion_hub
    from lesion_hub.hub import store
    from lesion_hub.hub.space import publish_space

    found = store.resolve_pinned(options.model, registry=options.registry)
    name = f"{OWNER}/{found.name}"
    version = str(found.revision).removeprefix("v")
    store.publish(found.folder, name, version=version, notes="Rehearsed.", registry=options.registry, token=TOKEN)
    published = publish_space(f"{OWNER}/skin", [f"{name}@v{version}"], registry=options.registry, token=TOKEN)
    space = Path(snapshot_download(f"{OWNER}/skin", repo_type="space", local_dir=scratch / "space", token=TOKEN))
    shutil.rmtree(space / ".cache", ignore_errors=True)  # of the download, not of the repo
    predictor = lesion_hub.from_pretrained(options.model, registry=options.registry)
    expected = predictor.predict(min((space / "examples").iterdir())).probabilities
    repo = Figure(f"repo of {len(published.files)} files", published.bytes / 1e6, "MB")
    return space, dict(expected), [repo, Figure("requirements", len(published.requirements), "lines")]


def install(options: argparse.Namespace, space: Path, place: Path) -> Iterator[Figure]:
    """Make the environment, and install into it as the builder of Gradio Spaces does."""
    wanted = place.with_name("requirements.txt")
    lines = (space / "requirements.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    wanted.write_text("".join(line for line in lines if not (options.no_torch_index and "download.pytorch.org" in line)))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    packages = next(place.glob("lib/python*/site-packages"))
    installs = [["-r", str(wanted)]]
    if options.layer:
        # Folders that a .pth file names are searched; their own .pth files, by which editable packages are found, are not read.
        code = "import sys; print(*(p for p in sys.path if p.endswith('-packages')), sep='\\n')"
        found = subprocess.run([options.layer / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
        (packages / "layer.pth").write_text(found.stdout)
    else:
        card = (space / "README.md").read_text(encoding="utf-8")
        (version,) = re.findall(r"^sdk_version: (\S+)$", card, re.MULTILINE)
        installs.append([f"gradio[oauth]=={version}", "spaces"])
    start = time.monotonic()
    for arguments in installs:
        command = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "--no-cache-dir", *arguments]
        known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, cwd=place, env=known, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise StepFailed(f"pip install {' '.join(arguments)}:\n{done.stdout[-3000:]}")
    yield Figure("install" + (" of what is missing" if options.layer else ""), time.monotonic() - start, "s")
    yield Figure("of packages", len(list(packages.glob("*.dist-info"))))
    yield Figure("installed size", sum(file.lstat().st_size for file in packages.rglob("*")) / 1e6, "MB")


def check_origin(space: Path, python: Path) -> None:
    """Refuse a rehearsal in which the package is another than the Space's own."""
    code = "import lesion_hub, sys; print(lesion_hub.__file__)"
    done = subprocess.run([python, "-c", code], cwd=space, env={}, capture_output=True, text=True)
    if Path(done.stdout.strip()) != space / "lesion_hub" / "__init__.py":
        raise StepFailed(f"the package is not the Space's own: {done.stdout}{done.stderr}")


# ------------------------------------------------------------------------------------------------------- run and ask


class RunningSpace:
    """``python app.py`` in the Space's folder, as a Space of the free hardware runs it; up when the block begins."""

    def __init__(self, space: Path, python: Path, scratch: Path, *, space_id: str, **more: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = scratch / "page.log"
        home, temporary = scratch / "home", scratch / "tmp"
        home.mkdir(exist_ok=True)
        home.chmod(0o555)
        temporary.mkdir(exist_ok=True)
        self.temporary = temporary
        author, name = space_id.split("/")
        environment = {
            "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "HF_HOME": str(scratch / "cache"),
            "HF_ENDPOINT": os.environ["HF_ENDPOINT"],
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "CUDA_VISIBLE_DEVICES": "",
            "SYSTEM": "spaces",
            "SPACE_ID": space_id,
            "SPACE_AUTHOR_NAME": author,
            "SPACE_REPO_NAME": name,
            "CPU_CORES": str(CORES),
            "MEMORY": "16Gi",
            "PORT": str(self.port),
            "GRADIO_SERVER_PORT": str(self.port),
            "GRADIO_SERVER_NAME": "0.0.0.0",
            "PYTHONUNBUFFERED": "1",
            **more,
        }
        start = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, "app.py"], cwd=space, env=environment, stdout=log, stderr=subprocess.STDOUT, preexec_fn=as_a_space
            )
        try:
            while not self.answers():
                if self.process.poll() is not None or time.monotonic() - start > START_PATIENCE:
                    raise StepFailed(f"the page did not come up:\n{self.tail()}")
                time.sleep(0.1)
        except BaseException:
            self.process.kill()
            raise
        self.up_seconds = time.monotonic() - start
        ticks = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        self.cpu_seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> RunningSpace:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def answers(self) -> bool:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.url, timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))

    def end(self) -> float:
        """Send SIGTERM and return the seconds that the end took; one with an error, or one that leaves files, is none."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            raise StepFailed(f"the page runs on {STOP_PATIENCE:.0f} s after SIGTERM:\n{self.tail()}") from None
        if status or "Traceback" in self.tail():
            raise StepFailed(f"the page ended with status {status}:\n{self.tail()}")
        if left := [path.name for path in self.temporary.glob("lesion-hub-*")]:
            raise StepFailed(f"the page left {', '.join(left)} in its temporary folder")
        return time.monotonic() - start

    def tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]


def as_a_space() -> None:
    """Between fork and exec: take two cores, at most 16 GB, and the right to write where the permissions say no."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    ctypes.CDLL(None).prctl(DROP_CAPABILITY, OVERRIDE_PERMISSIONS)  # root's; others have not got it


def ask(url: str, example: Path) -> tuple[dict[str, Any], float]:
    """Ask for a prediction and its heat map through the API; the answer, and the seconds that it took."""
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False)
    start = time.monotonic()
    overlay, answer = client.predict(handle_file(example), api_name="/explain")
    seconds = time.monotonic() - start
    client.close()
    if Path(overlay).stat().st_size < 1000:
        raise StepFailed("the heat map is empty")
    return answer, seconds


def require_same(answer: dict[str, Any], expected: dict[str, float], complaint: str) -> None:
    found = answer["probabilities"]
    if found.keys() != expected.keys() or any(abs(found[label] - expected[label]) > 1e-3 for label in expected):
        raise StepFailed(f"{complaint}: {found} and {expected}")


def look(url: str) -> Figure:
    """Analyse the first example in Chromium; nobody but the page may be asked for anything."""
    what = "Chromium: page, example, heat map"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return Figure(what, "skipped, no playwright")
    program = browser_program()
    if program is None:
        return Figure(what, "skipped, no browser")
    with sync_playwright() as driver, chromium(driver, program) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        start = time.monotonic()
        page.goto(url)
        page.locator("#lesion-examples .lh-example").first.click()
        page.locator("#lesion-run").click()
        page.locator("#lesion-overlay img.lh-heat").first.wait_for()
        seconds = time.monotonic() - start
        if strangers := [other for other in asked if not other.startswith((url, "data:", "blob:"))]:
            raise StepFailed(f"the page asks {strangers[0]}")
    return Figure(what, seconds, "s")


@contextmanager
def chromium(driver: Any, program: str) -> Iterator[Any]:
    from playwright.sync_api import Error

    browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
    try:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        yield page
    except Error as error:
        raise StepFailed(f"Chromium: {str(error).splitlines()[0]}") from None
    finally:
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
