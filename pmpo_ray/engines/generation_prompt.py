"""Generation requests as token ids, and the tokens that end an answer, for local models.

Invariants: all engines encode a request as the same tokens; a request with a layout is encoded as the scorer
encodes its prompts. A request without system text has no system turn, with and without demonstrations: what
the model's chat template shows there by itself stays.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from pmpo_ray.engines.answer_tree import Tokens
from pmpo_ray.engines.conversation import PLAIN_END, PLAIN_INPUT
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.errors import PromptTooLongError
from pmpo_ray.types import GenerateRequest, LayoutSetting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RequestEncoder:
    """The requests of a model with `context_length` tokens. `day` as in `PromptEncoder`."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, context_length: int, day: date | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length
        self.own = PromptEncoder(tokenizer, "auto", day)
        self._encoders: dict[LayoutSetting, PromptEncoder] = {"auto": self.own, self.own.layout: self.own}

    def prompt(self, request: GenerateRequest) -> Tokens:
        """The request up to its answer's first token. Raises PromptTooLongError if the context leaves no room
        for one, ModelError if the model has no such layout."""
        bare = request.layout is None and not (request.system or request.shots)
        encoder = self._encoder(request.layout or "auto")
        if bare and encoder.layout == "plain":
            tokens = encoder.continuation(request.prompt)
        else:
            tokens = encoder.request(request.system, request.shots, request.prompt)
        if len(tokens) >= self._context_length:
            raise PromptTooLongError(
                f"a prompt of {len(tokens)} tokens leaves no room for an answer in the model's context of "
                f"{self._context_length}: shorten the examples, or use a rewriter with a longer context"
            )
        return tokens

    def with_stops(self, request: GenerateRequest) -> GenerateRequest:
        """The request with what ends an answer in its layout: in running text the next input would follow."""
        if request.layout is None or self._encoder(request.layout).layout != "plain":
            return request
        return replace(request, stop=(*request.stop, PLAIN_END + PLAIN_INPUT))

    def end_tokens(self) -> frozenset[int]:
        """The tokens that end an answer: the tokenizer's end of sequence and the template's end of turn."""
        ends = {self._tokenizer.eos_token_id}
        if self.own.layout != "plain":
            ends.add(self.own.end_of_turn[-1])
        return frozenset(token for token in ends if token is not None)

    def _encoder(self, layout: LayoutSetting) -> PromptEncoder:
        if layout not in self._encoders:
            self._encoders[layout] = self.own.in_layout(layout)
        return self._encoders[layout]
