"""A model's chat template: the layout that it supports, and conversations as text.

Invariants:
- Every conversation is rendered whole by the template itself, with its own instruction and demonstrations, so
  that no turn is assumed to look alike in two places. Only the input and the answer are put in afterwards, as
  the template shows them; an input with which the rest changes is rendered with it.
- Contents are data: the template's engine never evaluates them, and their special tokens stay plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from pmpo_ray.engines.answer_header import closing_tag, header_and_lead, header_note
from pmpo_ray.engines.conversation import Message, chat_messages, message
from pmpo_ray.engines.text_tokens import TextTokens, random_word
from pmpo_ray.errors import EngineError, ModelError
from pmpo_ray.text import error_line, excerpt
from pmpo_ray.types import Example, Layout, LayoutSetting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Contents that stand for others: words that no text contains and no template alters.
_SYSTEM, _INPUT, _ANSWER, _THOUGHT = (random_word() for _ in range(4))
_SHOTS = tuple(Example(name, random_word(), random_word()) for name in "ab")


@dataclass(frozen=True, slots=True)
class Frame:
    """The text of a conversation around its last input and the answer to it. Contents are guarded, special
    tokens are not marked (`TextTokens`).

    `pieces` stand around every place of the input: usually two. The last one is the generation prompt;
    `header` replaces it in front of an answer that is given, `writing` in front of one that the model writes.
    `lead` is the white space at the beginning of an answer, `closing` what ends it.
    """

    pieces: tuple[str, ...]
    header: str
    writing: str
    lead: str
    closing: str


class ChatTemplate:
    """The chat template of `tokenizer`.

    `layout` is the first of "system" and "user" that the template shows in conversations of 0, 1 and 2
    demonstrations, or the requested one. `day` is the date in the prompts of templates that show one (None:
    today's). `note` is what a user should know about the prompts, empty for nothing.

    Raises ModelError if the template shows no input, or not in the requested layout.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tokens: TextTokens,
        layout: LayoutSetting,
        day: date | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        # The name under which templates ask for today's date.
        self._variables: dict[str, Any] = {} if day is None else {"strftime_now": day.strftime}
        self._counts = [count for count in range(3) if self._shows("user", count)]
        self.layout: Layout = self._choose_layout(layout)
        self._asks = self._asks_for_answers()
        firsts = (True, False) if self.takes_shots else (True,)
        self._bare = {first: self._frame(self._bare_messages(_INPUT, first)) for first in firsts}
        bare = self._bare[True]
        self.note = header_note(bare.pieces[-1], bare.header) if self._asks else ""

    @property
    def takes_shots(self) -> bool:
        """True if the template shows demonstrations as earlier turns."""
        return len(self._counts) == 3

    def frame(self, instruction: str, shots: Sequence[Example]) -> Frame:
        """The conversation of an instruction and demonstrations, around any input and answer. Raises
        EngineError if the template refuses it."""
        if shots and not self.takes_shots:
            raise EngineError(
                f"{self._name}: its chat template shows no earlier turns; use no demonstrations "
                "(split.shots, evaluation.shots), or set scorer.layout: plain"
            )
        return self._frame(self._guarded(chat_messages(self.layout, instruction, shots, _INPUT)))

    def shown_input(self, text: str, *, first: bool) -> str | None:
        """The input as the template shows it in its turn, guarded: without outer white space, for example.
        `first`: no demonstrations come before it. None if more than the place of the input changes."""
        frame, guarded = self._bare[first], self._tokens.guard(text)
        rendered = self._render(self._bare_messages(guarded, first), ask=True)
        if guarded.join(frame.pieces) == rendered:
            return guarded
        middle = _between(rendered, frame.pieces[0], frame.pieces[-1])
        return middle if len(frame.pieces) == 2 else None

    def shown_answer(self, text: str) -> str:
        """The answer as the template shows it, guarded: without outer white space if it takes that off."""
        guarded = self._tokens.guard(text)
        if text == text.strip():
            return guarded
        conversation = self._bare_messages(_INPUT, first=True)
        before, _, after = self._told(conversation).partition(_ANSWER)
        if not before:
            return guarded
        middle = _between(self._answered(conversation, guarded), before, after)
        return middle if middle is not None and middle.strip() == guarded.strip() else guarded

    def whole(self, instruction: str, shots: Sequence[Example], text: str, frame: Frame) -> str:
        """The conversation up to the end of its input, rendered with it. Raises EngineError if `frame` does
        not end it."""
        messages = self._guarded(chat_messages(self.layout, instruction, shots, text))
        rendered, asked = self._render(messages, ask=True), frame.pieces[-1]
        if not rendered.endswith(asked):
            raise EngineError(
                f"{self._name}: its chat template ends a conversation otherwise for the input "
                f"{excerpt(text, 40)!r}; leave it out, or set scorer.layout: plain"
            )
        return rendered.removesuffix(asked)

    @property
    def _name(self) -> str:
        return f"model {self._tokenizer.name_or_path!r}"

    def _guarded(self, messages: Sequence[Message]) -> list[Message]:
        return [message(one["role"], self._tokens.guard(one["content"])) for one in messages]

    def _bare_messages(self, text: str, first: bool) -> list[Message]:
        return chat_messages(self.layout, _SYSTEM, () if first else _SHOTS[:1], text)

    def _render(self, messages: Sequence[Message], *, ask: bool) -> str:
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=ask,
                enable_thinking=False,
                **self._variables,
            )
        except TemplateError as error:
            raise EngineError(
                f"{self._name}: its chat template refuses a conversation ({error_line(error)}); set "
                "scorer.layout: plain"
            ) from None
        if not isinstance(text, str):
            raise ModelError(f"{self._name}: its chat template renders no text")
        return text

    def _answered(self, messages: Sequence[Message], answer: str, **fields: str) -> str:
        return self._render([*messages, message("assistant", answer) | fields], ask=False)

    def _frame(self, messages: Sequence[Message]) -> Frame:
        pieces = tuple(self._render(messages, ask=True).split(_INPUT))
        if len(pieces) < 2:
            raise EngineError(f"{self._name}: its chat template drops the input; set scorer.layout: plain")
        asked = pieces[-1]
        told, _, after = self._told(messages).partition(_ANSWER)
        shown = told.rpartition(_INPUT)[2] if _INPUT in told else asked
        header, lead = header_and_lead(asked, shown, lambda text: self._thought_end(messages, text))
        writing = asked.rstrip(" \t") if self._asks else header
        closing = self._tokens.up_to_added(after) or self._end_of_sequence()
        return Frame(pieces, header, writing, lead, closing)

    def _told(self, messages: Sequence[Message]) -> str:
        """The conversation with an answer at its end; empty if the template refuses one there."""
        try:
            return self._answered(messages, _ANSWER)
        except EngineError:
            return ""

    def _thought_end(self, messages: Sequence[Message], asked: str) -> str:
        """The text that closes an empty thought behind the generation prompt: the template's own where it
        shows thoughts."""
        told = self._answered(messages, _ANSWER, reasoning_content=_THOUGHT)
        shown = told.partition(_ANSWER)[0].rpartition(_INPUT)[2]
        opened, found, closing = shown.partition(_THOUGHT)
        return closing if found and opened.rstrip() == asked.rstrip() else closing_tag(asked)

    def _end_of_sequence(self) -> str:
        end = self._tokenizer.eos_token
        if not isinstance(end, str):
            raise ModelError(
                f"{self._name}: neither its chat template nor its tokenizer names an end-of-turn token; set "
                "scorer.layout: plain"
            )
        return end

    def _asks_for_answers(self) -> bool:
        """False if the template makes no generation prompt, as those that end a user's turn by a mark."""
        messages = self._bare_messages(_INPUT, first=True)
        return self._render(messages, ask=True) != self._render(messages, ask=False)

    def _choose_layout(self, setting: LayoutSetting) -> Layout:
        if setting == "user" or (setting == "auto" and not self._takes_system_turn()):
            if 0 not in self._counts:
                raise ModelError(f"{self._name}: its chat template drops a turn; set scorer.layout: plain")
            return "user"
        if setting == "system" and not self._takes_system_turn():
            raise ModelError(f"{self._name}: its chat template takes no system turn; set scorer.layout: user")
        return "system"

    def _takes_system_turn(self) -> bool:
        return all(self._shows("system", count) for count in self._counts or (0,))

    def _shows(self, layout: Layout, count: int) -> bool:
        """True if the template shows every content of a conversation with `count` demonstrations, and the
        instruction before the input."""
        shots = _SHOTS[:count]
        try:
            text = self._render(chat_messages(layout, _SYSTEM, shots, _INPUT), ask=True)
        except EngineError:
            return False
        shown = all(shot.input in text and shot.target in text for shot in shots)
        return shown and 0 <= text.find(_SYSTEM) < text.rfind(_INPUT)


def _between(text: str, before: str, after: str) -> str | None:
    """The part of `text` between two others; None if it does not begin and end with them."""
    if len(text) < len(before) + len(after) or not (text.startswith(before) and text.endswith(after)):
        return None
    return text[len(before) : len(text) - len(after)]
