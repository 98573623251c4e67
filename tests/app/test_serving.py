"""What is set before torch and Gradio are loaded, and a port that cannot be had."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from lesion_hub.app import launch, serving
from lesion_hub.app.static_server import file_server
from lesion_hub.errors import ConfigError

PROGRAM = """
import os
from lesion_hub.app.serving import leave_a_core
{}
leave_a_core()
print(os.environ.get("OMP_NUM_THREADS"))
"""


def threads(before: str = "", **environment: str) -> str:
    known = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before)], env=known | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("cores", "left"), [(8, "7"), (2, "1"), (1, "1")])
def test_one_core_is_left_to_answer_requests(cores: int, left: str) -> None:
    machine = f"os.cpu_count = lambda: {cores}; os.sched_getaffinity = lambda _: range({cores})"
    assert threads(before=machine, CPU_CORES="") == left


@pytest.mark.parametrize(
    ("share", "named", "expected"), [("150000 100000", "", 2), ("max 100000", "4", 4), ("max 100000", "", 64), (None, "x", 64)]
)
def test_the_cores_of_a_container_are_its_share(share, named, expected, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(serving, "_CPU_SHARE", tmp_path / "cpu.max")
    monkeypatch.setenv("CPU_CORES", named)
    if share is not None:
        (tmp_path / "cpu.max").write_text(share + "\n")
    assert serving.cores() == expected


def test_a_number_that_was_chosen_stays() -> None:
    assert threads(OMP_NUM_THREADS="5") == "5"


def test_it_is_left_alone_where_torch_has_already_read_it() -> None:
    assert threads(before="import sys; sys.modules['torch'] = sys") == "None"


def test_a_port_that_is_taken_is_the_same_line_for_both_pages(app_options, tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = rf"^cannot listen on 127\.0\.0\.1:{port} \([^\n]+\); choose another --port$"
        with pytest.raises(ConfigError, match=line):
            launch(app_options, port=port, block=False)
        with pytest.raises(ConfigError, match=line):
            file_server(tmp_path, port=port)
