"""The gate for sense: what small models wrote in place of instructions is refused, and instructions pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.sense import SenseGate
from pmpo_ray.tasks import load_task
from pmpo_ray.text import normalise
from pmpo_ray.types import Example, GenerateRequest, GenerateResult, Generation
from tests.search.test_loop import LocalGenerator, setup_of, texts

TICKETS = load_task(TaskConfig(name="tickets"), None, 0)
LABELS = "billing, bug report, account access, shipping, feature request, praise"
TYPES = ("abbreviation", "description", "entity", "human", "location", "number")
GATES = {
    "tickets": SenseGate.of(TICKETS, TICKETS.examples, "short"),
    "sst2": SenseGate(
        ("negative", "positive"),
        ("Decide whether the opinion in this piece of a film review is negative or positive.",),
        (Example("0", "a truly moving and funny film", "positive"), Example("1", "dull", "negative")),
    ),
    "trec": SenseGate(
        TYPES,
        (f"Decide what kind of answer this question asks for. Answer with one word: {', '.join(TYPES)}.",),
        (Example("vhs", "What format was VHS 's main competition ?", "entity"),),
    ),
}


@pytest.mark.parametrize(
    ("task", "text", "reason"),
    [
        ("tickets", "shipping", "answers instead of instructing"),
        (
            "tickets",
            f"Read the message. Choose one: {LABELS}. Answer: account access",
            "holds lines of a form",
        ),
        (
            "sst2",
            "Tell me about a film review.\n\nThe title: e.kabuki\nOutput: It is best.",
            "lines of a form",
        ),
        ("sst2", "The audience should not be burned.\n\nThe answer: negative", "holds lines of a form"),
        ("tickets", "Sure! Read the message and choose the ticket.", "replies instead of instructing"),
        ("tickets", "Show me a picture of your favorite ticket. I am not able to.", "speaks of itself"),
        (
            "tickets",
            "Read the message and tell the user it is a bit of a bit of a bit of a mare.",
            "repeats itself",
        ),
        ("tickets", "Read the message twice. Name the ticket. Read the message twice.", "repeats itself"),
        ("sst2", "There is nothing in this review that is positive.", "names some labels and not the others"),
        ("trec", "Read the report. Choose human, location, or number.", "names some labels"),
        (
            "tickets",
            "Read the message, take one small step at a time, and give the final answer at the end.",
            "copies a demonstration of the request",
        ),
        ("trec", f"What format was VHS's main competition? {', '.join(TYPES)}.", "copies example vhs"),
        ("tickets", "Write a poem on the beauty of spring.", "is not about the task"),
        # Words that the instructions for any task have.
        ("sst2", "Answer with one word.", "is not about the task"),
        ("tickets", "Give the label and nothing else.", "is not about the task"),
        ("sst2", "These five films provided a trilogy that we still miss.", "tells nobody what to do"),
    ],
)
def test_what_is_no_instruction_is_refused_with_the_reason(task: str, text: str, reason: str) -> None:
    assert reason in (GATES[task].reason(text, "Name it.") or "")


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("tickets", TICKETS.instruction),
        ("tickets", TICKETS.description),
        (
            "tickets",
            f"Read the message and choose the ticket that fits it best: {LABELS}. Give the label only.",
        ),
        ("tickets", "Name the kind of support ticket."),
        ("sst2", "Answer with one word: positive or negative."),
        ("sst2", "No explanation: say whether the review is positive or negative."),
        ("sst2", "Read the whole review and judge what its writer thinks of the film."),
        ("trec", f"Read the question. Answer with one word: {', '.join(TYPES)}. Give no explanation."),
        ("trec", "Lies die Frage und wähle, welche Art von Antwort sie verlangt."),
    ],
)
def test_an_instruction_passes(task: str, text: str) -> None:
    assert GATES[task].reason(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Input: a text. Output: its label.",
        "I give you a text. Tell its label.",
        "the best of the best of the best of",
    ],
)
def test_a_passage_of_the_current_instruction_is_never_a_reason(text: str) -> None:
    gate = SenseGate((), (), ())
    assert gate.reason(text) is not None
    assert gate.reason(f"{text} Be brief.", allowed=text) is None


@pytest.mark.parametrize(
    "text", ["Take a deep breath and work on this step by step.", "请逐步思考这个问题。"]
)
def test_a_hint_is_about_every_task_whose_answers_are_reasoned_out(text: str) -> None:
    assert SenseGate((), ("Compute the value of an arithmetic expression.",), ()).reason(text) is None


def test_an_instruction_that_names_one_label_may_be_rewritten_to_do_so() -> None:
    gate = SenseGate(("spam", "wanted"), ("Decide whether the message is spam.",), ())
    assert gate.reason("Read the message and say if it is spam.", "Is the message spam?") is None
    assert gate.reason("Read the message and say if it is spam.", "Sort the message.") is not None


def test_labels_that_may_be_words_are_not_looked_for() -> None:
    gate = SenseGate(("a", "b"), ("Say which of two statements about a figure is right.",), ())
    assert gate.reason("Choose a statement that is right.") is None


def test_the_words_of_every_start_are_about_the_task() -> None:
    text = "Choose the department."
    assert GATES["tickets"].reason(text) == "is not about the task"
    several = replace(TICKETS, starts=("Which department is it for?",))
    assert SenseGate.of(several, TICKETS.examples, "short").reason(text) is None


class Babbling(LocalGenerator):
    """A rewriter that fills in a form."""

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        reply = f"<prompt>Output: {request.seed}</prompt>"
        return GenerateResult(tuple(Generation(reply, 5, True) for _ in range(request.n)), 10, 0.0)


async def test_nonsense_never_becomes_a_candidate_and_leaves_its_reason() -> None:
    setup = setup_of(None, Babbling(), rounds=1, masking="rules")
    outcome = await search_task(setup)
    assert "output: " in " ".join(map(normalise, texts(outcome)))

    setup = setup_of(None, Babbling(), rounds=1, masking="rules", gate=GATES["tickets"])
    outcome = await search_task(setup)
    found = texts(outcome)
    assert all(GATES["tickets"].reason(text, setup.task.instruction) is None for text in found)
    reasons = {refusal.reason for refusal in outcome.records[1].refusals if refusal.operator == "rewrite"}
    assert "holds lines of a form" in reasons
