"""Parting a task's examples into shots, training part, validation part and test part.

Invariants: no input stands in more than one part, white space and case apart; training has at least 3
examples; equal tasks and seeds give equal splits whatever the order of the examples, the machine or the
Python version.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from random import Random

from pmpo_ray.config.tasks import SplitConfig
from pmpo_ray.errors import DataError
from pmpo_ray.tasks.corruptions import shuffled
from pmpo_ray.types import Example, Split, Task

MIN_TRAIN = 3
"""The paper's limit: with fewer examples the search fits them and nothing else."""
_MAX_STRATA = 20

Group = tuple[Example, ...]
"""The examples of one input; they stay together."""


def split_task(task: Task, config: SplitConfig, seed: int) -> Split:
    """Draw the shots, then min(train_max, train_fraction * n) training examples but at least 3, then those of
    the validation part; the rest is the test part, unless the data set has a test part itself (paper,
    section 4.1).

    With a closed set of targets every part that is drawn has each target in proportion. Examples
    whose input is in the data set's own test part are left out; n counts the others. Where several
    examples have one input and do not all fit into a part, the ones left over are left out too.

    Raises DataError where fewer than 3 examples are left for training, or too few for validation.
    """
    rng = Random(f"split:{seed}:{task.name}")
    held_out = {_content(example) for example in task.test_examples}
    usable = [example for example in task.examples if _content(example) not in held_out]
    wanted = _train_size(task.name, len(usable), config)
    groups = shuffled(_groups(usable), rng)
    stratified = task.kind in ("labels", "options") and _is_closed(usable)
    shots, groups = _draw(groups, config.shots, stratified)
    train, groups = _draw(groups, wanted, stratified)
    if len(train) < MIN_TRAIN:
        raise DataError(
            f"task {task.name!r}: {len(train)} of {len(usable)} examples are left for training and at least "
            f"{MIN_TRAIN} are needed; add rows, or lower split.shots"
        )
    validation, groups = _draw(groups, config.validation, stratified)
    if len(validation) < config.validation:
        raise DataError(
            f"task {task.name!r}: {len(validation)} examples are left for validation and "
            f"split.validation={config.validation}; add rows, or lower it"
        )
    if task.test_examples:
        test = tuple(shuffled(sorted(task.test_examples, key=_by_id), rng))
    else:
        test = tuple(example for group in groups for example in group)
    split = Split(train=train, shots=shots, test=test, validation=validation)
    _check_disjoint(task.name, split)
    return split


def _check_disjoint(name: str, split: Split) -> None:
    """A last look at what every result rests on. Raises DataError where a test input was seen before."""
    seen = {_content(example) for example in (*split.train, *split.shots, *split.validation)}
    for example in split.test:
        if _content(example) in seen:
            raise DataError(
                f"task {name!r}: test example {example.id} ({example.input[:40]!r}...) stands in another "
                "part, too; remove one of the two"
            )


def _train_size(name: str, examples: int, config: SplitConfig) -> int:
    # The small term mends products such as 0.29 * 100 = 28.999999999999996.
    share = math.floor(config.train_fraction * examples + 1e-9)
    wanted = min(config.train_max, max(MIN_TRAIN, share))
    if wanted < MIN_TRAIN:
        raise DataError(
            f"task {name!r}: split.train_max allows {wanted} of {examples} examples for training and "
            f"at least {MIN_TRAIN} are needed; raise split.train_max"
        )
    return wanted


def _content(example: Example) -> str:
    """What makes two inputs the same for a reader."""
    return " ".join(example.input.split()).casefold()


def _by_id(example: Example) -> str:
    return example.id


def _groups(examples: Iterable[Example]) -> list[Group]:
    """Examples of equal input together, in an order that depends on their ids alone."""
    by_input: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=_by_id):
        by_input[_content(example)].append(example)
    return sorted((tuple(group) for group in by_input.values()), key=lambda group: group[0].id)


def _is_closed(examples: Sequence[Example]) -> bool:
    return len({example.target for example in examples}) <= _MAX_STRATA


def _draw(groups: Sequence[Group], size: int, stratified: bool) -> tuple[tuple[Example, ...], list[Group]]:
    """Take `size` examples (all, if there are no more) from shuffled groups; return them and the groups that
    were not touched, both in the groups' order."""
    quotas = _quotas(groups, size) if stratified else {}
    taken: dict[int, Group] = {}
    left = size

    def take(whole: bool, within_quota: bool) -> None:
        nonlocal left
        for index, group in enumerate(groups):
            target = group[0].target
            room = min(left, quotas.get(target, 0)) if within_quota else left
            if index in taken or room == 0 or (whole and len(group) > room):
                continue
            taken[index] = group[:room]
            left -= len(taken[index])
            if within_quota:
                quotas[target] -= len(taken[index])

    if stratified:
        take(whole=True, within_quota=True)
    take(whole=True, within_quota=False)
    take(whole=False, within_quota=False)
    drawn = tuple(example for index in sorted(taken) for example in taken[index])
    return drawn, [group for index, group in enumerate(groups) if index not in taken]


def _quotas(groups: Sequence[Group], size: int) -> dict[str, int]:
    """How many of `size` examples each target gets: proportional, the remainder to the largest fractions."""
    counts: dict[str, int] = defaultdict(int)
    for group in groups:
        counts[group[0].target] += len(group)
    total = sum(counts.values())
    size = min(size, total)
    quotas = {target: size * count // total for target, count in counts.items()}
    by_fraction = sorted(counts, key=lambda target: (-(size * counts[target] % total), target))
    for target in by_fraction[: size - sum(quotas.values())]:
        quotas[target] += 1
    return quotas
