"""Retries are bounded, only what may pass is retried, and what is left is one line without a token."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from lesion_hub.errors import StoreError
from lesion_hub.hub import patience
from lesion_hub.hub.patience import ATTEMPTS, is_transient, one_line_errors, patiently
from tests.hub.publishable import refused


class Answered(OSError):
    """An answer with an error status, as huggingface_hub raises it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status} for url\nwith more lines")
        self.response = SimpleNamespace(status_code=status)


class BrokenTransport(Exception):
    """What an HTTP library raises raw."""


BrokenTransport.__module__ = "httpx2._exceptions"


class Flaky:
    """Raises each of ``errors`` in turn, then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture(autouse=True)
def naps(monkeypatch):
    """The pauses, in place of waiting."""
    pauses: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    return pauses


SHORT = OSError("Consistency check failed: file should be of size 2 but has size 1")


@pytest.mark.parametrize(
    "error", [Answered(503), Answered(429), BrokenTransport(), TimeoutError(), ConnectionResetError(), SHORT]
)
def test_three_transient_failures_are_sat_out_with_growing_pauses(error, naps):
    action = Flaky(*[error] * (ATTEMPTS - 1))
    assert patiently(action) == "done"
    assert naps == [patience.FIRST_PAUSE * factor for factor in (1, 2, 4)]


def test_patience_ends():
    action = Flaky(*[Answered(503)] * 99)
    with pytest.raises(Answered):
        patiently(action)
    assert action.calls == ATTEMPTS


@pytest.mark.parametrize(
    "error",
    [Answered(401), Answered(403), Answered(404), Answered(409), Answered(412), OSError(errno.ENOSPC, "full"), KeyError("bug")],
)
def test_what_will_not_pass_is_raised_at_once(error, naps):
    action = Flaky(error)
    with pytest.raises(type(error)):
        patiently(action)
    assert (action.calls, naps) == (1, [])


def test_a_missing_entry_is_transient_if_its_cause_is():
    busy, offline = LocalEntryNotFoundError("x"), LocalEntryNotFoundError("x")
    busy.__cause__, offline.__cause__ = Answered(503), OfflineModeIsEnabled("x")
    assert is_transient(busy)
    assert not is_transient(offline)
    assert not is_transient(LocalEntryNotFoundError("x"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Answered(503), ["answered 503", "run it again"]),
        (Answered(401), ["refused the token"]),
        (Answered(403), ["may not"]),
        (OSError(errno.ENOSPC, "No space left on device"), ["disk is full"]),
        (PermissionError(errno.EACCES, "Permission denied", "/cache/blobs"), ["/cache/blobs", "Permission denied"]),
        (BrokenTransport("peer closed\nconnection"), ["could not be reached", "peer closed"]),
        (OfflineModeIsEnabled("x"), ["offline", "HF_HUB_OFFLINE"]),
        (LocalEntryNotFoundError("x"), ["cache", "offline"]),
        (HFValidationError("Repo id must\nbe"), ["name", "spelling"]),
    ],
)
def test_each_failure_is_one_line_that_names_the_repo(error, words):
    with refused("org/m", *words), one_line_errors("org/m", "fetching"):
        raise error


def test_an_answer_behind_a_missing_entry_is_what_is_told():
    error = LocalEntryNotFoundError("not in the cache")
    error.__cause__ = Answered(403)
    with refused("may not"), one_line_errors("org/m", "fetching"):
        raise error


@pytest.mark.parametrize(
    "text", ["Illegal header value b'Bearer hf_abcDEF123'", "bad token hf_abcDEF123 sent", "bearer s3cret"]
)
def test_a_token_in_a_library_message_is_masked(text):
    with pytest.raises(StoreError, match="<token>") as caught, one_line_errors("org/m", "fetching"):
        raise BrokenTransport(text)
    assert "hf_abc" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_bugs_keep_their_traceback_and_our_own_lines_their_words():
    with pytest.raises(KeyError), one_line_errors("org/m", "fetching"):
        raise KeyError("bug")
    with pytest.raises(StoreError, match=r"^own words$"), one_line_errors("org/m", "fetching"):
        raise StoreError("own words")
