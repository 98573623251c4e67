"""Bounded retries against a Hub, and its errors as one clear line each."""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
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
_SECRET = re.compile(r"(?i:bearer)\s+[^\s'\"]+|hf_\w+")

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
    if _is_short_download(error):
        return True
    return isinstance(error, (ConnectionError, TimeoutError)) or is_transport(error) or _is_xet_failure(error)


def is_transport(error: BaseException) -> bool:
    """Whether the error is the HTTP library's own: no answer came, or half of one."""
    return type(error).__module__.partition(".")[0] in _TRANSPORTS


def _is_short_download(error: BaseException) -> bool:
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


def _is_xet_failure(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in ("xet", "cas", "network", "reqwest"))


def is_hub_error(error: BaseException) -> bool:
    """Whether an error comes from talking to the Hub or from the disk, and not from a bug of ours."""
    return isinstance(error, (HfHubHTTPError, HFValidationError, OSError)) or is_transport(error) or _is_xet_failure(error)


def patiently(action: Callable[[], Result]) -> Result:
    """Run ``action``, again after a transient failure, at most ATTEMPTS times.

    A lost answer may hide a success, so an action that changes something must look first whether it is done already.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except Exception as error:
            if not is_hub_error(error) or not is_transient(error):
                raise
            logger.info("the Hub did not answer (%s), attempt %d of %d", type(error).__name__, attempt, ATTEMPTS)
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
    return action()


@contextmanager
def one_line_errors(repo_id: str, doing: str) -> Iterator[None]:
    """Turn what the Hub or the disk raises inside the block into one line; bugs keep their traceback."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if not is_hub_error(error):
            raise
        raise StoreError(f"{repo_id}: {_explanation(error, repo_id, doing)}") from None


def _explanation(error: BaseException, repo_id: str, doing: str) -> str:
    """What went wrong and what mends it. Tokens are never part of it."""
    error = _behind(error)
    status = status_of(error)
    if isinstance(error, HFValidationError):
        return f"is not a name that the Hub takes ({_reason(error)}); check the spelling"
    if isinstance(error, RevisionNotFoundError):
        return f"no such revision while {doing}; `lesion-hub versions {repo_id}` lists what there is"
    if isinstance(error, RepositoryNotFoundError):
        return "not found on the Hub, or private and your token has no access; check the name, or set HF_TOKEN"
    if status == 401:
        return f"the Hub refused the token while {doing}; log in again with `hf auth login` or set HF_TOKEN"
    if status == 403:
        return f"your token may not do that ({doing}); use a token with write access to it"
    if status is not None:
        return f"the Hub answered {status} while {doing}; nothing is half done, run it again later"
    if isinstance(error, LocalEntryNotFoundError):
        return "not, or not wholly, in the cache, and this process is offline (HF_HUB_OFFLINE); go online once to fetch it"
    if isinstance(error, OfflineModeIsEnabled):
        return f"this process is offline (HF_HUB_OFFLINE), which rules out {doing}; unset it and run it again"
    return _without_answer(error, doing)


def _without_answer(error: BaseException, doing: str) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full while {doing}; free some space and run it again, nothing is half done"
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        return f"{error.filename} cannot be used while {doing} ({error.strerror}); mend that and run it again"
    return f"the Hub could not be reached while {doing} ({_reason(error)}); nothing is half done, run it again"


def _behind(error: BaseException) -> BaseException:
    """What kept huggingface_hub from the Hub, when it then reports that the cache does not hold the thing either."""
    cause = error.__cause__
    wrapped = isinstance(error, LocalEntryNotFoundError) and not isinstance(cause, OfflineModeIsEnabled)
    return cause if wrapped and cause is not None else error


def _reason(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _SECRET.sub("<token>", first)[:160]
