"""What is set before torch and Gradio are loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
    assert threads(before=f"os.cpu_count = lambda: {cores}") == left


def test_a_number_that_was_chosen_stays() -> None:
    assert threads(OMP_NUM_THREADS="5") == "5"


def test_it_is_left_alone_where_torch_has_already_read_it() -> None:
    assert threads(before="import sys; sys.modules['torch'] = sys") == "None"
