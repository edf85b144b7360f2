"""Generation requests as tokens: the prompt that is scored, or a conversation in the model's chat format."""

from __future__ import annotations

import pytest

from pmpo_ray.engines.generation_prompt import RequestEncoder
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.errors import EngineError
from pmpo_ray.types import Example, GenerateRequest, Layout
from tests.engines.small_tokenizers import KINDS, TEMPLATES, small_tokenizer

SHOTS = (Example("s", "The parcel is late.", "shipping"),)


@pytest.mark.parametrize("layout", ["system", "user", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_of_an_evaluation_answers_the_prompt_that_is_scored(kind: str, layout: Layout) -> None:
    tokenizer = small_tokenizer(kind, TEMPLATES["turns"])
    request = GenerateRequest("Late again!", system="Name it.", shots=SHOTS, layout=layout)
    scored = PromptEncoder(tokenizer, layout).context("Name it.", "Late again!", SHOTS)
    assert RequestEncoder(tokenizer, 4096).prompt(request) == scored


def test_a_reply_in_running_text_ends_where_the_next_input_would_begin() -> None:
    encoder = RequestEncoder(small_tokenizer("byte_level", TEMPLATES["turns"]), 4096)
    plain = GenerateRequest("x", stop=("END",), layout="plain")
    assert encoder.with_stops(plain).stop == ("END", "\n\nInput: ")
    for layout in ("system", "auto", None):
        request = GenerateRequest("x", stop=("END",), layout=layout)
        assert encoder.with_stops(request) == request


def test_a_request_without_system_text_has_no_system_turn_of_ours() -> None:
    tokenizer = small_tokenizer("byte_level", TEMPLATES["turns"])
    encoder = RequestEncoder(tokenizer, 4096)
    for shots in ((), SHOTS):
        text = tokenizer.decode(list(encoder.prompt(GenerateRequest("x", shots=shots))))
        assert text.startswith("<|start|>system\nBe kind.<|end|>\n<|start|>user\n")


def test_a_base_model_continues_a_request_without_instruction() -> None:
    tokenizer = small_tokenizer("byte_level")
    encoder = RequestEncoder(tokenizer, 4096)
    assert tokenizer.decode(list(encoder.prompt(GenerateRequest("Once upon")))) == "Once upon"
    shown = encoder.prompt(GenerateRequest("Late!", system="Name it.", shots=SHOTS))
    assert tokenizer.decode(list(shown)) == (
        "Name it.\n\nInput: The parcel is late.\nOutput: shipping\n\nInput: Late!\nOutput:"
    )


def test_answers_end_at_the_end_of_turn_or_of_sequence() -> None:
    tokenizer = small_tokenizer("byte_level", TEMPLATES["turns"])
    ends = RequestEncoder(tokenizer, 4096).end_tokens()
    assert ends == set(tokenizer.convert_tokens_to_ids(["</s>", "<|end|>"]))


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    encoder = RequestEncoder(small_tokenizer("byte_level"), 3)
    with pytest.raises(EngineError, match="leaves no room for an answer"):
        encoder.prompt(GenerateRequest("Once upon a time"))
