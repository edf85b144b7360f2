"""Split a task's examples into shots, training part, validation part and test part.

Invariants: no input is in more than one part, even with other white space or case; the training part has at
least 3 examples; equal tasks and seeds result in equal splits, whatever the order of the examples, the
machine or the Python version.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from random import Random

from pmpo_ray.config.tasks import SplitConfig
from pmpo_ray.errors import DataError
from pmpo_ray.tasks.corruptions import shuffled
from pmpo_ray.tasks.keys import input_key
from pmpo_ray.types import Example, Split, Task

MIN_TRAIN = 3
"""The limit of the paper: with fewer examples the search overfits to them."""
_MAX_STRATA = 20
_LEFT = 5
"""So many times the size of the training part are left for a validation part of the same size."""

Group = tuple[Example, ...]
"""The examples of one input, which stay in one part."""


def split_task(task: Task, config: SplitConfig, seed: int) -> Split:
    """Draw the shots, then min(train_max, train_fraction * n) training examples, but at least 3, then the
    validation part, without a setting as large as the training part if rows suffice. The rest is the test
    part, unless the data set defines one (paper, section 4.1).

    With labels, or few different options as targets, every drawn part has each target in proportion.
    Examples whose input is in a test part that the data set defines are left out; n counts the others. If
    several examples share an input and do not all fit into a part, the remaining ones are left out too.

    Raises DataError if fewer than 3 examples are left for training, or too few for validation.
    """
    rng = Random(f"split:{seed}:{task.name}")
    held_out = {input_key(example.input) for example in task.test_examples}
    usable = [example for example in task.examples if input_key(example.input) not in held_out]
    train_size = _train_size(task, len(usable), config)
    groups = shuffled(_groups(usable), rng)
    stratified = task.kind == "labels" or (task.kind == "options" and _is_closed(usable))
    shots, groups = _draw(groups, config.shots, stratified)
    train, groups = _draw(groups, train_size, stratified)
    if len(train) < MIN_TRAIN:
        raise _too_few(task, len(train), len(usable))
    validation_size = _validation_size(task, len(train), sum(map(len, groups)), config)
    validation, groups = _draw(groups, validation_size, stratified)
    if len(validation) < validation_size:
        raise DataError(
            f"task {task.name!r}: {len(validation)} examples are left for validation, but "
            f"split.validation={validation_size}; add rows, or lower split.validation"
        )
    if task.test_examples:
        test = tuple(shuffled(sorted(task.test_examples, key=_by_id), rng))
    else:
        test = tuple(example for group in groups for example in group)
    split = Split(train=train, shots=shots, test=test, validation=validation)
    _check_disjoint(task.name, split)
    return split


def _too_few(task: Task, trained: int, usable: int) -> DataError:
    """The error of a task with `trained` of `usable` examples for training, which are too few."""
    reasons = list(task.notes)
    advice = "add rows, or lower split.shots"
    if tested := len(task.examples) - usable:
        reasons.append(f"{tested} of {len(task.examples)} are also in the test file, and left out")
        advice = "take those rows out of the test file, add others, or lower split.shots"
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return DataError(
        f"task {task.name!r}: {trained} of {usable} examples are left for training and at least {MIN_TRAIN} "
        f"are needed{why}; {advice}"
    )


def _check_disjoint(name: str, split: Split) -> None:
    """Check what the validity of every result depends on. Raises DataError if a test input is in another
    part."""
    seen = {input_key(example.input) for example in (*split.train, *split.shots, *split.validation)}
    for example in split.test:
        if input_key(example.input) in seen:
            raise DataError(
                f"task {name!r}: the input of test example {example.id} ({example.input[:40]!r}...) is also "
                "in another part; remove one of the two examples"
            )


def _train_size(task: Task, examples: int, config: SplitConfig) -> int:
    # The small term corrects products such as 0.29 * 100 = 28.999999999999996.
    share = math.floor(config.train_share(examples, has_test=bool(task.test_examples)) + 1e-9)
    size = min(config.train_max, max(MIN_TRAIN, share))
    if size < MIN_TRAIN:
        raise DataError(
            f"task {task.name!r}: split.train_max allows {size} of {examples} examples for training and "
            f"at least {MIN_TRAIN} are needed; raise split.train_max"
        )
    return size


def _validation_size(task: Task, trained: int, left: int, config: SplitConfig) -> int:
    """The number of validation examples where `left` examples are in neither training part nor shots."""
    if config.validation is not None:
        return config.validation
    # Held-out examples that a data set does not set apart itself are hardly fewer for it.
    needed = trained if task.test_examples else _LEFT * trained
    return trained if left >= needed else 0


def _by_id(example: Example) -> str:
    return example.id


def _groups(examples: Iterable[Example]) -> list[Group]:
    """The examples grouped by input, in an order that depends only on their ids."""
    by_input: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=_by_id):
        by_input[input_key(example.input)].append(example)
    return sorted((tuple(group) for group in by_input.values()), key=lambda group: group[0].id)


def _is_closed(examples: Sequence[Example]) -> bool:
    return len({example.target for example in examples}) <= _MAX_STRATA


def _draw(groups: Sequence[Group], size: int, stratified: bool) -> tuple[tuple[Example, ...], list[Group]]:
    """Take `size` examples, or all if there are fewer, from shuffled groups. Return them and the groups from
    which none was taken, both in the order of the groups."""
    quotas = _quotas(groups, size) if stratified else {}
    taken: dict[int, Group] = {}
    left = size

    def take(whole: bool, within_quota: bool) -> None:
        nonlocal left
        for index, group in enumerate(groups):
            if left == 0:
                return
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
    """The number of each target among `size` examples: proportional, with the remainder assigned to the
    largest fractions."""
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
