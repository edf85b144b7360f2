"""Chat templates of the shapes in use: every conversation as the template itself shows it."""

from __future__ import annotations

from datetime import date

import pytest

from pmpo_ray.engines.conversation import chat_messages
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.errors import EngineError
from pmpo_ray.types import Example, Layout
from tests.engines.small_tokenizers import KINDS, TEMPLATES, small_tokenizer
from tests.engines.test_prompt_encoder import SHOTS, own_ids

INSTRUCTION = "Name the topic."


def shown(template: str, shots: int = 0, layout: Layout | None = None) -> tuple[str, str]:
    """A prompt, and its answer, as text."""
    tokenizer = small_tokenizer("byte_level", TEMPLATES[template])
    encoder = PromptEncoder(tokenizer, layout or "auto")
    [item] = encoder.items(INSTRUCTION, SHOTS[:shots], [Example("", "Late again!", "shipping")])
    return tokenizer.decode(list(item.context)), tokenizer.decode(list(item.answers[0]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shots", [0, 1, 2])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_conversation_is_the_templates_own(template: str, shots: int, kind: str) -> None:
    tokenizer = small_tokenizer(kind, TEMPLATES[template])
    for layout in ("auto", "user"):
        encoder = PromptEncoder(tokenizer, layout)
        for instruction in (INSTRUCTION, ""):
            messages = chat_messages(encoder.layout, instruction, SHOTS[:shots], "Late again!")
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            found = encoder.request(instruction, SHOTS[:shots], "Late again!")
            assert found == own_ids(tokenizer, str(text).rstrip(" "))


def test_a_system_text_stands_where_the_template_moves_it() -> None:
    assert shown("system_last", shots=1) == (
        "<s>[INST] The parcel is late.[/INST] shipping</s>[INST] Name the topic.\n\nLate again![/INST]",
        " shipping</s>",
    )


def test_white_space_in_front_of_an_answer_belongs_to_it() -> None:
    for template in ("system_last", "trimmed", "blank_prompt"):
        context, answer = shown(template)
        assert not context.endswith(" ")
        assert answer.startswith(" shipping")
    for kind in ("blank_first", "blank_always", "unigram"):
        tokenizer = small_tokenizer(kind, TEMPLATES["trimmed"])
        [item] = PromptEncoder(tokenizer).items("", (), [Example("", "x", "of")])
        # One token of the blank and the word's beginning, not a blank alone.
        assert tokenizer.convert_ids_to_tokens(item.answers[0][0]) in ("▁o", "▁of")


def test_contents_are_trimmed_as_the_template_trims_them() -> None:
    tokenizer = small_tokenizer("byte_level", TEMPLATES["trimmed"])
    examples = [Example("", text, " a\n") for text in ("x", " x \n")]
    one, other = PromptEncoder(tokenizer).items(INSTRUCTION, SHOTS, examples)
    assert one == other
    assert tokenizer.decode(list(one.answers[0])) == " a </s>"


def test_a_header_that_the_generation_prompt_lacks_is_taken_along() -> None:
    context, answer = shown("channels")
    assert context.endswith("<|start|>assistant<|turn|>final<|turn|>")
    assert answer == "shipping<|end|>"
    tokenizer = small_tokenizer("byte_level", TEMPLATES["channels"])
    assert "scored behind <|turn|>final<|turn|>" in PromptEncoder(tokenizer).note
    # A model that writes chooses its channel itself.
    assert tokenizer.decode(list(PromptEncoder(tokenizer).request("", (), "x"))).endswith(
        "<|start|>assistant"
    )


def test_a_thought_that_the_generation_prompt_opens_is_closed_before_an_answer() -> None:
    context, answer = shown("open_thought", shots=1)
    assert context == (
        "<s>Name the topic.<|start|>The parcel is late.<|turn|>shipping</s>"
        "<|start|>Late again!<|turn|><think>\n\n</think>\n\n"
    )
    assert answer == "shipping</s>"
    tokenizer = small_tokenizer("byte_level", TEMPLATES["open_thought"])
    encoder = PromptEncoder(tokenizer)
    assert "scored without reasoning" in encoder.note
    assert tokenizer.decode(list(encoder.request("", (), "x"))).endswith("<think>\n")


def test_a_thought_is_closed_as_the_template_closes_it() -> None:
    own = TEMPLATES["open_thought"].replace(
        "{{ m.content.split('</think>')[-1] }}",
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}",
    )
    tokenizer = small_tokenizer("byte_level", own)
    assert tokenizer.decode(list(PromptEncoder(tokenizer).context("", "x"))).endswith("<think>\n</think>")


def test_an_empty_thought_stands_in_the_last_turn_alone() -> None:
    context, answer = shown("last_thought", shots=1)
    assert context.count("</think>") == 1
    assert context.endswith("<|start|>assistant\n<think>\n\n</think>\n\n")
    assert answer == "shipping<|end|>"


def test_a_reply_with_a_thought_is_an_earlier_turn_as_the_template_shows_it() -> None:
    tokenizer = small_tokenizer("byte_level", TEMPLATES["open_thought"].replace("</think>", "</thought>"))
    reply = Example("", "Late again!", "It is about a parcel.</thought>shipping")
    text = tokenizer.decode(list(PromptEncoder(tokenizer).request("", (reply,), "So what?")))
    assert text == "<s><|start|>Late again!<|turn|>shipping</s><|start|>So what?<|turn|><think>\n"


def test_code_in_contents_is_not_evaluated() -> None:
    code = "{{ 1 + 1 }}{% set x = 1 %}"
    for template in TEMPLATES.values():
        tokenizer = small_tokenizer("byte_level", template)
        shots = (Example("", code, code),)
        text = tokenizer.decode(list(PromptEncoder(tokenizer).context(code, code, shots)))
        assert text.count(code) == 4


def test_an_input_that_changes_the_conversation_is_rendered_with_it() -> None:
    choosing = (
        "<s>{% for m in messages %}[{{ m.role }}{{ '?' if '?' in messages[-1].content else '' }}]"
        "{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer = small_tokenizer("byte_level", choosing)
    inputs = ("It is so.", "Is it so?", "So it is.")
    items = PromptEncoder(tokenizer).items("Do it.", (), [Example("", text, "a") for text in inputs])
    for text, item in zip(inputs, items, strict=True):
        messages = chat_messages("system", "Do it.", (), text)
        own = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        assert item.context == own_ids(tokenizer, own)


def test_a_template_that_refuses_an_answer_at_the_end_still_asks_for_one() -> None:
    asking = (
        "{% if messages[-1].role != 'user' %}{{ raise_exception('the user speaks last') }}{% endif %}<s>"
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer = small_tokenizer("byte_level", asking)
    [item] = PromptEncoder(tokenizer).items("Do it.", SHOTS[:1], [Example("", "x", " yes")])
    assert tokenizer.decode(list(item.context)).endswith("[user]x</s>[assistant]")
    assert tokenizer.decode(list(item.answers[0])) == " yes</s>"


def test_an_input_that_changes_the_end_of_the_conversation_is_named() -> None:
    changing = (
        "<s>{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[{{ 'sir' if '?' in messages[-1].content else 'you' }}]{% endif %}"
    )
    encoder = PromptEncoder(small_tokenizer("byte_level", changing))
    with pytest.raises(EngineError, match=r"otherwise for the input 'Is it\?'"):
        encoder.context("Do it.", "Is it?")


def test_without_system_text_there_is_no_system_turn_of_ours() -> None:
    tokenizer = small_tokenizer("byte_level", TEMPLATES["turns"])
    encoder = PromptEncoder(tokenizer)
    for shots in ((), SHOTS):
        text = tokenizer.decode(list(encoder.request("", shots, "x")))
        assert text.startswith("<|start|>system\nBe kind.<|end|>\n<|start|>user\n")


def test_the_date_in_prompts_is_the_one_that_is_given() -> None:
    dated = "<s>{{ strftime_now('%d %b %Y') }}: {% for m in messages %}{{ m.content }}</s>{% endfor %}"
    tokenizer = small_tokenizer("byte_level", dated)
    first, second = (PromptEncoder(tokenizer, "auto", date(2026, 11, day)) for day in (27, 28))
    assert tokenizer.decode(list(first.context("", "x"))) == "<s>27 Nov 2026: x</s>"
    assert first.fingerprint != second.fingerprint
