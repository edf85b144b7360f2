"""Secrets taken out of texts.

Invariant: neither the value of an environment variable that is named like a secret nor credentials within a
URL pass through a `Redaction`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

Redact = Callable[[str], str]
HIDDEN = "***"
_SECRET_NAMES = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIALS")
_SECRET_CHARS = 8
"""Shorter values are too likely to be part of ordinary words."""
_URL_CREDENTIALS = re.compile(
    # A password may hold a "/" or "@" that should have been escaped; what stands there may also be a port.
    r"://(?:[^\s/?#@:]{1,1000}:(?!\d+[/?#])\S{1,1000}|[^\s/?#]{1,1000})@"
)


class Redaction:
    """Replaces secrets in a text by HIDDEN: credentials in URLs, and the values of those variables of
    `environ` whose names end like a secret's, whole or line by line, as they are, percent-encoded, or escaped
    as by repr(). A secret that was cut before it came here is not recognised."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        named = [value for name, value in environ.items() if name.upper().endswith(_SECRET_NAMES)]
        forms = {form for value in named for form in _spellings(value)}
        # Where one secret begins another, the longer one has to go whole.
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
