"""All right answers to an input: the targets of every example that has this input.

Invariants: no right answer to an input is among the negatives of an example with that input, except in pairs,
which rank answers; an example of a closed set for which no answer is wrong is left out; ids do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.corruptions import answer_key
from pmpo_ray.tasks.keys import input_key, label_key
from pmpo_ray.text import excerpt
from pmpo_ray.types import Example, Task

_SHOWN = 60


def with_contradictions_noted(task: Task) -> Task:
    """A published benchmark, whose examples stay as they are so that its figures can be compared, with a note
    that counts the inputs with several targets."""
    key = _key_of(task)
    rights = _targets_by_input((*task.examples, *task.test_examples), key)
    return replace(task, notes=_noted(task, _several_note(task, rights, "all examples stay as published")))


def with_right_answers(task: Task) -> Task:
    """The task with the other right answers of every example, and without them among its negatives. A note
    counts the inputs with several targets.

    Raises DataError if all examples have the same target, so that there is nothing to tell apart.
    """
    _check_classes(task)
    every = (*task.examples, *task.test_examples)
    if task.kind == "pairs":
        return replace(task, notes=_noted(task, _reversed_pairs(every)))
    key = _key_of(task)
    rights = _targets_by_input(every, key)
    several = {text: targets for text, targets in rights.items() if len(targets) > 1}
    if not several and not any(example.also_right for example in every):
        return task
    settled = {example.id: _settled(example, several, key) for example in every}
    useless = {
        example.id
        for example in every
        if task.kind != "text" and example.negatives and not settled[example.id].negatives
    }

    def kept(examples: Iterable[Example]) -> tuple[Example, ...]:
        return tuple(settled[example.id] for example in examples if example.id not in useless)

    return replace(
        task,
        examples=kept(task.examples),
        test_examples=kept(task.test_examples),
        notes=_noted(task, _several_note(task, rights, _consequence(len(useless)))),
    )


def _key_of(task: Task) -> Callable[[str], str]:
    return answer_key if task.kind == "text" else label_key


def _consequence(useless: int) -> str:
    left_out = f"; {useless} examples left out, for which no answer is wrong" if useless else ""
    return f"each of them counts as right{left_out}"


def _check_classes(task: Task) -> None:
    keys = {label_key(example.target) for example in task.examples[:2]}
    if task.kind not in ("labels", "text") or len(keys) != 1 or len(task.examples) < 2:
        return
    [first] = keys
    if all(label_key(example.target) == first for example in task.examples):
        why = f" ({'; '.join(task.notes)})" if task.notes else ""
        raise DataError(
            f"task {task.name!r}: all {len(task.examples)} examples have the same target "
            f"{excerpt(task.examples[0].target, _SHOWN)!r}, so there is nothing to tell apart{why}; add rows "
            "with other targets, or set columns.target to another column"
        )


def _targets_by_input(examples: Iterable[Example], key: Callable[[str], str]) -> dict[str, dict[str, str]]:
    """The distinct targets of each input, by their keys. A target with a weight of 0 or less does not count
    as right."""
    found: dict[str, set[str]] = {}
    for example in examples:
        if example.weight > 0:
            found.setdefault(input_key(example.input), set()).add(example.target)
    # Of equal answers the first one by its text, so that the order of the rows does not count. A single
    # target needs no key, and of many inputs nearly all have a single one.
    return {
        text: {key(target): target for target in sorted(own, reverse=True)}
        if len(own) > 1
        else dict(zip(own, own, strict=True))
        for text, own in found.items()
    }


def _settled(
    example: Example, several: Mapping[str, Mapping[str, str]], key: Callable[[str], str]
) -> Example:
    own = {key(text): text for text in example.also_right}
    right = {**several.get(input_key(example.input), {}), **own}
    if not right:
        return example
    target = key(example.target)
    return replace(
        example,
        also_right=tuple(sorted(text for other, text in right.items() if other != target)),
        negatives=tuple(text for text in example.negatives if key(text) not in right),
    )


def _several_note(task: Task, rights: Mapping[str, Mapping[str, str]], consequence: str) -> str | None:
    several = {text: targets for text, targets in rights.items() if len(targets) > 1}
    if not several:
        return None
    what = {"labels": "labels", "options": "right options"}.get(task.kind, "right answers")
    text, targets = next(iter(several.items()))
    first = next(e for e in (*task.examples, *task.test_examples) if input_key(e.input) == text)
    shown = ", ".join(repr(excerpt(target, 40)) for target in sorted(targets.values())[:3])
    return (
        f"{len(several)} of {len(rights)} inputs stand with several {what} (such as "
        f"{excerpt(first.input, _SHOWN)!r} with {shown}): {consequence}"
    )


def _reversed_pairs(examples: Iterable[Example]) -> str | None:
    """The note about pairs that rank the same two answers both ways."""
    ranked = {
        (input_key(example.input), example.target, negative): example
        for example in examples
        for negative in example.negatives
    }
    both = [example for (text, better, worse), example in ranked.items() if (text, worse, better) in ranked]
    if not both:
        return None
    return (
        f"{len(both)} pairs contradict another pair, which ranks the same two answers the other way (such as "
        f"{excerpt(both[0].input, _SHOWN)!r}); they are kept"
    )


def _noted(task: Task, note: str | None) -> tuple[str, ...]:
    return task.notes if note is None or note in task.notes else (*task.notes, note)
