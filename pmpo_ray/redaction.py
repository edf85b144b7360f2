"""Secrets removed from texts.

Invariant: the output of a `Redaction` contains neither the value of an environment variable with a secret's
name nor credentials in a URL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

Redact = Callable[[str], str]
HIDDEN = "***"
_SECRET_NAMES = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIALS")
_SECRET_CHARS = 8
"""Minimum length of a secret: shorter values are too likely to be part of ordinary words."""
_URL_CREDENTIALS = re.compile(
    # A password may contain an unescaped "/" or "@"; digits after the colon may also be a port.
    r"://(?:[^\s/?#@:]{1,1000}:(?!\d+[/?#])\S{1,1000}|[^\s/?#]{1,1000})@"
)


class Redaction:
    """Replaces secrets in a text by HIDDEN: credentials in URLs, and the values of the variables of `environ`
    whose names end in TOKEN, KEY, SECRET, PASSWORD or CREDENTIALS. Values are recognised whole or line by
    line, verbatim, percent-encoded, or escaped as by repr(). A secret that was cut before is not
    recognised."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        named = [value for name, value in environ.items() if name.upper().endswith(_SECRET_NAMES)]
        forms = {form for value in named for form in _spellings(value)}
        # If one secret is the beginning of another, the longer one has to be replaced whole.
        longest_first = sorted(forms, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, text: str) -> str:
        if self._secrets is not None:
            text = self._secrets.sub(HIDDEN, text)
        return _URL_CREDENTIALS.sub(f"://{HIDDEN}@", text)


def _spellings(secret: str) -> Iterator[str]:
    # A key of several lines may be printed, and cut, line by line.
    for plain in map(str.strip, (secret, *secret.splitlines())):
        if len(plain) >= _SECRET_CHARS:
            yield plain
            yield quote(plain, errors="replace")
            yield quote(plain, safe="", errors="replace")
            yield repr(plain)[1:-1]
