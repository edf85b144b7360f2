"""Rows in AlpacaEval's format: outputs of a model, pairs to compare, and annotations as training pairs.

Invariant: a row that does not have the format raises DataError, which names the row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from pmpo_ray.errors import DataError

_TIE = 1.5
_UNDECIDED = -1
"""The value of an undecided pair in the package's cache files."""
_MARGIN_DIGITS = 4

Rows = Sequence[Mapping[str, Any]]
Pair = tuple[dict[str, str], dict[str, str]]
"""An output and its reference."""


def outputs_document(
    instructions: Sequence[str],
    outputs: Sequence[str],
    *,
    generator: str,
    datasets: Sequence[str] | None = None,
) -> list[dict[str, str]]:
    """The outputs of the model `generator` for the instructions, as the package reads them from a JSON file.
    `datasets` names the data set of each instruction. Raises ValueError if the lengths differ."""
    origins = ["alpaca_eval"] * len(instructions) if datasets is None else datasets
    return [
        {"instruction": instruction, "output": output, "generator": generator, "dataset": dataset}
        for instruction, output, dataset in zip(instructions, outputs, origins, strict=True)
    ]


def preference_rows(annotations: Rows) -> list[dict[str, Any]]:
    """Training pairs in the format of the task alpaca_eval (alpaca_eval/pairs.jsonl): "instruction",
    "dataset", "chosen", "rejected", and "margin", from 0 (the annotations' mean preference is a tie) to 1 (it
    is certain). Ties and undecided pairs are omitted. Raises DataError for a row that is not an
    annotation."""
    shares: dict[tuple[str, str, str], list[float]] = {}
    datasets: dict[tuple[str, str, str], str] = {}
    for number, row in enumerate(annotations, start=1):
        where = f"annotation {number}"
        instruction, *both = (_text(row, name, where) for name in ("instruction", "output_1", "output_2"))
        preference = _preference(row, where)
        if preference is None:
            continue
        # The same pair may have been judged in both orders.
        first, second = sorted(both)
        key = (instruction, first, second)
        shares.setdefault(key, []).append(preference - 1 if both == [first, second] else 2 - preference)
        datasets.setdefault(key, str(row.get("dataset") or ""))
    rows = []
    for (instruction, first, second), judged in shares.items():
        share = fmean(judged)
        margin = round(abs(share - 0.5) * 2, _MARGIN_DIGITS)
        if margin == 0 or first == second:
            continue
        chosen, rejected = (second, first) if share > 0.5 else (first, second)
        rows.append(
            {
                "instruction": instruction,
                "dataset": datasets[instruction, first, second],
                "chosen": chosen,
                "rejected": rejected,
                "margin": margin,
            }
        )
    return rows


def paired(outputs: Rows, references: Rows) -> list[Pair]:
    """Every output with its reference, reduced to the fields that the package needs. Raises DataError if they
    do not answer the same instructions in the same order."""
    if len(outputs) != len(references) or not outputs:
        raise DataError(
            f"{len(outputs)} outputs and {len(references)} references: give one of each per instruction"
        )
    pairs = []
    for number, (output, reference) in enumerate(zip(outputs, references, strict=True), start=1):
        ours, theirs = _side(output, f"output {number}"), _side(reference, f"reference {number}")
        if ours["instruction"] != theirs["instruction"]:
            raise DataError(
                f"output {number} and reference {number} answer different instructions; put both in one order"
            )
        theirs["dataset"] = str(reference.get("dataset") or output.get("dataset") or "")
        pairs.append((ours, theirs))
    return pairs


def _side(row: Mapping[str, Any], where: str) -> dict[str, str]:
    texts = {name: _text(row, name, where) for name in ("instruction", "output")}
    return {**texts, "generator": str(row.get("generator") or "")}


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise DataError(f'{where}: needs a text "{name}"; give rows in the format of AlpacaEval')
    return value


def _preference(row: Mapping[str, Any], where: str) -> float | None:
    """The preference, from 1 to 2; None if the pair is undecided."""
    value = filled(row.get("preference"))
    if value is None or value == _UNDECIDED:
        return None
    if value == 0:  # a tie in older files
        return _TIE
    if not isinstance(value, int | float) or not 1 <= value <= 2:
        raise DataError(f'{where}: "preference" should be a number from 1 to 2, not {value!r}')
    return float(value)


def filled(value: Any) -> Any:
    """`value`, or None if it is NaN, which is how pandas marks a missing value."""
    return None if isinstance(value, float) and math.isnan(value) else value
