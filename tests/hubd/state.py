"""Who may do what, and what the tests asked for: faults and the log."""

from __future__ import annotations

import contextvars
import os
import re
import signal
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class User:
    """Whom a token stands for."""

    name: str
    may_write: bool = True


USERS = {"hf_test": User("user"), "hf_other": User("other"), "hf_read": User("user", may_write=False)}


@dataclass
class State:
    """What the process keeps: where its data is, and the tests' faults and log."""

    data: Path = Path()
    key: bytes = b""
    faults: list[dict[str, Any]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    locks: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))


STATE = State()
REQUEST_LINE: contextvars.ContextVar[str] = contextvars.ContextVar("REQUEST_LINE", default="")


def fault(kind: str) -> dict[str, Any] | None:
    """The first live rule of that kind for this request, counted down."""
    for rule in STATE.faults:
        if kind not in rule or rule.get("times", 1) <= 0 or not re.search(rule.get("match", ""), REQUEST_LINE.get()):
            continue
        if rule.get("skip", 0) > 0:
            rule["skip"] -= 1
            continue
        if "times" in rule:
            rule["times"] -= 1
        return rule
    return None


def die_if_asked(when: str) -> None:
    if any(rule.get("die") == when and re.search(rule.get("match", ""), REQUEST_LINE.get()) for rule in STATE.faults):
        os.kill(os.getpid(), signal.SIGKILL)
