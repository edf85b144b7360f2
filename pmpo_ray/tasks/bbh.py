"""BIG-Bench Hard: the 27 subtasks, their descriptions, and the format of their files.

Invariants: the descriptions, written for this project, state the input and the expected output, never how to
solve the task. The published files are read without changes.
"""

from __future__ import annotations

from pmpo_ray.tasks.benchmarks import STEP_BY_STEP, Benchmark, Part
from pmpo_ray.tasks.hub import HubSource
from pmpo_ray.tasks.records import Record
from pmpo_ray.tasks.rows import Row, text_of
from pmpo_ray.types import Kind

_LETTER = "The answer is the letter of the right option in brackets, such as (A)."
_LABELS: dict[str, tuple[str, ...]] = {
    "boolean_expressions": ("True", "False"),
    "sports_understanding": ("yes", "no"),
    "web_of_lies": ("Yes", "No"),
}
_FREE_TEXT = ("dyck_languages", "multistep_arithmetic_two", "object_counting", "word_sorting")
_SIZES = {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}
_USUAL_SIZE = 250

_ORDERING = (
    "Each input places {number} objects in a fixed order and gives clues about their positions, then lists "
    f"statements of which exactly one follows from the clues. {_LETTER}"
)
_SHUFFLING = (
    "{number} people each start with an object, a partner or a position, and pairs of them swap in "
    f"the order told. The input asks what one of them has at the end and lists the possibilities. {_LETTER}"
)

DESCRIPTIONS: dict[str, str] = {
    "boolean_expressions": (
        "Each input is an expression of the constants True and False, the words and, or, not, and brackets. "
        "The answer is the value of the expression, written True or False."
    ),
    "causal_judgement": (
        "Each input tells a short story and asks whether one event caused another, or whether someone acted "
        "on purpose, as a typical person would judge it. The answer is Yes or No."
    ),
    "date_understanding": (
        "Each input tells of dates in everyday words and asks for a related date as MM/DD/YYYY, with several "
        f"dates to choose from. {_LETTER}"
    ),
    "disambiguation_qa": (
        "Each input is a sentence with a pronoun and several readings of it; the task is to tell "
        f"whom or what the pronoun stands for, or that the sentence leaves it open. {_LETTER}"
    ),
    "dyck_languages": (
        "Each input is the beginning of a sequence of round, square, curly and angle brackets. "
        "The answer is the closing brackets that are still missing, in the right order and separated "
        "by spaces."
    ),
    "formal_fallacies": (
        "Each input is an argument with its premises stated in words. The question is whether the conclusion "
        "follows from the stated premises by logic alone; the answer is valid or invalid."
    ),
    "geometric_shapes": (
        "Each input is the path element of an SVG drawing and a list of shapes; the task is to name "
        f"the shape that the path draws. {_LETTER}"
    ),
    "hyperbaton": (
        "Each input gives phrases that differ only in the order of the adjectives before a noun; the "
        f"task is to find the one in natural English order. {_LETTER}"
    ),
    "logical_deduction_five_objects": _ORDERING.format(number="five"),
    "logical_deduction_seven_objects": _ORDERING.format(number="seven"),
    "logical_deduction_three_objects": _ORDERING.format(number="three"),
    "movie_recommendation": (
        "Each input names a few films that somebody likes and several others to choose from; the "
        f"task is to pick the one most like the films named. {_LETTER}"
    ),
    "multistep_arithmetic_two": (
        "Each input is an arithmetic expression of small whole numbers, brackets, plus, minus and times. "
        "The answer is its value, a whole number that may be negative."
    ),
    "navigate": (
        "Each input is a list of steps and turns that somebody takes, starting at some point. "
        "The question is whether they end where they began; the answer is Yes or No."
    ),
    "object_counting": (
        "Each input lists things that somebody has, some of them several times, and asks how many "
        "there are of one sort. The answer is the number in digits."
    ),
    "penguins_in_a_table": (
        "Each input holds a small table of animals with their ages, heights and weights, sometimes "
        f"changed by a later sentence, and a question about it with several answers to choose from. {_LETTER}"
    ),
    "reasoning_about_colored_objects": (
        "Each input describes objects of several colours on a surface and asks about their colours, "
        f"places or number, with the possible answers listed. {_LETTER}"
    ),
    "ruin_names": (
        "Each input names an artist, a band or a film and lists slightly changed spellings of that name; "
        f"the task is to find the change that makes a joke. {_LETTER}"
    ),
    "salient_translation_error_detection": (
        "Each input gives a German sentence, an English translation with one error, and a list of "
        f"kinds of error; the task is to tell which kind it is. {_LETTER}"
    ),
    "snarks": (
        "Each input gives two nearly equal statements of which one is meant sarcastically; "
        f"the task is to find that one. {_LETTER}"
    ),
    "sports_understanding": (
        "Each input is an invented sentence about an athlete and something done in a game. "
        "The question is whether it is plausible for that athlete's sport; the answer is yes or no."
    ),
    "temporal_sequences": (
        "Each input tells where a person was seen at which hours of a day and asks between what "
        f"times they could have visited one more place. {_LETTER}"
    ),
    "tracking_shuffled_objects_five_objects": _SHUFFLING.format(number="Five"),
    "tracking_shuffled_objects_seven_objects": _SHUFFLING.format(number="Seven"),
    "tracking_shuffled_objects_three_objects": _SHUFFLING.format(number="Three"),
    "web_of_lies": (
        "Each input is a chain of people of whom every one says whether the one before lies or tells "
        "the truth. The question is whether the last one tells the truth; the answer is Yes or No."
    ),
    "word_sorting": (
        "Each input is a list of words in lower case. The answer is the same words in alphabetical order, "
        "separated by single spaces."
    ),
}


def _convert(record: Record) -> Row:
    advice = "use the file in its published form"
    return Row(text_of(record, "input", advice), text_of(record, "target", advice), record.where)


def _kind(subtask: str) -> Kind:
    if subtask in _LABELS:
        return "labels"
    return "text" if subtask in _FREE_TEXT else "options"


def _benchmark(subtask: str) -> Benchmark:
    return Benchmark(
        name=f"bbh/{subtask}",
        kind=_kind(subtask),
        description=DESCRIPTIONS[subtask],
        instruction=STEP_BY_STEP,
        labels=_LABELS.get(subtask, ()),
        published=_SIZES.get(subtask, _USUAL_SIZE),
        examples=Part(f"bbh/{subtask}.json", HubSource("SaylorTwift/bbh", "test", subtask), _convert),
    )


BBH: tuple[Benchmark, ...] = tuple(_benchmark(subtask) for subtask in DESCRIPTIONS)
