"""Bounded retries against a Hub, and its errors as one clear line each."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lesion_hub.errors import StoreError

logger = logging.getLogger(__name__)

ATTEMPTS = 4
FIRST_PAUSE = float(os.environ.get("LESION_HUB_RETRY_PAUSE", "1.0"))
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# huggingface_hub's transport differs by version, so its raw errors are known by their library, without importing any.
_TRANSPORTS = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"})

Result = TypeVar("Result")


def status_of(error: BaseException) -> int | None:
    """HTTP status behind an error of huggingface_hub, if an answer came at all."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: the Hub is busy, or the connection broke."""
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT_STATUS
    if isinstance(error, (OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError)):
        return False
    if isinstance(error, LocalEntryNotFoundError):
        return error.__cause__ is not None and is_transient(error.__cause__)
    return isinstance(error, (ConnectionError, TimeoutError)) or is_transport(error) or _is_xet_failure(error)


def is_transport(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _TRANSPORTS


def _is_xet_failure(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in ("xet", "cas", "network", "reqwest"))


def is_hub_error(error: BaseException) -> bool:
    """Whether an error comes from talking to the Hub or from the disk, and not from a bug of ours."""
    return isinstance(error, (HfHubHTTPError, OSError)) or is_transport(error) or _is_xet_failure(error)


def patiently(action: Callable[[], Result], *, landed: Callable[[], Result | None] | None = None) -> Result:
    """Run ``action``, again after a transient failure, at most ATTEMPTS times.

    A lost answer may hide a success, so ``landed`` looks before each repetition: what it finds is the result.
    """
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except Exception as error:
            last = attempt == ATTEMPTS - 1
            if not is_hub_error(error) or not is_transient(error):
                raise
            logger.info("the Hub did not answer (%s), attempt %d of %d", type(error).__name__, attempt + 1, ATTEMPTS)
            if not last:
                time.sleep(FIRST_PAUSE * 2**attempt)
            found = _look(landed, quietly=last)
            if found is not None:
                return found
            if last:
                raise
    raise AssertionError("unreachable")


def _look(landed: Callable[[], Result | None] | None, quietly: bool) -> Result | None:
    if landed is None:
        return None
    try:
        return landed()
    except Exception as error:
        if not is_hub_error(error) or not (is_transient(error) or quietly):
            raise
        return None


def explained(error: BaseException, repo_id: str, doing: str) -> StoreError:
    """The one line for a failure that patience did not cure. Tokens are never part of it."""
    status = status_of(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StoreError(f"{repo_id}: the disk is full while {doing}; free some space and run it again, nothing is half done")
    if isinstance(error, RevisionNotFoundError):
        return StoreError(f"{repo_id}: no such revision while {doing}; `lesion-hub versions {repo_id}` lists what there is")
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return StoreError(
            f"{repo_id}: the Hub refused the token while {doing}; log in again with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError):
        return StoreError(
            f"{repo_id}: not found on the Hub, or private and your token has no access; check the name, or set HF_TOKEN"
        )
    if status == 403:
        return StoreError(f"{repo_id}: your token may not do that ({doing}); use a token with write access to it")
    if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)) and not is_transient(error):
        return StoreError(
            f"{repo_id}: not in the cache, and this process is offline (HF_HUB_OFFLINE); go online once to fetch it"
        )
    if status is not None:
        return StoreError(f"{repo_id}: the Hub answered {status} while {doing}; nothing is half done, run it again later")
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return StoreError(f"{repo_id}: the Hub could not be reached while {doing} ({reason}); nothing is half done, run it again")
