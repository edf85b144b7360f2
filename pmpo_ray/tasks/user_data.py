"""The user's data: a file or a hub data set, its columns, and its kind of task.

Invariants: the kind depends only on the configuration and the rows; an error of a row is reported with the
row's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.tasks import label_sets
from pmpo_ray.tasks.assembly import Draft, assemble
from pmpo_ray.tasks.files import read_records
from pmpo_ray.tasks.hub import HubSource, read_hub
from pmpo_ray.tasks.options import parse_options
from pmpo_ray.tasks.records import Record
from pmpo_ray.tasks.right_answers import with_right_answers
from pmpo_ray.tasks.rows import Row, rows_of
from pmpo_ray.text import explained
from pmpo_ray.types import Kind, Task

_MAX_LISTED = 2000
"""The maximum length of a list of labels in a made instruction, which has to leave room for more."""
_EXAMPLES = 10
"""The number of labels in a list that is too long."""


def load_user_data(config: TaskConfig, seed: int) -> Task:
    """Load the user's data as a task. Raises DataError for data that cannot be used, ConfigError for labels
    that cannot be used."""
    test_records = () if config.test_path is None else read_records(Path(config.test_path))
    return task_of_records(config, _records(config), test_records, seed)


def task_of_records(
    config: TaskConfig, records: Sequence[Record], test_records: Sequence[Record], seed: int
) -> Task:
    """Make a task of records. Raises the errors of `load_user_data`."""
    rows, test_rows = rows_of((records, test_records), config.columns)
    kind = _kind_of(config, (*rows, *test_rows))
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if kind == "labels":
        found = (
            label_sets.inferred(rows, test_rows)
            if config.labels is None
            else label_sets.given(config.name, tuple(config.labels), rows, test_rows)
        )
        rows, test_rows, labels, notes = found.rows, found.test_rows, found.labels, found.notes
    draft = Draft(
        name=config.name,
        kind=kind,
        description=config.description or _description(kind, explained(labels, config.meanings)),
        instructions=config.instructions or (_instruction(kind, labels),),
        rows=rows,
        test_rows=test_rows,
        labels=labels,
        notes=notes,
        meanings=config.meanings,
    )
    return with_right_answers(assemble(draft, seed))


def _kind_of(config: TaskConfig, rows: Sequence[Row]) -> Kind:
    """Pairs if a column of negatives is set; labels if labels are set; options if most inputs list the target
    among their options; labels if the targets are a closed set; otherwise text.

    Options come before inferred labels: letters such as "(A)" are a closed set too, but their meaning depends
    on the input.
    """
    if config.columns.negatives is not None:
        return "pairs"
    if config.labels is not None:
        return "labels"
    listed = sum(
        (options := parse_options(row.input)) is not None and options.hold(row.target) for row in rows
    )
    if 2 * listed > len(rows):
        return "options"
    return "labels" if label_sets.is_closed_set(row.target for row in rows) else "text"


def _records(config: TaskConfig) -> tuple[Record, ...]:
    if config.path is not None:
        return read_records(Path(config.path))
    source = HubSource(config.hub or "", config.hub_split, config.hub_config)
    return read_hub(source, "check the name and the network, or set path to a local file")


def _instruction(kind: Kind, labels: Sequence[str]) -> str:
    if kind == "labels":
        return f"Read the input and answer with exactly one of {_listed(labels)}."
    if kind == "options":
        return "Read the question and its options, and answer with the right option alone."
    if kind == "pairs":
        return "Answer the request helpfully, correctly and completely."
    return "Read the input and give the right output for it."


def _listed(labels: Sequence[str]) -> str:
    every = ", ".join(labels)
    if len(every) <= _MAX_LISTED:
        return f"these labels: {every}"
    return f"{len(labels)} labels, such as {', '.join(labels[:_EXAMPLES])}"


def _description(kind: Kind, labels: Sequence[str]) -> str:
    if kind == "labels":
        return f"Each input is a text to be sorted into a class. The output is one of {_listed(labels)}."
    if kind == "options":
        return (
            "Each input is a question with a list of options. The output is the right option, "
            "in the form in which the expected answers give it."
        )
    if kind == "pairs":
        return (
            "Each input is a request with a better and a worse answer to it. "
            "The output should be like the better answer."
        )
    return (
        "Each input has one right output, a text. "
        "The output should have the content and the form of the expected one."
    )
