"""Encode (instruction, shots, input, answer) as token ids, for chat models and base models.

Invariants:
- The context of an example is `prefix(instruction, shots) + question(input)`; the prefix holds, token for
  token, everything that the examples of one instruction share.
- Only the model's own template yields special tokens. Instructions, inputs and answers are plain text: a
  string such as "<|im_end|>" inside them is tokenised as plain characters and can't end a turn.
- An answer is tokenised separately from its context and closed by the end-of-turn token, so that a short
  answer does not win merely because it is the beginning of a longer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from pmpo_ray.errors import ModelError
from pmpo_ray.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Layout = Literal["system", "user", "plain"]
LayoutSetting = Literal["auto", "system", "user", "plain"]
Tokens = tuple[int, ...]

# Placeholders for contents while a chat template is rendered; letters only, so that no template alters them.
_SYSTEM, _INPUT, _ANSWER = "PMPOSLOTSYSTEM", "PMPOSLOTINPUT", "PMPOSLOTANSWER"

PLAIN_INPUT = "Input: "
PLAIN_OUTPUT = "\nOutput:"
PLAIN_END = "\n\n"
USER_GAP = "\n\n"
"""Text between the instruction and the input if both are in the user's turn."""


@dataclass(frozen=True, slots=True)
class ChatParts:
    """The fixed pieces of a chat template, as tokens: those before and after each content."""

    before_system: Tokens
    between: Tokens
    before_answer: Tokens
    between_turns: Tokens
    end_of_turn: Tokens


class PromptEncoder:
    """Turns texts into the token ids of one model's prompts.

    `layout`: "system" puts the instruction into a system turn, "user" at the head of the first user
    turn, "plain" into running text for base models; "auto" takes the first that the model's chat template
    supports, and "plain" if it has none. Raises ModelError if the template doesn't support the requested
    layout.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, layout: LayoutSetting = "auto") -> None:
        self._tokenizer = tokenizer
        self.layout: Layout = _choose_layout(tokenizer, layout)
        self._guard = self._text_ids("\n") if _adds_dummy_prefix(tokenizer) else ()
        self._parts = None if self.layout == "plain" else self._chat_parts()
        self._encode_text = lru_cache(maxsize=65536)(self._encode_uncached)

    @property
    def end_of_turn(self) -> Tokens:
        """The tokens that close an answer."""
        return self._encode_text(PLAIN_END) if self._parts is None else self._parts.end_of_turn

    def prefix(self, instruction: str, shots: Sequence[Example] = ()) -> Tokens:
        """The beginning of every example of this instruction: the instruction, and the shots as earlier
        turns, up to the first token of the example's input."""
        if self._parts is None:
            return self._plain_prefix(instruction, shots)
        ids = [*self._parts.before_system, *self._encode_text(instruction), *self._parts.between]
        for shot in shots:
            ids += [*self._encode_text(shot.input), *self._parts.before_answer]
            ids += [*self._encode_text(shot.target), *self._parts.between_turns]
        return tuple(ids)

    def question(self, text: str) -> Tokens:
        """The input of an example, and the tokens between it and the answer's first token."""
        if self._parts is None:
            return self._encode_text(text) + self._encode_text(PLAIN_OUTPUT)
        return self._encode_text(text) + self._parts.before_answer

    def answer(self, text: str) -> Tokens:
        """An answer with its end-of-turn token: the tokens that are scored."""
        lead = " " if self._parts is None else ""
        return self._encode_text(lead + text) + self.end_of_turn

    def turn(self, prompt: str) -> Tokens:
        """A single user turn without any instruction, up to the answer's first token; for a base model
        the text itself, to be continued."""
        if self._parts is None:
            return self._beginning() + self._encode_text(prompt)
        messages = [{"role": "user", "content": _INPUT}]
        before, after = _split(_render(self._tokenizer, messages, ask=True), _INPUT)
        return self._template_ids(before) + self._encode_text(prompt) + self._template_ids(after)

    def _plain_prefix(self, instruction: str, shots: Sequence[Example]) -> Tokens:
        ids = [*self._beginning(), *self._encode_text(instruction), *self._encode_text(PLAIN_END)]
        for shot in shots:
            ids += self._encode_text(PLAIN_INPUT) + self._encode_text(shot.input)
            ids += self._encode_text(PLAIN_OUTPUT) + self._encode_text(" " + shot.target)
            ids += self._encode_text(PLAIN_END)
        return tuple(ids) + self._encode_text(PLAIN_INPUT)

    def _beginning(self) -> Tokens:
        """The beginning-of-sequence token, if the tokenizer itself would add one."""
        bos = self._tokenizer.bos_token_id
        starts = self._tokenizer("a")["input_ids"]
        return (bos,) if bos is not None and starts and starts[0] == bos else ()

    def _chat_parts(self) -> ChatParts:
        system = self.layout == "system"
        first = [{"role": "system", "content": _SYSTEM}] if system else []
        content = _INPUT if system else f"{_SYSTEM}{USER_GAP}{_INPUT}"
        first.append({"role": "user", "content": content})
        turn = [*first, {"role": "assistant", "content": _ANSWER}]
        following = [*turn, {"role": "user", "content": _INPUT + "NEXT"}]

        before, rest = _split(_render(self._tokenizer, first, ask=True), _SYSTEM)
        between, header = _split(rest, _INPUT)
        closing = _split(_render(self._tokenizer, turn, ask=False), _ANSWER)[1]
        to_next = _split(_split(_render(self._tokenizer, following, ask=True), _ANSWER)[1], _INPUT + "NEXT")[
            0
        ]
        return ChatParts(
            before_system=self._template_ids(before),
            between=self._template_ids(between),
            before_answer=self._template_ids(header),
            between_turns=self._template_ids(to_next),
            end_of_turn=self._end_of_turn(self._template_ids(closing)),
        )

    def _end_of_turn(self, closing: Tokens) -> Tokens:
        """The template's tokens after an answer, up to its first special token; without one, the model's
        end-of-sequence token."""
        special = set(self._tokenizer.all_special_ids) | set(self._tokenizer.added_tokens_decoder)
        for index, token in enumerate(closing):
            if token in special:
                return closing[: index + 1]
        if self._tokenizer.eos_token_id is None:
            raise ModelError(
                f"model {self._tokenizer.name_or_path!r}: neither its chat template nor its tokenizer names "
                "an end-of-turn token; set scorer.layout: plain"
            )
        return (self._tokenizer.eos_token_id,)

    def _template_ids(self, text: str) -> Tokens:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _text_ids(self, text: str) -> Tokens:
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return tuple(encoded["input_ids"])

    def _encode_uncached(self, text: str) -> Tokens:
        if not text:
            return ()
        if self._guard:
            # A tokenizer that adds a space before every text would add one in the middle of the prompt.
            return self._text_ids("\n" + text)[len(self._guard) :]
        return self._text_ids(text)


def _adds_dummy_prefix(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    token = tokenizer.convert_ids_to_tokens(ids[0]) if ids else ""
    return isinstance(token, str) and token.startswith(("▁", "Ġ")) and tokenizer.decode(ids) != " a"


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, ask: bool) -> str:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=ask, enable_thinking=False
    )
    if not isinstance(text, str):
        raise ModelError(f"model {tokenizer.name_or_path!r}: its chat template renders no text")
    return text


def _split(text: str, slot: str) -> tuple[str, str]:
    before, found, after = text.partition(slot)
    if not found:
        raise ModelError("the model's chat template drops a turn; set scorer.layout: user or plain")
    return before, after


def _choose_layout(tokenizer: PreTrainedTokenizerBase, setting: LayoutSetting) -> Layout:
    if setting == "plain" or (setting == "auto" and not tokenizer.chat_template):
        return "plain"
    if not tokenizer.chat_template:
        raise ModelError(
            f"model {tokenizer.name_or_path!r} has no chat template; set scorer.layout: plain or auto"
        )
    if setting == "user":
        return "user"
    if _takes_system_turn(tokenizer):
        return "system"
    if setting == "system":
        raise ModelError(
            f"model {tokenizer.name_or_path!r}: its chat template takes no system turn; "
            "set scorer.layout: user"
        )
    return "user"


def _takes_system_turn(tokenizer: PreTrainedTokenizerBase) -> bool:
    from jinja2 import TemplateError

    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _INPUT}]
    try:
        text = _render(tokenizer, messages, ask=True)
    except TemplateError:
        return False
    # A template that folds the system text into the user turn gives the same tokens as "user" would.
    return 0 <= text.find(_SYSTEM) < text.find(_INPUT)
