"""The parts of a benchmark, and the published benchmarks other than BIG-Bench Hard.

Invariant: a row of a benchmark is the same from a local folder and from the public hub, although one of the
two may contain fewer rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pmpo_ray.config.paths import at_home
from pmpo_ray.errors import DataError
from pmpo_ray.tasks.file_content import require_file
from pmpo_ray.tasks.files import SUFFIXES, read_records
from pmpo_ray.tasks.hub import HubSource, read_hub
from pmpo_ray.tasks.records import Record
from pmpo_ray.tasks.rows import Row, text_of
from pmpo_ray.types import Kind

STEP_BY_STEP = "Let's think step by step."
"""The start instruction of the paper, section 4."""

_ADVICE = "use the file in its published form"
_CLEAR_MARGIN = 0.5
_EASY_SUBSET = "alpacaeval-easy"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a benchmark: its file in a data folder, its split on the hub, and a function that makes a row
    of a record of either (None: the record is skipped)."""

    file: str
    hub: HubSource
    convert: Callable[[Record], Row | None]

    def read(self, data_dir: str | None) -> tuple[Row, ...]:
        """All rows. Raises DataError if the file, the hub or a row cannot be used."""
        if data_dir is None:
            advice = f"check the network, or set data_dir to a folder that contains {self.file}"
            records = read_hub(self.hub, advice)
        else:
            path = at_home(data_dir) / self.file
            require_file(path, SUFFIXES, "put it there, or remove data_dir to read from the hub")
            records = read_records(path)
        rows = tuple(row for record in records if (row := self.convert(record)) is not None)
        if not rows:
            raise DataError(f"{self.hub if data_dir is None else path}: no usable row; check the data")
        return rows


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A registered task. `published` is the number of rows that its `examples` part has on the hub."""

    name: str
    kind: Kind
    description: str
    instruction: str
    published: int
    examples: Part
    test: Part | None = None
    labels: tuple[str, ...] = ()


def _gsm8k(record: Record) -> Row:
    solution = re.sub(r"<<[^<>]*>>", "", text_of(record, "answer", _ADVICE))
    return Row(text_of(record, "question", _ADVICE), solution, record.where)


def _aqua(record: Record) -> Row:
    options = record.values.get("options")
    correct = text_of(record, "correct", _ADVICE)
    if not isinstance(options, list) or not re.fullmatch("[A-E]", correct):
        raise DataError(f"{record.where}: needs a list of options and the correct letter; {_ADVICE}")
    listed = "\n".join(re.sub(r"^\s*([A-E])\s*\)\s*", r"(\1) ", str(option)) for option in options)
    rationale = _without_answer(text_of(record, "rationale", _ADVICE), correct)
    return Row(
        input=f"{text_of(record, 'question', _ADVICE)}\nOptions:\n{listed}",
        target=f"{rationale}\nThe answer is ({correct}).".lstrip(),
        where=record.where,
    )


def _without_answer(rationale: str, letter: str) -> str:
    """The rationale without an answer at its end: a letter after one of the usual phrases (in a few rows
    it contradicts their `correct`), or the right letter on a line of its own."""
    phrase = (
        r"(?:\b(?:so|hence|thus|therefore),?\s+)?(?:\b(?:the|correct|final)\s+)*"
        r"\b(?:answer|ans|option|choice)\b(?:\s+is|\s*[:=-])*\s*(?:(?:option|choice)\b\s*:?\s*)?"
    )
    ending = rf"(?:(?:(?i:{phrase}\(?[A-E])|\n\(?{letter})\)?\W*)+\Z"
    return re.sub(ending, "", rationale).rstrip()


def _alpaca(record: Record) -> Row | None:
    """A pair with a clear margin: the paper excludes pairs whose preference is in doubt. The data set on the
    hub mixes sources; only its subset that pairs a strong model with a weak one is used."""
    if record.values.get("subset", _EASY_SUBSET) != _EASY_SUBSET:
        return None
    preferred = "selected" if "selected" in record.values else "chosen"
    chosen, rejected = text_of(record, preferred, _ADVICE), text_of(record, "rejected", _ADVICE)
    margin = record.values.get("margin", 1.0)
    if chosen == rejected or (isinstance(margin, int | float) and margin < _CLEAR_MARGIN):
        return None
    column = "instruction" if "instruction" in record.values else "prompt"
    return Row(text_of(record, column, _ADVICE), chosen, record.where, negatives=(rejected,))


_TREC_CODES = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "entity",
    "HUM": "human",
    "LOC": "location",
    "NUM": "number",
}


def _classified(record: Record) -> Row:
    """A text and its class, from the columns of a local file or of a data set on the hub."""
    for text, label in (
        ("input", "target"),
        ("sentence", "label"),
        ("text", "coarse_label"),
        ("text", "label_text"),
    ):
        if text in record.values and label in record.values:
            name = text_of(record, label, _ADVICE)
            return Row(text_of(record, text, _ADVICE), _TREC_CODES.get(name, name), record.where)
    return Row(text_of(record, "input", _ADVICE), text_of(record, "target", _ADVICE), record.where)


def _classification(
    name: str,
    description: str,
    instruction: str,
    labels: tuple[str, ...],
    published: int,
    hub: tuple[HubSource, HubSource],
) -> Benchmark:
    folder = f"text_classification/{name}"
    return Benchmark(
        name=name,
        kind="labels",
        description=description,
        instruction=instruction,
        published=published,
        examples=Part(f"{folder}.train.jsonl", hub[0], _classified),
        test=Part(f"{folder}.test.jsonl", hub[1], _classified),
        labels=labels,
    )


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        name="gsm8k",
        kind="text",
        description=(
            "Each input is a word problem of grade-school mathematics that takes a few steps of arithmetic. "
            'The output is a worked solution, one step per line, with a last line "#### N" that '
            "gives the number."
        ),
        instruction=STEP_BY_STEP,
        published=7473,
        examples=Part("gsm8k/train.jsonl", HubSource("openai/gsm8k", "train", "main"), _gsm8k),
        test=Part("gsm8k/test.jsonl", HubSource("openai/gsm8k", "test", "main"), _gsm8k),
    ),
    Benchmark(
        name="aqua",
        kind="text",
        description=(
            "Each input is an algebra word problem with five options, (A) to (E). "
            'The output explains the way to the result and closes with a line such as "The answer is (C)."'
        ),
        instruction=STEP_BY_STEP,
        published=254,
        examples=Part("aqua/dev.json", HubSource("deepmind/aqua_rat", "validation", "raw"), _aqua),
        test=Part("aqua/test.json", HubSource("deepmind/aqua_rat", "test", "raw"), _aqua),
    ),
    Benchmark(
        name="alpaca_eval",
        kind="pairs",
        description=(
            "Each input is a request that a person makes of an assistant: a question, a piece of "
            "writing, advice, code. The output is the answer that people would rather have: helpful, "
            "correct, complete and well put."
        ),
        instruction="You are a helpful assistant. Answer the request well.",
        published=805,
        examples=Part("alpaca_eval/pairs.jsonl", HubSource("allenai/reward-bench", "raw"), _alpaca),
    ),
    _classification(
        "sst2",
        "Each input is a sentence or phrase from a film review. The output is the opinion that it expresses: "
        "negative or positive.",
        "Decide whether the opinion in this piece of a film review is negative or positive. "
        "Answer with one word: negative or positive.",
        ("negative", "positive"),
        67349,
        (HubSource("stanfordnlp/sst2", "train"), HubSource("stanfordnlp/sst2", "validation")),
    ),
    _classification(
        "subj",
        "Each input is a sentence about a film, from a review or from a plot summary. The output "
        "tells whether it states facts (objective) or an opinion (subjective).",
        "Decide whether this sentence states facts or an opinion. "
        "Answer with one word: objective or subjective.",
        ("objective", "subjective"),
        8000,
        (HubSource("SetFit/subj", "train"), HubSource("SetFit/subj", "test")),
    ),
    _classification(
        "trec",
        "Each input is a question about facts. The output is the kind of thing it asks for: abbreviation, "
        "description, entity, human, location or number.",
        "Decide what kind of answer this question asks for. Answer with one word: abbreviation, description, "
        "entity, human, location or number.",
        tuple(_TREC_CODES.values()),
        5452,
        (
            HubSource("CogComp/trec", "train", revision="refs/convert/parquet"),
            HubSource("CogComp/trec", "test", revision="refs/convert/parquet"),
        ),
    ),
)
