"""Generation requests as token ids, and the tokens that end an answer, for local models.

Invariant: all engines encode a request as the same tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmpo_ray.engines.prompt_encoder import PromptEncoder, Tokens
from pmpo_ray.errors import EngineError
from pmpo_ray.types import GenerateRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def generation_prompt(encoder: PromptEncoder, request: GenerateRequest, context: int) -> Tokens:
    """The request up to its answer's first token. Raises EngineError if `context` tokens leave no room
    for one."""
    if request.system or request.shots:
        tokens = encoder.prefix(request.system, request.shots) + encoder.question(request.prompt)
    else:
        tokens = encoder.turn(request.prompt)
    if len(tokens) >= context:
        raise EngineError(
            f"a prompt of {len(tokens)} tokens leaves no room for an answer in the model's context of "
            f"{context}: shorten the examples, or use a rewriter with a longer context"
        )
    return tokens


def end_tokens(tokenizer: PreTrainedTokenizerBase, encoder: PromptEncoder) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's end of sequence and the template's end of turn."""
    ends = {tokenizer.eos_token_id}
    if encoder.layout != "plain":
        ends.add(encoder.end_of_turn[-1])
    return frozenset(token for token in ends if token is not None)
