"""Further workers on this machine: processes that claim runs beside the one that was started, which they outlive."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from lesion_hub.errors import ConfigError
from lesion_hub.training.launch import LaunchOptions, exit_status

logger = logging.getLogger(__name__)


@contextmanager
def local_workers(work: Callable[..., None], options: LaunchOptions, *arguments: Any) -> Iterator[None]:
    """Call ``work(*arguments, options)`` in ``options.workers - 1`` further processes while the block does the same.

    What they print goes to ``OUT/workers/N.log``. Each takes a GPU of its own where there are several, and the workers divide
    the CPU's threads unless ``OMP_NUM_THREADS`` is set. The end of the block waits for them, and stops them where it raised.
    """
    if options.workers == 1:
        yield
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--workers starts processes of its own; behind a launcher start the same command again instead")
    devices = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    threads = torch.get_num_threads()
    shared = threads if os.environ.get("OMP_NUM_THREADS") else max(1, threads // options.workers)
    alone = options.model_copy(update={"workers": 1, "restart": False})
    workers = {}
    for number in range(2, options.workers + 1):
        log = options.out / "workers" / f"{number}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        device = devices.split(",")[(number - 1) % len(devices.split(","))] if devices else None
        process = multiprocessing.get_context("spawn").Process(
            target=_start, args=(work, (*arguments, alone), log, device, shared), name=f"worker {number}"
        )
        process.start()
        workers[log] = process
    torch.set_num_threads(shared)
    try:
        yield
    except BaseException:
        for process in workers.values():
            process.terminate()  # they save where they stand
        raise
    finally:
        torch.set_num_threads(threads)
        for log, process in workers.items():
            process.join()
            _report(process, log)


def _start(work: Callable[..., None], arguments: tuple[Any, ...], log: Path, device: str | None, threads: int) -> None:
    """Begin a worker's process: of its own session, so that Ctrl-C reaches it once, through the process that started it."""
    os.setsid()
    with log.open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    torch.set_num_threads(threads)
    sys.exit(exit_status(lambda: work(*arguments)))


def _report(process: BaseProcess, log: Path) -> None:
    """Log how a worker ended, unless it ended well or was stopped; what it had begun is done by the others."""
    if process.exitcode not in (0, 143, -signal.SIGTERM):
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
        logger.warning("%s ended with status %s: %s (%s)", process.name, process.exitcode, said[-1], log)
