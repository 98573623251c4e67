"""Claims: which of several workers, on one machine or many, does which run.

A claim is a file ``OUT/claims/NAME.ATTEMPT`` that one worker alone can create, and whose time that worker renews while it
lives. When a worker dies, another takes the run over by creating the file of the next attempt, and the run goes on from its
checkpoints. Nothing but a shared folder is needed; exclusive creation is atomic on local disks and on NFS from version 3 on.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lesion_hub.errors import ConfigError, LesionHubError

logger = logging.getLogger(__name__)

# Seconds. A claim of another machine counts as given up once it was not renewed for SILENCE, which is long against RENEWAL
# so that a slow file server, or a processor that is busy with other things, takes no run away.
RENEWAL = 10.0
SILENCE = 120.0
BETWEEN_LOOKS = 1.0

# What a run that is alone in its folder is claimed as.
RUN = "run"

T = TypeVar("T")


class ClaimLost(LesionHubError):
    """Another worker has taken a run over, because this one was silent for too long."""


@dataclass(frozen=True)
class Claim:
    """One worker's claim on the run ``name``; ``attempt`` counts from 1, one more for every worker that died at it.

    ``file`` is None in all processes of a worker but the first.
    """

    name: str
    attempt: int
    file: Path | None

    def confirm(self) -> None:
        """Raise `ClaimLost` if the run is no longer this worker's."""
        if self.file is None:
            return
        if not self.file.exists() or _claim_file(self.file.parent, self.name, self.attempt + 1).exists():
            raise ClaimLost(f"{self.name}: another worker has taken it over, since this one was silent; run again to help")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Renew the claim from a thread while the block runs, then give it up."""
        if self.file is None:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(self.file, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.file.unlink(missing_ok=True)

    @staticmethod
    def _renew(file: Path, ended: threading.Event) -> None:
        while not ended.wait(RENEWAL):
            try:
                os.utime(file)
            except OSError as error:
                # A file server that is away for a moment; a claim that is really gone shows in `confirm`.
                logger.info("%s: not renewed (%s)", file, error)


class Claims:
    """The claims on the runs below one folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     claims = Claims(Path(folder))
    ...     with claims.take("fold-0").held():
    ...         claims.take("fold-0") is None
    True
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / "claims"

    def take(self, name: str) -> Claim | None:
        """Claim the run ``name``; None where a living worker has it."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                last = max(self._attempts(name), default=0)
                lives = self._living(_claim_file(self.folder, name, last)) if last else False
                if lives is None:  # given up since it was listed: whoever comes counts from 1 again
                    continue
                if lives:
                    return None
                file = _claim_file(self.folder, name, last + 1)
                with file.open("x", encoding="utf-8") as stream:
                    json.dump({"host": socket.gethostname(), "pid": os.getpid()}, stream)
            except FileExistsError:  # another was quicker
                return None
            except FileNotFoundError:
                if self.folder.is_dir():
                    raise
                continue  # the run that was there has ended, and taken the empty folder away
            return Claim(name, last + 1, file)

    def take_first(self, names: Iterable[str], finished: Callable[[str], bool]) -> Claim | None:
        """Claim the first run that is neither finished nor a living worker's; None where there is none."""
        for name in names:
            if finished(name) or (claim := self.take(name)) is None:
                continue
            if not finished(name):  # else its worker has finished it since the first look
                return claim
            if claim.file is not None:
                claim.file.unlink(missing_ok=True)
        return None

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Run the block while no other worker runs one of the same ``name``; wait for that."""
        while (claim := self.take(name)) is None:
            time.sleep(0.02)
        with claim.held():
            yield

    def living(self) -> list[str]:
        """Name the runs that a living worker has claimed, and the workers."""
        found = []
        for file in sorted(self.folder.glob("*.*")):
            name, _, attempt = file.name.rpartition(".")
            if int(attempt) == max(self._attempts(name), default=0) and self._living(file):
                found.append(f"{name} ({_owner_words(file)})")
        return found

    def owner(self, name: str) -> str:
        """Name the machine and the process whose claim on the run ``name`` is the latest."""
        return _owner_words(_claim_file(self.folder, name, max(self._attempts(name), default=0)))

    def clear(self, name: str) -> None:
        """Forget the workers that died at ``name``, which has come to its end, and the folder where nothing else is in it."""
        with suppress(FileNotFoundError):  # the next run there has come to its end meanwhile
            for attempt in self._attempts(name):
                file = _claim_file(self.folder, name, attempt)
                if not self._living(file):
                    file.unlink(missing_ok=True)
        for folder in (self.folder, self.folder.parent):
            with suppress(OSError):  # not empty
                folder.rmdir()

    def refuse_restart(self) -> None:
        """Refuse to delete what living workers are at."""
        if living := self.living():
            raise ConfigError(f"--restart: others work on {', '.join(living)}; stop them first, or choose another --out")

    def _attempts(self, name: str) -> list[int]:
        parts = (path.name.rpartition(".") for path in self.folder.iterdir())
        return [int(attempt) for of, _, attempt in parts if of == name]

    def _living(self, file: Path) -> bool | None:
        """Tell whether the owner of a claim lives: on this machine its process, elsewhere because it renewed the claim.

        None where the claim is gone.
        """
        owner = _owner(file)
        try:
            # Both times are the file server's, whose clock need not be ours; opening a file makes NFS ask for its times.
            with file.open("rb") as stream:
                renewed = os.fstat(stream.fileno()).st_mtime
        except FileNotFoundError:
            return None
        if owner.get("host") == socket.gethostname() and not _process_lives(owner["pid"]):
            return False
        return self._now() - renewed < SILENCE

    def _now(self) -> float:
        probe = self.folder / f"{uuid.uuid4().hex}-now"
        try:
            with probe.open("xb") as stream:
                return os.fstat(stream.fileno()).st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _claim_file(folder: Path, name: str, attempt: int) -> Path:
    return folder / f"{name}.{attempt}"


def _owner(file: Path) -> dict[str, Any]:
    """Read who made a claim; nothing where its file is gone, or is not written yet."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _owner_words(file: Path) -> str:
    """Name the machine and the process that made a claim."""
    owner = _owner(file)
    return f"{owner.get('host', '?')}, process {owner.get('pid', '?')}"


def _process_lives(pid: int) -> bool:
    multiprocessing.active_children()  # a child that ended keeps its number until it is asked for
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


# ------------------------------------------------------------------------------------------------ working through runs


def work_through(
    take: Callable[[], Claim | None], done: Callable[[], bool], work: Callable[[Claim], None], accelerator: Accelerator
) -> None:
    """Do ``work`` on one claim after another until ``done``; wait while other workers have all that is left.

    Of a worker with several processes the first claims (``take`` and ``done`` are called there alone) and tells the others.
    """
    waiting = False
    while True:
        claim = take() if accelerator.is_main_process else None
        over = claim is None and accelerator.is_main_process and done()
        name, attempt, over = from_first((claim and claim.name, claim and claim.attempt, over), accelerator)
        if over:
            return
        if name is None:
            if not waiting:
                accelerator.print("waiting for what the other workers have begun")
            waiting = True
            time.sleep(BETWEEN_LOOKS)
            continue
        waiting = False
        claim = claim or Claim(name, attempt, None)
        with claim.held():
            work(claim)
            # The others look at what the first has written as soon as the claim is given up.
            accelerator.wait_for_everyone()


@contextmanager
def alone_in(out: Path, accelerator: Accelerator, *, restart: bool = False) -> Iterator[Claim]:
    """Claim the one run in ``out`` while the block runs; refuse, in all processes, where a living process has it.

    Of a run with several processes the first holds the claim. A killed owner is in nobody's way (see `Claims`).
    """
    claims, claim, refusal = Claims(out), None, None
    if accelerator.is_main_process:
        try:
            if restart:
                claims.refuse_restart()
            claim = claims.take(RUN)
            if claim is None:
                refusal = (
                    f"{out}: another process trains here ({claims.owner(RUN)}); wait for its end or stop it, or choose "
                    f"another --out (of a machine that is gone its run is free after {SILENCE:.0f} s)"
                )
        except ConfigError as error:
            refusal = str(error)
        except OSError as error:
            refusal = f"{out}: cannot be written ({error.strerror}); choose another --out"
    refusal = from_first(refusal, accelerator)
    if refusal is not None:
        raise ConfigError(refusal)
    claim = claim or Claim(RUN, 1, None)
    try:
        with claim.held():
            yield claim
    finally:
        if claim.file is not None:
            claims.clear(RUN)


def from_first(value: T, accelerator: Accelerator) -> T:
    """Return the first process's ``value`` in all of them."""
    if accelerator.num_processes == 1:
        return value
    return broadcast_object_list([value])[0]
