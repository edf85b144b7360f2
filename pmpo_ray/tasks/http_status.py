"""Check if a server answers at all.

Invariants: an answer with any status counts; a server that cannot be reached is reported within seconds, not
counting the time that the system takes to look up its name.
"""

from __future__ import annotations

import urllib.error
import urllib.request

from pmpo_ray.text import error_line

_TIMEOUT_SECONDS = 5.0
_REASON_CHARS = 200


def http_status(url: str) -> int:
    """The status of a server's answer to a HEAD request. Raises OSError if it does not answer, ValueError if
    `url` is not a URL."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the user's own server
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


def status_or_reason(url: str) -> int | str:
    """The status of a server's answer, or the reason why it does not answer."""
    try:
        return http_status(url)
    except (OSError, ValueError) as error:
        return error_line(error, _REASON_CHARS)
