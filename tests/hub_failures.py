"""What a command says when the Hub fails while something is uploaded."""

from __future__ import annotations


def line_of(result: tuple[int, str, str]) -> str:
    """The one line that a failed command prints after what the client may have said."""
    code, out, err = result
    assert code == 2 and out == "" and "SecretToken" not in err and "Traceback" not in err
    *_, last = err.strip().splitlines()
    assert last.startswith("error: ")
    return last.removeprefix("error: ")


REFUSED = "the Hub does not accept the token (HTTP 401)"
FORBIDDEN = "the token may not write there (HTTP 403)"
CONFLICT = "the Hub reports a conflict with another change (HTTP 409); try again"
LIMITED = "the Hub limits the rate of requests (HTTP 429); wait and try again"
FAILS = "the Hub fails (HTTP 500); try again later"
UNREACHABLE = "the Hub cannot be reached ("

# status (None: the connection is cut), path of the requests that fail, what the line begins with
FAILURES = [
    (401, "", REFUSED),
    (403, "", FORBIDDEN),
    (409, "/commit/", CONFLICT),
    (412, "/commit/", CONFLICT.replace("409", "412")),
    (429, "", LIMITED),
    (500, "", FAILS),
    (None, "", UNREACHABLE),
    (403, "/preupload/", FORBIDDEN),
    (500, "/preupload/", FAILS),
    (403, "/lfs/", FORBIDDEN),
    (500, "/lfs/", FAILS),
    (None, "/lfs/", UNREACHABLE),
    (401, "/commit/", REFUSED),
    (429, "/commit/", LIMITED),
    (None, "/commit/", UNREACHABLE),
    (413, "/commit/", "the Hub refuses it (HTTP 413: planned); correct that and try again"),
]
