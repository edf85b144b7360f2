"""Does the gate for sense tell instructions from nonsense? On texts that small models wrote, read by people.

    python -m benchmarks.sense --data-dir DIR [--texts FILE] [--model NAME [--layout LAYOUT]]
    python -m benchmarks.sense --collect RUN [RUN ...] --texts FILE

The first form judges the texts of FILE (default: results/sense.json) by the gate, and prints how many good
texts it refuses and how much nonsense it lets through, with 95% intervals (Wilson), and every misjudged text.

With --model it also measures the gate's last question, the relevance of a text (`search.relevance`) under
that model: log p(text | description) - log p(text), in nats per token. It prints the area under the curve
between good texts and nonsense, and the rates of this question and of the whole gate for several bounds.

The second form adds the rewrites of run folders to FILE, with the verdict null, for people to read. A text is
"good" if it tells a reader what to do with an input of the task, or "nonsense". Replies that the first gate
refuses anyway (cut off, empty, tags, duplicates) are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.packaged_models import available_model
from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.display.numbers import percent_text
from pmpo_ray.engines.factory import open_scorer
from pmpo_ray.evaluation.statistics import wilson_interval
from pmpo_ray.protocols import AsyncScorer
from pmpo_ray.search.gate import refusal_reason
from pmpo_ray.search.operators import REWRITE
from pmpo_ray.search.relevance import relevances
from pmpo_ray.search.sense import SenseGate
from pmpo_ray.store import RunStore
from pmpo_ray.store.kept_config import kept_config
from pmpo_ray.tasks import load_task
from pmpo_ray.text import in_line
from pmpo_ray.types import ExampleScore, ScoreRequest, Task

TEXTS = Path(__file__).parent / "results" / "sense.json"
GOOD, NONSENSE = "good", "nonsense"
_BOUNDS = (0.3, 0.5, 0.6, 0.7, 0.8, 1.0)

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="folder of the benchmark files")
    parser.add_argument("--texts", type=Path, default=TEXTS)
    parser.add_argument("--model", help="also measure the relevance of the texts under this model")
    parser.add_argument("--layout", default="auto", help="layout of its prompts (default: auto)")
    parser.add_argument("--collect", nargs="+", metavar="RUN", default=[])
    arguments = parser.parse_args()
    rows: list[Row] = json.loads(arguments.texts.read_text()) if arguments.texts.exists() else []
    if arguments.collect:
        known = {(row["task"], row["text"]) for row in rows}
        new = [row for run in arguments.collect for row in collected(run)]
        rows += [row for row in new if (row["task"], row["text"]) not in known]
        arguments.texts.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{len(rows)} texts, {sum(row['verdict'] is None for row in rows)} to be read")
        return
    read = judged(rows, arguments.data_dir)
    print(table(read))
    if arguments.model:
        values = asyncio.run(measured(read, arguments.data_dir, arguments.model, arguments.layout))
        print("\n" + thresholds(read, values))


def collected(run: str) -> list[Row]:
    """The distinct rewrites of a run folder that pass the first gate."""
    store, config = RunStore.open(run), kept_config(run)
    found: dict[tuple[str, str], Row] = {}
    for task in config.tasks:
        searches = config.named_searches(task.name)
        for record in (record for name in searches for record in store.read_rounds(name)):
            own = [one.candidate for one in record.candidates if one.candidate.round == record.round]
            for text in (*own, *record.refusals):
                if text.operator != REWRITE:
                    continue
                if refusal_reason(text.text, known=(), examples=(), max_chars=4000) is None:
                    row = {"task": task.name, "model": config.rewriter_model, "seed": config.seed}
                    found[task.name, text.text] = {**row, "text": text.text, "verdict": None}
    return list(found.values())


def judged(rows: Sequence[Row], data_dir: str | None) -> list[Row]:
    """The rows with a verdict, with the gate's reason to refuse each text (None: it passes)."""
    gates: dict[str, tuple[Task, SenseGate]] = {}
    found = []
    for row in rows:
        if row["verdict"] is None:
            continue
        name = row["task"]
        if name not in gates:
            task = load_task(TaskConfig(name=name), data_dir, 0)
            gates[name] = task, SenseGate.of(task, task.examples, "short")
        task, gate = gates[name]
        found.append({**row, "reason": gate.reason(row["text"], task.instruction)})
    return found


def table(rows: Sequence[Row]) -> str:
    """The two rates as text, and the misjudged texts."""
    lines = []
    wrong = []
    for verdict, question in ((GOOD, "good texts refused"), (NONSENSE, "nonsense let through")):
        of_kind = [row for row in rows if row["verdict"] == verdict]
        misjudged = [row for row in of_kind if (row["reason"] is None) == (verdict == NONSENSE)]
        wrong += misjudged
        if of_kind:
            interval = wilson_interval(len(misjudged), len(of_kind))
            lines.append(f"{question}: {len(misjudged)} of {len(of_kind)}, {percent_text(interval)} %")
    lines += [
        "",
        *(f"{row['verdict']}, {row['task']}, {row['reason']}: {in_line(row['text'])}" for row in wrong),
    ]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Client:
    """An engine of this process as a client of the search."""

    engine: AsyncScorer

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        return (await self.engine.score(request)).scores


async def measured(rows: Sequence[Row], data_dir: str | None, model: str, layout: str) -> list[float]:
    """The relevance of each text, in nats per token."""
    config = ScorerConfig.model_validate({"layout": layout})
    client = _Client(await open_scorer(config, available_model(model)))
    found: dict[tuple[str, str], float] = {}
    for name in dict.fromkeys(row["task"] for row in rows):
        description = load_task(TaskConfig(name=name), data_dir, 0).description
        texts = list(dict.fromkeys(row["text"] for row in rows if row["task"] == name))
        values, _ = await relevances(client, description, texts)
        found |= zip([(name, text) for text in texts], values, strict=True)
    return [found[row["task"], row["text"]] for row in rows]


def thresholds(rows: Sequence[Row], values: Sequence[float]) -> str:
    """The area under the curve, and the rates with each bound: a text below it is refused."""
    pairs = list(zip(rows, values, strict=True))
    good = [value for row, value in pairs if row["verdict"] == GOOD]
    nonsense = [value for row, value in pairs if row["verdict"] == NONSENSE]
    wins = sum((one > other) + (one == other) / 2 for one in good for other in nonsense)
    lines = [
        f"area under the curve of the relevance: {wins / (len(good) * len(nonsense)):.3f}",
        "| below | good refused | nonsense let through, by the relevance alone | by the whole gate |",
        "|---|---|---|---|",
    ]
    for bound in _BOUNDS:
        passed = [row for row, value in pairs if row["verdict"] == NONSENSE and value >= bound]
        both = [row for row in passed if row["reason"] is None]
        cells = [
            wilson_interval(sum(value < bound for value in good), len(good)),
            wilson_interval(len(passed), len(nonsense)),
            wilson_interval(len(both), len(nonsense)),
        ]
        lines.append(f"| {bound:.1f} nats | " + " | ".join(f"{percent_text(one)} %" for one in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
