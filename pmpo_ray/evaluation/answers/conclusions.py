"""The conclusion of a reply: without a check or remark behind it, and after answers that it takes back.

Invariants: a check with a conclusion or a mark behind it stays; an answer that is taken back counts only if
the reply confirms it in the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BREAK = re.compile(r"\n|[.!?…)*。！？] |[。！？…—]|, (?=(?:no,? |oh,? )?wait\b)")
"""The place before a line or a sentence, or before a "wait" within one."""
_CHECK = re.compile(
    r"[\s#>*_(-]{0,6}(?:(?:to|let me|let's|we can|quick|sanity|double|final)[ -]){0,3}"
    r"(?:check|verify|verification|cross-check|proof|note|probe|kontrolle|vérification|comprobación|verifica"
    r"|verificação|验证|验算|检验|検算|確認)(?:ing)?\b[^\n.:：,]{0,30}[:：,]",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"[\s#>*_]{0,6}(?:so|therefore|thus|hence|in total|in all|altogether|finally|the answer|answer"
    r"|also|somit|donc|por tanto|quindi|portanto|所以|因此)\b[^\n]{0,120}?[0-9(]",
    re.IGNORECASE,
)
_WITHDRAWAL = re.compile(
    r"[\s*_(-]{0,4}(?:(?:but|oh|ah|hm{1,4}|no|ok|okay|well|and|so|sorry)[,.…! -]{1,4}){0,3}"
    r"(?:wait\b|hold on\b|hm{1,4}\b|actually,|oops|correction\b|scratch that|on second thoughts?\b"
    r"|on reflection\b|let me (?:re-?|double[- ]?)?(?:check|consider|think|examine|do|count|calculate|compute"
    r"|read|weigh|verify)|i (?:made|see|spot|have made) (?:a|an|my|the) (?:mistake|error)"
    r"|i (?:forgot|misread|was wrong|miscounted)|that(?:'s| is| was|’s) (?:wrong|not right|incorrect"
    r"|not correct)|my mistake|i need to correct|(?:no|sorry), (?:it|that|this|i)\b"
    r"|(?:moment|warte|halt|attend(?:s|ez)|esper[ae]|un momento|aspetta)[,.!…]|等等|等一下|不对|いや|待って)",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"(?:\b(?:so|therefore|thus|hence|then|it(?:'s| is|’s)|must be|should be|is actually|makes?|gives?"
    r"|leaves?|total|altogether|in all)\b|[=≈]|所以|因此|应该是)",
    re.IGNORECASE,
)
_INSTEAD = re.compile(
    r"\b(?:wait|no|sorry|correction|oops|hm{1,4})[\s,:.…!-]{1,4}"
    r"(?=[$€£(]?[0-9A-Z][\d.,]{0,20}[%)]?(?: \w+)?[.!]?\s*\Z)",
    re.IGNORECASE,
)
"""A word that takes an answer back, and nothing but another answer behind it."""
_ANNOUNCED = re.compile(r"[0-9(]|\b[A-HJ-Z]\b")
_REMARK_CHARACTERS = 400
_NEAR = 80
"""Number of characters between a cue and the answer that it announces."""
_CONFIRMED = re.compile(
    r"\W*(?:yes|yep|yeah|correct|right|confirmed|indeed|ja|oui|sí|没错|正确|对的)(?![a-z])"
    r"|.*\b(?:that|this|it|everything|all|answer|result|calculation)(?:'s| is| was|’s)?(?: \w+)? (?:right"
    r"|correct|fine|consistent|holds|matches|checks out|works|stands|confirmed)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|wrong|incorrect|isn['’]t|doesn['’]t|no)\b", re.IGNORECASE)
_REMARK = re.compile(r"(?:(?<=[.!?] )|(?<=[.!?]\n)|(?<=[.!?]\n\n))\([^()\s]+\s[^()]{1,300}\)\s*\Z")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n|(?<=[。！？])")


def _starts(reply: str) -> list[int]:
    """The places where lines and sentences of a reply begin."""
    return [0, *(match.end() for match in _BREAK.finditer(reply))]


def without_check(reply: str, after: int) -> str:
    """The reply without a check or a remark in brackets at its end that begins behind the position `after`;
    the whole reply if nothing else is in it."""
    remark = _REMARK.search(reply, max(0, len(reply) - _REMARK_CHARACTERS))
    if remark is not None and remark.start() > after and re.search(r"\w", reply[: remark.start()]):
        reply = reply[: remark.start()]
    starts = [start for start in _starts(reply) if start > after]
    checks = [start for start in starts if start and _CHECK.match(reply, start)]
    if not checks:
        return reply
    last = max((start for start in starts if _CONCLUSION.match(reply, start)), default=-1)
    return next((reply[:start] for start in checks if start > last), reply)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The place where a reply takes its answer back: the text before it, the text from it on, the part of
    that from its last conclusion on (empty if there is none), and if it confirms the answer in the end."""

    head: str
    tail: str
    conclusion: str
    confirmed: bool


def withdrawal(reply: str, after: int) -> Withdrawal | None:
    """The last place behind the position `after` where a reply takes an answer back."""
    places = [start for start in _starts(reply) if start > after and _WITHDRAWAL.match(reply, start)]
    if not places:
        return None
    tail = reply[places[-1] :]
    cues = [match.start() for match in _CUE.finditer(tail)]
    announced = [cue for cue in cues if _ANNOUNCED.search(tail, cue + 1, cue + _NEAR)]
    announced += [match.end() for match in _INSTEAD.finditer(tail)]
    last = next((text for text in reversed(_SENTENCES.split(tail)) if text.strip()), "")
    confirmed = bool(_CONFIRMED.match(last)) and not _DENIED.search(last) and not _ANNOUNCED.search(last)
    return Withdrawal(reply[: places[-1]], tail, tail[announced[-1] :] if announced else "", confirmed)
