"""Measuring an instruction by how often a judge prefers its answers to reference answers (AlpacaEval 2).

Invariants: references and answers are compared on equal inputs; an undecided pair counts half and is told
apart; instructions are compared through the same references.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from pmpo_ray.config.evaluation import EvaluationConfig
from pmpo_ray.errors import DataError
from pmpo_ray.evaluation.alpaca import outputs_document, win_rates
from pmpo_ray.evaluation.evaluators import GenerationEvaluator
from pmpo_ray.types import Example, Outcome

TIE = 0.5


class Judging:
    """Evaluates by a judge. `writer` makes the answers; without a file of references those under the
    instruction `start` are the references."""

    def __init__(self, writer: GenerationEvaluator, settings: EvaluationConfig, start: str) -> None:
        self._writer = writer
        self._settings = settings
        self._start = start
        self._references: dict[object, asyncio.Task[list[str]]] = {}

    async def evaluate(
        self,
        instruction: str,
        examples: Sequence[Example],
        shots: Sequence[Example],
        repetition: int = 0,
    ) -> tuple[Outcome, ...]:
        """One outcome an example, its `score` the preference for the answer, from 0 to 1. Raises what
        `alpaca.win_rates` raises."""
        judge = self._settings.judge
        key = (tuple(shots), repetition)
        if key not in self._references:
            self._references[key] = asyncio.ensure_future(self._reference_texts(examples, shots, repetition))
        references = await self._references[key]
        if judge.references is None and instruction == self._start:
            return tuple(
                Outcome(example.id, False, "the reference itself", text, score=TIE)
                for example, text in zip(examples, references, strict=True)
            )
        written = await self._writer.evaluate(instruction, examples, shots, repetition)
        texts = [example.input for example in examples]
        found = await asyncio.to_thread(
            win_rates,
            outputs_document(texts, [outcome.reply for outcome in written], generator="candidate"),
            outputs_document(texts, references, generator="reference"),
            judge=judge.model or "",
            endpoint=judge.endpoint,
            method=judge.annotator,
            length_controlled=False,
        )
        return tuple(
            _outcome(outcome, row["preference"])
            for outcome, row in zip(written, found.annotations, strict=True)
        )

    async def _reference_texts(
        self, examples: Sequence[Example], shots: Sequence[Example], repetition: int
    ) -> list[str]:
        path = self._settings.judge.references
        if path is not None:
            return await asyncio.to_thread(_read_references, Path(path), examples)
        written = await self._writer.evaluate(self._start, examples, shots, repetition)
        return [outcome.reply for outcome in written]


def _outcome(written: Outcome, preference: float | None) -> Outcome:
    """`preference` is the package's: 1 for the reference, 2 for the answer."""
    if preference is None:
        return Outcome(written.example, False, None, written.reply, score=TIE, tokens=written.tokens)
    share = preference - 1
    verdict = "preferred" if share > TIE else "tie" if share == TIE else "not preferred"
    return Outcome(written.example, share > TIE, verdict, written.reply, score=share, tokens=written.tokens)


def _read_references(path: Path, examples: Sequence[Example]) -> list[str]:
    """Outputs by instruction from a file in the format of AlpacaEval. Raises DataError for one that cannot be
    read or lacks an example."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        known = {row["instruction"]: row["output"] for row in rows}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"evaluation.judge.references: {path} is no list of instructions with outputs ({error})"
        ) from None
    missing = [example for example in examples if not isinstance(known.get(example.input), str)]
    if missing:
        raise DataError(
            f"evaluation.judge.references: {path} has no output for {len(missing)} test examples, such as "
            f"{missing[0].input[:60]!r}"
        )
    return [known[example.input] for example in examples]
