"""Retries are bounded, only what may pass is retried, and what is left is one line without a token."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from lesion_hub.errors import StoreError
from lesion_hub.hub import retry
from lesion_hub.hub.retry import ATTEMPTS, is_transient, one_line_errors, with_retries
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
def pauses(monkeypatch):
    """The pauses, in place of waiting."""
    pauses: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    return pauses


def raised_in(module: str, text: str, cause: BaseException | None = None) -> RuntimeError:
    """A RuntimeError whose innermost frame is that of a module, as that of its caller is for the compiled hf_xet."""
    namespace = {"__name__": module, "cause": cause}
    exec("def fail(text):\n    raise RuntimeError(text) from cause", namespace)
    try:
        namespace["fail"](text)
    except RuntimeError as error:
        return error
    raise AssertionError


XET = raised_in("huggingface_hub.file_download", "Data processing error: CAS service error : ReqwestMiddleware Error")
SHORT = OSError("Consistency check failed: file should be of size 2 but has size 1")


@pytest.mark.parametrize(
    "error", [Answered(503), Answered(429), BrokenTransport(), TimeoutError(), ConnectionResetError(), SHORT, XET]
)
def test_three_transient_failures_are_sat_out_with_growing_pauses(error, pauses):
    action = Flaky(*[error] * (ATTEMPTS - 1))
    assert with_retries(action) == "done"
    assert pauses == [retry.FIRST_PAUSE * factor for factor in (1, 2, 4)]


def test_retries_end():
    action = Flaky(*[Answered(503)] * 99)
    with pytest.raises(Answered):
        with_retries(action)
    assert action.calls == ATTEMPTS


@pytest.mark.parametrize(
    "error",
    [Answered(401), Answered(403), Answered(404), Answered(409), Answered(412), OSError(errno.ENOSPC, "full"), KeyError("bug")],
)
def test_what_will_not_pass_is_raised_at_once(error, pauses):
    action = Flaky(error)
    with pytest.raises(type(error)):
        with_retries(action)
    assert (action.calls, pauses) == (1, [])


@pytest.mark.parametrize("text", ["cast failed", "the network has no layer 'head'", "xet", "reqwest"])
def test_a_bug_of_ours_is_no_failure_of_the_hub_whatever_its_words(text, pauses):
    action = Flaky(raised_in("lesion_hub.hub.format", text))
    with pytest.raises(RuntimeError, match=text), one_line_errors("org/m", "publishing"):
        with_retries(action)
    assert (action.calls, pauses) == (1, [])


def test_an_upload_that_huggingface_hub_gave_up_is_judged_by_its_cause():
    refusal, busy, bug = (
        raised_in("huggingface_hub._commit_api", "Error while uploading 'a' to the Hub.", cause)
        for cause in (Answered(403), Answered(503), KeyError("bug"))
    )
    assert [is_transient(error) for error in (refusal, busy, bug)] == [False, True, False]
    with refused("may not"), one_line_errors("org/m", "publishing"):
        raise refusal
    with pytest.raises(RuntimeError, match="Error while uploading"), one_line_errors("org/m", "publishing"):
        raise bug


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
        (XET, ["could not be reached", "CAS service error"]),
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
