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
NOT_CACHED = "not, or not wholly, in the cache, and this process is offline (HF_HUB_OFFLINE); go online once to fetch it"

_Result = TypeVar("_Result")


def with_retries(action: Callable[[], _Result]) -> _Result:
    """Run ``action``, again after a transient failure, at most ATTEMPTS times.

    A lost answer may hide a success, so an action that changes something must look first whether it is done already.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
            logger.info("the Hub did not answer (%s), attempt %d of %d", type(error).__name__, attempt, ATTEMPTS)
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
    return action()


@contextmanager
def one_line_errors(repo_id: str, doing: str) -> Iterator[None]:
    """Turn what the Hub or the disk raises inside the block into one line; bugs keep their traceback."""
    try:
        yield
    except Exception as error:
        if not is_hub_error(error):
            raise
        raise StoreError(f"{repo_id}: {_explanation(_underlying(error), repo_id, doing)}") from None


# --------------------------------------------------------------------------------------------------- what an error means


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status behind an error of huggingface_hub; None where no answer came."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_transient(error: BaseException) -> bool:
    """Tell whether trying again may help: the Hub is busy, or the connection broke."""
    error = _underlying(error)
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT_STATUS
    if isinstance(error, (OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError, LocalEntryNotFoundError)):
        return False
    is_short_download = isinstance(error, OSError) and "Consistency check failed" in str(error)
    return (
        is_short_download or isinstance(error, (ConnectionError, TimeoutError)) or _is_transport(error) or _is_internal(error)
    )


def is_hub_error(error: BaseException) -> bool:
    """Tell whether an error comes from talking to the Hub or from the disk, and not from a bug of ours."""
    error = _underlying(error)
    return isinstance(error, (HfHubHTTPError, HFValidationError, OSError)) or _is_transport(error) or _is_internal(error)


def _underlying(error: BaseException) -> BaseException:
    """Return the cause where huggingface_hub only says what followed from it: not in the cache either, or an upload failed."""
    cause = error.__cause__
    reported = isinstance(error, LocalEntryNotFoundError) or _is_internal(error)
    return cause if reported and cause is not None and not isinstance(cause, OfflineModeIsEnabled) else error


def _is_transport(error: BaseException) -> bool:
    """Tell whether the error is the HTTP library's own: no answer came, or half of one."""
    return type(error).__module__.partition(".")[0] in _TRANSPORTS


def _is_internal(error: BaseException) -> bool:
    """Tell whether huggingface_hub, or hf_xet below it, gave up with a bare RuntimeError.

    Its text changes from version to version, so its origin decides: the innermost frame is huggingface_hub's, because the
    compiled code of hf_xet has none.
    """
    trace = error.__traceback__
    if type(error) is not RuntimeError or trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] in ("huggingface_hub", "hf_xet")


def _explanation(error: BaseException, repo_id: str, doing: str) -> str:
    """Say what went wrong and what mends it. Tokens are never part of it."""
    status = status_of(error)
    # What a library said, without the token that it may quote.
    reason = _SECRET.sub("<token>", (str(error).strip().splitlines() or [type(error).__name__])[0])[:160]
    if isinstance(error, HFValidationError):
        return f"is not a name that the Hub takes ({reason}); check the spelling"
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
        return NOT_CACHED
    if isinstance(error, OfflineModeIsEnabled):
        return f"this process is offline (HF_HUB_OFFLINE), which rules out {doing}; unset it and run it again"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full while {doing}; free some space and run it again, nothing is half done"
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        return f"{error.filename} cannot be used while {doing} ({error.strerror}); mend that and run it again"
    return f"the Hub could not be reached while {doing} ({reason}); nothing is half done, run it again"
