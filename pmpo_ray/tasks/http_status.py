"""Whether a server answers at all.

Invariants: an answer of any kind counts; a server that cannot be reached is told within seconds, but for the
time that the system takes to look up its name.
"""

from __future__ import annotations

import urllib.error
import urllib.request

from pmpo_ray.text import error_line

_REACH_SECONDS = 5.0


def http_status(url: str) -> int:
    """The status with which a server answers a request for nothing but headers. Raises OSError where it does
    not answer, ValueError where `url` is none."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the user's own server
    try:
        with urllib.request.urlopen(request, timeout=_REACH_SECONDS) as answer:  # noqa: S310
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


def ask_status(url: str) -> int | str:
    """The status with which a server answers, or why it does not."""
    try:
        return http_status(url)
    except (OSError, ValueError) as error:
        return error_line(error, 200)
