"""Splitting an instruction into removable units, and taking a unit out.

Invariants: segments are in order, never overlap and are not blank; the text of each is
`instruction[start:end]`; there are at most `max_segments`. The segmentation of a model is used only if its
reply repeats the instruction to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from pmpo_ray.thoughts import without_thoughts
from pmpo_ray.types import Segment

Span = tuple[int, int]

_ITEM = re.compile(r"[ \t]*(?:[-*+•‣◦–—]|\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})[.)]|#{1,6})[ \t]+\S")
_ENUMERATOR = re.compile(r"[\W_]*\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})\.\s*")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]*_]*\s+(?=\S)|[。！？]+[”’」』）]*\s*(?=\S)")
_ABBREVIATION = re.compile(
    r"\b(?:(?:[A-Za-z]\.){2,}|(?:eg|ie|cf|vs|viz|approx|resp|incl|excl|figs?|eqs?|dr|mr|mrs|ms|prof)\.)$",
    re.IGNORECASE,
)
_BEFORE_NUMBER = re.compile(r"\b(?:nos?|vol|pp?|sec|ch|ex)\.$", re.IGNORECASE)
_INITIAL = re.compile(r"\b[A-Z]\w*[.,]?\s+[A-Z]\.$")
_TAG = re.compile(r"</?(?:mask|prompt|think)")
_PAIRS = (("“", "”"), ("«", "»"), ("(", ")"), ("[", "]"), ("{", "}"))


def rule_segments(text: str, max_segments: int = 5) -> tuple[Segment, ...]:
    """Split an instruction by rules: list items stay whole, other paragraphs are split into sentences.

    If that results in more than `max_segments` units, neighbours are merged, the shortest pair first. A text
    of one unit gives one segment, a blank text none.
    """
    units = [span for block in _blocks(text) for span in _sentences(text, block)]
    return tuple(Segment(start, end, text[start:end]) for start, end in _merged(units, max_segments))


def _blocks(text: str) -> Iterator[Span]:
    """List items with their continuation lines, and paragraphs with theirs, as trimmed spans."""
    block: Span | None = None
    for match in re.finditer(r"[^\n]+", text):
        line = _trimmed(text, match.span())
        if line is None:
            continue
        if block is not None and _continues(text, block, match.start(), line):
            block = (block[0], line[1])
            continue
        if block is not None:
            yield block
        block = line
    if block is not None:
        yield block


def _continues(text: str, block: Span, line_start: int, line: Span) -> bool:
    """True if a line continues the block before it, as in hard-wrapped text."""
    if text.count("\n", block[1], line_start) > 1 or _ITEM.match(text, line_start):
        return False
    indented = line[0] > line_start and _is_item(text, block)
    # A wrapped line may begin with a capital by chance, and splitting there cuts a sentence. But the text
    # after a heading or a label begins the same way, so a capital begins a unit.
    wrapped = text[line[0]].islower() and text[block[1] - 1] not in ".!?:;…"
    return indented or wrapped


def _is_item(text: str, block: Span) -> bool:
    return _ITEM.match(text, block[0], block[1]) is not None


def _sentences(text: str, block: Span) -> Iterator[Span]:
    if _is_item(text, block) and not _holds_inline_list(text, block):
        yield block
        return
    start = block[0]
    for match in _SENTENCE_END.finditer(text, *block):
        if match.end() < block[1] and _ends_sentence(text[start : match.end()], text[match.end()]):
            span = _trimmed(text, (start, match.end()))
            if span is not None:
                yield span
            start = match.end()
    span = _trimmed(text, (start, block[1]))
    if span is not None:
        yield span


def _holds_inline_list(text: str, block: Span) -> bool:
    """True if an item is a whole list in one line: "1. Read. 2. Think. 3. Answer."."""
    return re.search(r"[.!?;]\s+\(?\d{1,3}[.)]\s", text[block[0] : block[1]]) is not None


def _ends_sentence(sofar: str, following: str) -> bool:
    """True if a text that ends in sentence punctuation is a whole sentence, given the next character."""
    stripped = sofar.rstrip()
    if following.islower() or _ENUMERATOR.fullmatch(sofar):
        return False
    if _ABBREVIATION.search(stripped) or _INITIAL.search(stripped):
        return False
    if following.isdigit() and _BEFORE_NUMBER.search(stripped):
        return False
    # Inside quotes or brackets: a cut there would leave two incomplete halves.
    return stripped.count('"') % 2 == 0 and all(
        stripped.count(opening) <= stripped.count(closing) for opening, closing in _PAIRS
    )


def _merged(units: list[Span], limit: int) -> list[Span]:
    merged = list(units)
    while len(merged) > limit:
        joint = [after[1] - before[0] for before, after in pairwise(merged)]
        at = joint.index(min(joint))
        merged[at : at + 2] = [(merged[at][0], merged[at + 1][1])]
    return merged


def _trimmed(text: str, span: Span) -> Span | None:
    """The span without outer white space, None if it is blank."""
    part = text[span[0] : span[1]]
    core = part.strip()
    if not core:
        return None
    start = span[0] + part.index(core[0])
    return start, start + len(core)


def mask_prompt(instruction: str, max_segments: int) -> str:
    """The prompt for a model to mark segments (TIM's first step); `parse_masked` reads the reply."""
    return (
        "Mark the parts of an instruction that could each be left out without making the rest "
        "ungrammatical: a rule, a hint, a format demand, a remark about style.\n\n"
        "Copy the instruction below character by character between <prompt> and </prompt>. Put <mask> "
        f"before and </mask> after each such part; mark at least 1 and at most {max_segments} parts, and "
        "never one inside another. Add, drop and correct nothing else, and write nothing after </prompt>.\n\n"
        "For instance, the instruction\n"
        "Name the capital. Answer in one word.\n"
        "becomes\n"
        "<prompt><mask>Name the capital.</mask> <mask>Answer in one word.</mask></prompt>\n\n"
        f"The instruction:\n{instruction}\n"
    )


def parse_masked(reply: str, instruction: str, max_segments: int) -> tuple[Segment, ...] | None:
    """The segments that a model marked, or None unless its reply is valid in every respect.

    A reply is valid if the last <prompt> block without its tags is the instruction to the letter, except for
    outer white space, the <mask> tags are balanced and not nested, and there are 1 to `max_segments` parts,
    none blank. An instruction that contains such tags itself cannot be segmented this way.
    """
    if _TAG.search(instruction):
        return None
    answer = without_thoughts(reply)
    close = answer.rfind("</prompt>")
    opening = answer.rfind("<prompt>", 0, max(close, 0))
    if close < 0 or opening < 0:
        return None
    body = answer[opening + len("<prompt>") : close]
    marked = _marked(body)
    if marked is None or not 1 <= len(marked[1]) <= max_segments:
        return None
    plain, spans = marked
    if plain.strip() != instruction.strip():
        return None
    shift = _outer_space(instruction) - _outer_space(plain)
    segments: list[Segment] = []
    for span in spans:
        core = _trimmed(plain, span)
        if core is None:
            return None
        start, end = core[0] + shift, core[1] + shift
        segments.append(Segment(start, end, instruction[start:end]))
    return tuple(segments)


def _outer_space(text: str) -> int:
    return len(text) - len(text.lstrip())


def _marked(body: str) -> tuple[str, list[Span]] | None:
    """The body without its mask tags, and the spans between them; None if they do not pair."""
    plain = ""
    spans: list[Span] = []
    opened: int | None = None
    for piece in re.split(r"(</?mask>)", body):
        if piece == "<mask>":
            if opened is not None:
                return None
            opened = len(plain)
        elif piece == "</mask>":
            if opened is None:
                return None
            spans.append((opened, len(plain)))
            opened = None
        else:
            plain += piece
    return None if opened is not None else (plain, spans)


def without(instruction: str, segment: Segment, *, mode: Literal["drop", "token"], mask_token: str) -> str:
    """The instruction with one segment masked, for the importance dL_j.

    "drop" removes the segment and tidies the seam: the wider of the two gaps stays, never two spaces or two
    blank lines; list numbers stay as they are. The result may be empty. "token" puts `mask_token` in place of
    the segment. Raises ValueError if the segment does not belong to this instruction.
    """
    if instruction[segment.start : segment.end] != segment.text:
        raise ValueError(f"segment {segment.start}:{segment.end} does not belong to this instruction")
    left, right = instruction[: segment.start], instruction[segment.end :]
    if mode == "token":
        return left + mask_token + right
    before, after = left.rstrip(), right.lstrip()
    if not before or not after:
        return before or after
    left_gap, right_gap = left[len(before) :], right[: len(right) - len(after)]
    return before + _seam(left_gap, right_gap, after[0]) + after


def _seam(left_gap: str, right_gap: str, following: str) -> str:
    newlines = min(2, max(left_gap.count("\n"), right_gap.count("\n")))
    if newlines:
        indent = (right_gap if "\n" in right_gap else left_gap).rpartition("\n")[2]
        return "\n" * newlines + indent
    if following in ",.;:!?)":
        return ""
    return " " if left_gap or right_gap else ""
