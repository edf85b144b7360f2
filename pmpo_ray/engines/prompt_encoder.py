"""Encode (instruction, shots, input, answer) as token ids, for chat models and base models.

Invariants:
- The ids of a prompt are those that the model's tokenizer gives for the whole text of it: no piece of running
  text is tokenised apart. What the examples of an instruction share is therefore found, not assumed
  (`answer_tree.find_root`).
- A prompt followed by one of its answers has the tokenizer's ids for both together, wherever the prompt's own
  ids are a beginning of those.
- Only the model's own template yields special tokens. Instructions, inputs and answers are plain text: a
  string such as "<|im_end|>" inside them is tokenised as plain characters and can't end a turn.
- An answer is closed by the end-of-turn token, so that a short one does not win merely because it is the
  beginning of a longer one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from pmpo_ray.engines.answer_tree import Item, Tokens, common_prefix
from pmpo_ray.engines.chat_template import ChatTemplate
from pmpo_ray.engines.conversation import PLAIN_END, PLAIN_OUTPUT, running_text
from pmpo_ray.engines.text_tokens import TextTokens
from pmpo_ray.errors import ModelError
from pmpo_ray.types import EngineInfo, Example, Layout, LayoutSetting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE_INSTRUCTION = "Name it: <one word>.\n\nThink first. "
_PROBE = Example("", "  Who wrote 12 + 345?\n\n1) Ada\tL.\nÉmile 你好", "(A) Ada", ("no", "\nB."))
_SHOTS = (Example("", "2 + 2?", " 4"), Example("", "Line\n", "No."))
_KEPT = 16384
"""The number of inputs whose form in the template is remembered."""


@dataclass(frozen=True, slots=True)
class _Prompts:
    """Marked texts: `bodies` are the conversations up to the ends of their inputs, which begin with `head`
    unless their input changes the conversation; `header` follows up to an answer, which begins with `lead`
    and ends with `closing`."""

    head: str
    bodies: Sequence[str]
    header: str
    lead: str
    closing: str


class PromptEncoder:
    """Turns texts into the token ids of one model's prompts.

    `layout`: "system" puts the instruction into a system turn, "user" at the head of the first user turn,
    "plain" into running text for base models; "auto" takes the first that the model's chat template shows,
    and "plain" if it has none. `day` is the date in the prompts of templates that show one (None: today's).

    Raises ModelError if the template doesn't support the requested layout.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        layout: LayoutSetting = "auto",
        day: date | None = None,
        tokens: TextTokens | None = None,
    ) -> None:
        """`tokens` are those of `tokenizer`, if another encoder has made them."""
        self._tokenizer = tokenizer
        self._day = day
        self._tokens = tokens or TextTokens(tokenizer)
        self._template = self._chat_template(layout, day)
        self.layout: Layout = "plain" if self._template is None else self._template.layout
        self._beginning = self._added_beginning() if self._template is None else ()
        self._inputs: dict[tuple[str, bool], str | None] = {}

    def in_layout(self, layout: LayoutSetting) -> PromptEncoder:
        """An encoder of the same model in another layout. Errors as in the constructor."""
        return PromptEncoder(self._tokenizer, layout, self._day, self._tokens)

    @property
    def note(self) -> str:
        """A line about the prompts that a user should read; empty for none."""
        return "" if self._template is None else self._template.note

    @property
    def end_of_turn(self) -> Tokens:
        """The tokens that close an answer."""
        return self._tokens.ids_behind_mark(self._prompts("", (), ()).closing)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the ids of fixed conversations: they change if the template, the
        tokenizer, the date in the prompts or this encoder does."""
        counts = range(3) if self._template is None or self._template.takes_shots else range(1)
        items = [
            item for count in counts for item in self.items(_PROBE_INSTRUCTION, _SHOTS[:count], (_PROBE,))
        ]
        asked = self.request(_PROBE_INSTRUCTION, (), _PROBE.input)
        content = json.dumps([[[item.context, item.answers] for item in items], asked])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def described(self, info: EngineInfo) -> EngineInfo:
        """The description of a replica with this encoder."""
        return replace(info, layout=self.layout, encoding=self.fingerprint, prompt_note=self.note)

    def items(
        self, instruction: str, shots: Sequence[Example], examples: Sequence[Example], *, closed: bool = True
    ) -> list[Item]:
        """One item for each example: its prompt, and its target and negatives as answers. `closed` False
        leaves out the end of turn behind an answer. Raises EngineError if the template refuses a
        conversation."""
        prompts = self._prompts(instruction, shots, [example.input for example in examples])
        if not closed:
            prompts = replace(prompts, closing="")
        texts = dict.fromkeys(text for one in examples for text in (one.target, *one.negatives))
        answers = self._answers(prompts, tuple(texts))
        anchor = self._tokens.ids(self._tokens.last_mark(prompts.header))
        items = []
        for index, (context, example) in enumerate(zip(self._contexts(prompts), examples, strict=True)):
            found = answers
            if common_prefix(anchor[::-1], context[: -len(anchor) - 1 : -1]) < min(2, len(anchor)):
                # The tokenizer joins the header to this input, so its answers are tokenised behind both.
                alone = replace(prompts, header=prompts.bodies[index] + prompts.header)
                found = self._answers(alone, (example.target, *example.negatives))
            items.append(Item(context, tuple(found[text] for text in (example.target, *example.negatives))))
        return items

    def context(self, instruction: str, text: str, shots: Sequence[Example] = ()) -> Tokens:
        """The prompt of one input up to the answer's first token."""
        return self._contexts(self._prompts(instruction, shots, (text,)))[0]

    def request(self, instruction: str, shots: Sequence[Example], text: str) -> Tokens:
        """The prompt of one input for a model that writes the answer itself. It differs from `context` only
        where the model's generation prompt lets it think first."""
        return self._contexts(self._prompts(instruction, shots, (text,), writing=True))[0]

    def continuation(self, text: str) -> Tokens:
        """A text that a base model continues."""
        return self._beginning + self._tokens.ids(text)

    def behind_special(self, text: str) -> Tokens:
        """A plain text that stands behind a special token."""
        return self._tokens.ids_behind_mark(text)

    def _contexts(self, prompts: _Prompts) -> list[Tokens]:
        texts = [body + prompts.header for body in prompts.bodies]
        sharing = [text for text in texts if text.startswith(prompts.head)]
        shared = self._tokens.continued(prompts.head, [text.removeprefix(prompts.head) for text in sharing])
        ids = dict(zip(sharing, shared, strict=True))
        return [self._beginning + (ids[text] if text in ids else self._tokens.ids(text)) for text in texts]

    def _answers(self, prompts: _Prompts, texts: Sequence[str]) -> dict[str, Tokens]:
        """The ids of answers behind the header of `prompts`."""
        anchor = self._tokens.last_mark(prompts.header)
        before = self._tokens.ids(anchor)
        marked = [prompts.lead + self._shown_answer(text) + prompts.closing for text in texts]
        answers = {}
        for text, content, ids in zip(
            texts, marked, self._tokens.ids_of_all([anchor + content for content in marked]), strict=True
        ):
            # Joined to the header by the tokenizer, it can only be tokenised apart.
            apart = ids[: len(before)] != before
            answers[text] = self._tokens.ids_behind_mark(content) if apart else ids[len(before) :]
        return answers

    def _prompts(
        self, instruction: str, shots: Sequence[Example], inputs: Sequence[str], *, writing: bool = False
    ) -> _Prompts:
        if self._template is None:
            head = running_text(instruction, shots)
            return _Prompts(head, [head + text for text in inputs], PLAIN_OUTPUT, " ", PLAIN_END)
        mark, frame = self._tokens.mark, self._template.frame(instruction, shots)
        header = mark(frame.writing if writing else frame.header)
        pieces = [mark(piece) for piece in frame.pieces[:-1]]
        bodies = []
        for text in inputs:
            shown = self._shown_input(text, first=not shots)
            if shown is None:
                bodies.append(mark(self._template.whole(instruction, shots, text, frame)))
            else:
                bodies.append(shown.join((*pieces, "")))
        return _Prompts(pieces[0], bodies, header, frame.lead, mark(frame.closing))

    def _shown_input(self, text: str, *, first: bool) -> str | None:
        """The marked text of an input in its turn; None if the turn itself changes with it."""
        key = (text, first)
        if key not in self._inputs and self._template is not None:
            if len(self._inputs) >= _KEPT:
                self._inputs.clear()
            shown = self._template.shown_input(text, first=first)
            self._inputs[key] = None if shown is None else self._tokens.mark(shown)
        return self._inputs[key]

    def _shown_answer(self, text: str) -> str:
        return text if self._template is None else self._tokens.mark(self._template.shown_answer(text))

    def _chat_template(self, setting: LayoutSetting, day: date | None) -> ChatTemplate | None:
        if setting == "plain" or (setting == "auto" and not self._tokenizer.chat_template):
            return None
        if not self._tokenizer.chat_template:
            raise ModelError(
                f"model {self._tokenizer.name_or_path!r} has no chat template; set scorer.layout: plain or "
                "auto"
            )
        return ChatTemplate(self._tokenizer, self._tokens, setting, day)

    def _added_beginning(self) -> Tokens:
        """The beginning-of-sequence token, if the tokenizer itself would add one."""
        bos = self._tokenizer.bos_token_id
        starts = self._tokenizer("a")["input_ids"]
        return (bos,) if bos is not None and starts and starts[0] == bos else ()
