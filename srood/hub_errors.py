"""Failures of the Hub: which are worth another try and after how long, and what each means to a person."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

WAITS = (0.5, 1.0)  # seconds before the second and third try of a request; the client's own retries take 23 s in all
PATIENT = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # the same where hours of work stand behind it: a stream of rows
LONGER = 4.0  # times a wait, where the Hub asks for more
TRY_AGAIN = {408, 429, 500, 502, 503, 504}
Result = TypeVar("Result")


def retry(request: Callable[[], Result], waits: Sequence[float] = WAITS) -> Result:
    """What a request returns, tried again after each of `waits` (seconds) while the Hub does not answer.

    Where the Hub says itself how long to wait, up to four times as long is waited. The last failure is raised.
    """
    for wait in waits:
        try:
            return request()
        except Exception as error:
            if not unreachable(error) or _is_offline(error):
                raise
            asked = _retry_after(error)
        time.sleep(max(wait, min(asked, LONGER * wait)))
    return request()


def _retry_after(error: BaseException) -> float:
    """Seconds that the Hub asks to wait (RFC 9110, Retry-After), 0 where it does not say or names a date."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    value = str(headers.get("Retry-After", ""))
    return float(value) if value.isdecimal() and value.isascii() else 0.0


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_offline(error: BaseException) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def unreachable(error: BaseException) -> bool:
    """Whether the Hub did not answer (or failed to), rather than refuse."""
    status = _status(error)
    # a ValueError is about what was asked: a repository name that cannot be one, for instance
    return status in TRY_AGAIN if status is not None else not isinstance(error, ValueError)


def explain(error: BaseException) -> str:
    """One line: what is wrong, and what to do. It never holds the user's token."""
    from huggingface_hub import errors, get_token

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return explain(error.__cause__)  # "not in the cache either": what matters is why it was not downloaded
    if isinstance(error, errors.GatedRepoError):
        return "is gated; accept its terms on its page on the Hub and log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "has no such revision; name a branch, a tag or a full commit"
    # whoever is not logged in gets a 401 for a repository that does not exist
    if isinstance(error, errors.RepositoryNotFoundError) or (_status(error) == 401 and not get_token()):
        return "no such dataset repository, or it is private: check the name, or log in with `hf auth login`"
    if _is_offline(error):
        return "is not in the cache and HF_HUB_OFFLINE is set; unset it, or use local files"
    if isinstance(error, errors.HFValidationError):
        return "is not the name of a repository; give owner/name"
    status = _status(error)
    if status in (401, 403):
        return f"the Hub refuses access (HTTP {status}); log in with `hf auth login`, or unset a wrong HF_TOKEN"
    if status == 404:
        return "no such file in the repository; check the revision"
    if status == 429:
        return "the Hub limits the rate of requests (HTTP 429); log in with `hf auth login`, or wait and try again"
    if status is not None:
        return f"the Hub fails (HTTP {status}); try again later, or use local files"
    if (token := _unsendable_token(error)) is not None:
        return token
    text = _one_line(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return f"cannot be written into the Hub's cache ({text}); free it, or set HF_HOME to another folder"
    return f"the Hub cannot be reached ({type(error).__name__}: {text}); check the network, or use local files"


def explain_upload(error: BaseException) -> str:
    """As `explain`, of what was to be written to the Hub."""
    from huggingface_hub import errors

    if (token := _unsendable_token(error)) is not None:
        return token
    if _is_offline(error):
        return "HF_HUB_OFFLINE is set; unset it"
    status = _status(error)
    if status == 401:
        return (
            "the Hub does not accept the token (HTTP 401); log in again with `hf auth login`, or unset a wrong HF_TOKEN"
        )
    if status == 403:
        return "the token may not write there (HTTP 403); use one with write access, or name a repository of your own"
    if isinstance(error, errors.RevisionNotFoundError):
        return "has no such branch; check --revision"
    if status == 404:
        return "no such repository, or the token may not see it (HTTP 404); check the name"
    if status in (409, 412):
        return f"the Hub reports a conflict with another change (HTTP {status}); try again"
    if status == 429:
        return "the Hub limits the rate of requests (HTTP 429); wait and try again"
    if status is not None and status >= 500:
        return f"the Hub fails (HTTP {status}); try again later"
    if status is not None or isinstance(error, ValueError):
        reason = f"HTTP {status}: {_said(error)}" if status is not None else _one_line(error)
        return f"the Hub refuses it ({reason}); correct that and try again"
    return f"the Hub cannot be reached ({type(error).__name__}: {_one_line(error)}); check the network"


def _said(error: BaseException) -> str:
    """What the Hub itself says of a failure."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return " ".join(str(headers.get("X-Error-Message", "it does not say why")).split())[:160]


def _one_line(error: BaseException) -> str:
    # an address to upload to or to download from is signed in its query
    return " ".join(re.sub(r"\?[^\s'\")]*=[^\s'\")]*", "", str(error)).split())[:160]


def _unsendable_token(error: BaseException) -> str | None:
    # the client quotes a header that it cannot send
    if "Bearer" in str(error) or isinstance(error, UnicodeEncodeError):
        return "the token holds a character that cannot be sent; log in again with `hf auth login`, or unset HF_TOKEN"
    return None
