"""Opening images ahead of the networks: one chunk is decoded in threads while the one before it is being scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Source = TypeVar("Source")
Opened = TypeVar("Opened")


def in_chunks(sources: Iterable[Source], open_: Callable[[Source], Opened], size: int) -> Iterator[list[Opened]]:
    """Apply ``open_`` to every source, in order, in lists of ``size``; at most two such lists exist at a time.

    What ``open_`` raises is raised here, when its turn has come.

    >>> list(in_chunks(range(5), lambda number: number * 10, 2))
    [[0, 10], [20, 30], [40]]
    """
    remaining = iter(sources)
    pool = ThreadPoolExecutor(max(1, torch.get_num_threads()), thread_name_prefix="open-image")
    pending: deque[list[Future[Opened]]] = deque()
    try:
        while True:
            while len(pending) < 2 and (chunk := list(islice(remaining, size))):
                pending.append([pool.submit(open_, source) for source in chunk])
            if not pending:
                return
            yield [future.result() for future in pending.popleft()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
