"""Secrets in texts: recognised, and removed.

Invariant: the output of a `Redaction` contains neither the value of an environment variable with a secret's
name, nor credentials in a URL, nor a text in the form of a known kind of key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
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
_URL_PARAMETER = re.compile(
    r"(?<=[?&])((?:[\w.-]{0,100}[_.-])?(?:api_?key|key|token|secret|password|passwd|pwd|auth|signature|sig)=)[^\s&#'\"]+",
    re.IGNORECASE,
)
_KEY_FORMS: Mapping[str, str] = MappingProxyType(
    {
        "sk-": r"sk-[\w-]{16,}",
        "sk_": r"[sr]k_(?:live|test)_\w{10,}",
        "hf_": r"hf_[A-Za-z0-9]{20,}",
        "gh": r"(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})",
        "glpat-": r"glpat-[\w-]{16,}",
        "AKIA": r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])",
        "AIza": r"AIza[\w-]{30,}",
        "ya29.": r"ya29\.[\w-]{20,}",
        "xox": r"xox[abeoprs]-[\w-]{10,}",
        "gsk_": r"gsk_[A-Za-z0-9]{20,}",
        "nvapi-": r"nvapi-[\w-]{20,}",
        "xai-": r"xai-[A-Za-z0-9]{20,}",
        "pplx-": r"pplx-[A-Za-z0-9]{20,}",
        "r8_": r"r8_[A-Za-z0-9]{20,}",
        "npm_": r"npm_[A-Za-z0-9]{30,}",
        "pypi-": r"pypi-[\w-]{40,}",
        "dapi": r"dapi[0-9a-f]{32}",
        "SG.": r"SG\.[\w-]{16,}\.[\w-]{16,}",
        "eyJ": r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?",
        "Bearer ": r"(?i:bearer)\s+(?=\S*\d)[\w.~+/=-]{12,}",
        "Basic ": r"(?i:basic)\s+(?=\S*\d)[A-Za-z0-9+/]{12,}={0,2}(?![\w.])",
        "-----BEGIN": (
            r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[\s\S]*?-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|[\s\S]*)"
        ),
    }
)
"""The forms of keys that can be told from other texts, by how they begin."""
_KEY = re.compile(rf"(?<![\w./-])(?:{'|'.join(_KEY_FORMS.values())})")
# Behind a slash such a text may be the name of a model or a folder.
_FORMS = tuple((begins, re.compile(rf"(?<![\w./-]){form}")) for begins, form in _KEY_FORMS.items())


def key_form(text: str) -> str | None:
    """How the secret in `text` begins ("sk-", "://"), if it holds a known kind of key, or an address with
    credentials; None if it does not. The name "anonymous" is no credential."""
    address = text.replace("://anonymous@", "://")
    if _URL_CREDENTIALS.search(address) or _URL_PARAMETER.search(address):
        return "://"
    return next((begins for begins, form in _FORMS if form.search(text)), None)


class Redaction:
    """Replaces secrets in a text by HIDDEN: credentials in URLs, known kinds of keys, and the values of the
    variables of `environ` whose names end in TOKEN, KEY, SECRET, PASSWORD or CREDENTIALS. Values are
    recognised whole or line by line, verbatim, percent-encoded, or escaped as by repr(). A secret that was
    cut before is not recognised."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        named = [value for name, value in environ.items() if name.upper().endswith(_SECRET_NAMES)]
        forms = {form for value in named for form in _spellings(value)}
        # If one secret is the beginning of another, the longer one has to be replaced whole.
        longest_first = sorted(forms, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, text: str) -> str:
        if self._secrets is not None:
            text = self._secrets.sub(HIDDEN, text)
        text = _URL_CREDENTIALS.sub(f"://{HIDDEN}@", text)
        return _KEY.sub(HIDDEN, _URL_PARAMETER.sub(rf"\1{HIDDEN}", text))


def _spellings(secret: str) -> Iterator[str]:
    # A key of several lines may be printed, and cut, line by line.
    for plain in map(str.strip, (secret, *secret.splitlines())):
        if len(plain) >= _SECRET_CHARS:
            yield plain
            yield quote(plain, errors="replace")
            yield quote(plain, safe="", errors="replace")
            yield repr(plain)[1:-1]
