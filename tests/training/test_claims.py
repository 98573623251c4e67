from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from accelerate import Accelerator

from lesion_hub.errors import ConfigError
from lesion_hub.training import claims as module
from lesion_hub.training.claims import RUN, SILENCE, Claim, ClaimLost, Claims, alone_in, work_through


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    return Claims(tmp_path)


def made_by(claim: Claim | None, *, host: str = socket.gethostname(), pid: int) -> Path:
    """The file of a claim, changed to be that of another process."""
    assert claim is not None and claim.file is not None
    claim.file.write_text(json.dumps({"host": host, "pid": pid}))
    return claim.file


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_run_is_one_workers_until_it_is_given_up(claims: Claims) -> None:
    claim = claims.take("fold-0")
    assert claim is not None
    with claim.held():
        assert claims.take("fold-0") is None
        assert claims.living() == [f"fold-0 ({socket.gethostname()}, process {os.getpid()})"]
        other = claims.take("fold-1")
        assert other is not None and other.name == "fold-1"
        with pytest.raises(ConfigError, match="--restart: others work on fold-0"):
            claims.refuse_restart()
    again = claims.take("fold-0")
    assert again is not None and again.attempt == 1


def test_of_many_at_once_one_wins(claims: Claims) -> None:
    won: list[Claim] = []
    start = threading.Barrier(16)

    def race() -> None:
        start.wait()
        if (claim := claims.take("trial-3")) is not None:
            won.append(claim)

    threads = [threading.Thread(target=race) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_run_that_is_given_up_between_two_looks_goes_to_one_worker(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    owned, living, quicker = claims.take("study"), claims._living, []

    def given_up_meanwhile(file: Path) -> bool | None:
        if quicker:
            return living(file)
        owned.file.unlink()
        seen = living(file)
        quicker.append(Claims(claims.folder.parent).take("study"))
        return seen

    monkeypatch.setattr(claims, "_living", given_up_meanwhile)
    assert claims.take("study") is None and quicker[0] is not None


def test_a_dead_process_leaves_its_run_at_once(claims: Claims) -> None:
    made_by(claims.take("member"), pid=dead_process())
    taken = claims.take("member")
    assert taken is not None and taken.attempt == 2


def test_a_silent_machine_leaves_its_run_and_notices_when_it_is_back(claims: Claims) -> None:
    lost = claims.take("fold-2")
    file = made_by(lost, host="another-machine", pid=dead_process())
    assert claims.take("fold-2") is None
    long_ago = time.time() - SILENCE - 5
    os.utime(file, (long_ago, long_ago))
    taken = claims.take("fold-2")
    assert taken is not None and taken.attempt == 2
    taken.confirm()
    assert lost is not None
    with pytest.raises(ClaimLost, match="fold-2: another worker has taken it over"):
        lost.confirm()


def test_a_claim_is_renewed_while_it_is_held(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWAL", 0.01)
    claim = claims.take("fold-0")
    assert claim is not None and claim.file is not None
    with claim.held():
        os.utime(claim.file, (0, 0))
        deadline = time.monotonic() + 10
        while claim.file.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_names_with_dots_are_told_apart(claims: Claims) -> None:
    assert claims.take("resnet.1") is not None
    first = claims.take("resnet")
    assert first is not None and first.attempt == 1


def test_workers_do_each_run_once_between_them(
    claims: Claims, cpu_accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BETWEEN_LOOKS", 0.01)
    names, done, order = [f"run-{i}" for i in range(8)], set[str](), Counter[str]()

    def work(claim: Claim) -> None:
        order[claim.name] += 1
        time.sleep(0.02)
        done.add(claim.name)

    def worker() -> None:
        work_through(lambda: claims.take_first(names, done.__contains__), lambda: len(done) == 8, work, cpu_accelerator)

    threads = [threading.Thread(target=worker) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert order == Counter(names)


def test_a_folder_has_one_run_at_a_time(tmp_path: Path, cpu_accelerator: Accelerator) -> None:
    out = tmp_path / "run"
    with alone_in(out, cpu_accelerator):
        for restart, line in ((False, "another process trains here"), (True, "--restart: others work on run")):
            with (
                pytest.raises(ConfigError, match=rf"{line} .*process {os.getpid()}\)"),
                alone_in(out, cpu_accelerator, restart=restart),
            ):
                pass
    assert not out.exists(), "nothing was written into it"


def test_a_run_elsewhere_is_free_once_its_machine_is_silent(tmp_path: Path, cpu_accelerator: Accelerator) -> None:
    file = made_by(Claims(tmp_path).take(RUN), host="another-machine", pid=dead_process())
    with pytest.raises(ConfigError, match=r"\(another-machine, process"), alone_in(tmp_path, cpu_accelerator):
        pass
    os.utime(file, (0, 0))
    with alone_in(tmp_path, cpu_accelerator) as claim:
        assert claim.attempt == 2
    assert not file.exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, cpu_accelerator: Accelerator) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/run: cannot be written"), alone_in(tmp_path / "file" / "run", cpu_accelerator):
        pass
