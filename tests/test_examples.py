"""The scripts in examples/ that are not commands of a page: each runs whole, into a folder of the test's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.marks import walked_on_request

ROOT = Path(__file__).resolve().parents[1]


@walked_on_request
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_an_afternoon_leads_from_a_clinics_folder_to_two_published_versions(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OUT": str(tmp_path / "afternoon"),
        "COUNT": "120",
        "LESION_HUB_CACHE": str(tmp_path / "cache"),
    }
    ran = subprocess.run(
        ["bash", str(ROOT / "examples" / "afternoon.sh")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "give --source table for its columns, or --source folders" in ran.stderr
    assert "`--column group=Fall` would make" in ran.stdout + ran.stderr
    assert "v1.1.0" in ran.stdout and "images in a batch" in ran.stdout
    metrics = json.loads((tmp_path / "afternoon" / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["macro_auroc"] > 0.8  # far from chance: the labels were the table's words
