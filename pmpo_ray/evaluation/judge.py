"""Evaluation of an instruction by how often a judge prefers its answers to reference answers (AlpacaEval 2).

Invariants: an answer is compared with the reference to the same input; an undecided pair counts half and is
marked as undecided; all instructions are compared with the same references.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from pmpo_ray.config.evaluation import EvaluationConfig
from pmpo_ray.errors import DataError
from pmpo_ray.evaluation.alpaca import win_rates
from pmpo_ray.evaluation.alpaca_rows import outputs_document
from pmpo_ray.evaluation.evaluators import GenerationEvaluator
from pmpo_ray.outcomes import Outcome
from pmpo_ray.text import shortened
from pmpo_ray.thoughts import without_thoughts
from pmpo_ray.types import Example

TIE = 0.5


class JudgeEvaluator:
    """Evaluates by a judge. `writer` generates the answers. The references are read from the configured file;
    without one, they are the answers to the instruction `start`."""

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
        """One outcome per example, whose `score` is the preference for the answer, from 0 to 1. Errors as in
        `alpaca.win_rates`."""
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
        rates = await asyncio.to_thread(
            win_rates,
            outputs_document(texts, list(map(_answer, written)), generator="candidate"),
            outputs_document(texts, references, generator="reference"),
            judge=judge.model or "",
            endpoint=judge.endpoint,
            method=judge.annotator,
            length_controlled=False,
        )
        return tuple(
            _outcome(outcome, row["preference"])
            for outcome, row in zip(written, rates.annotations, strict=True)
        )

    async def _reference_texts(
        self, examples: Sequence[Example], shots: Sequence[Example], repetition: int
    ) -> list[str]:
        path = self._settings.judge.references
        if path is not None:
            return await asyncio.to_thread(_read_references, Path(path), examples)
        written = await self._writer.evaluate(self._start, examples, shots, repetition)
        return list(map(_answer, written))


def _answer(outcome: Outcome) -> str:
    """The text that the judge compares: a reply behind its thoughts."""
    return without_thoughts(outcome.reply)


def _outcome(written: Outcome, preference: float | None) -> Outcome:
    """The outcome of a pair. `preference` is from 1 (for the reference) to 2 (for the answer)."""
    if not written.fits:
        return written
    if preference is None:
        return Outcome(written.example, False, None, written.reply, score=TIE, tokens=written.tokens)
    share = preference - 1
    verdict = "preferred" if share > TIE else "tie" if share == TIE else "not preferred"
    return Outcome(written.example, share > TIE, verdict, written.reply, score=share, tokens=written.tokens)


def _read_references(path: Path, examples: Sequence[Example]) -> list[str]:
    """The references of the examples, from a JSON file in the format of AlpacaEval. Raises DataError if it
    cannot be read or lacks an example."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        known = {row["instruction"]: row["output"] for row in rows}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"evaluation.judge.references: {path} is not a JSON list of instructions with outputs ({error})"
        ) from None
    missing = [example for example in examples if not isinstance(known.get(example.input), str)]
    if missing:
        raise DataError(
            f"evaluation.judge.references: {path} has no output for {len(missing)} test examples, such as "
            f"{shortened(missing[0].input, 60)!r}"
        )
    return [known[example.input] for example in examples]
