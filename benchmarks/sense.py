"""Does the gate for sense tell instructions from nonsense? On texts that small models wrote, read by people.

    python -m benchmarks.sense --data-dir DIR [--texts FILE]
    python -m benchmarks.sense --collect RUN [RUN ...] --texts FILE

The first form judges the texts of FILE (default: results/sense.json) by the gate, and prints how many good
texts it refuses and how much nonsense it lets through, with 95% intervals (Wilson), and every misjudged text.

The second form adds the rewrites of run folders to FILE, with the verdict null, for people to read. A text is
"good" if it tells a reader what to do with an input of the task, or "nonsense". Replies that the first gate
refuses anyway (cut off, empty, tags, duplicates) are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.display.numbers import percent_text
from pmpo_ray.evaluation.statistics import wilson_interval
from pmpo_ray.search.gate import refusal_reason
from pmpo_ray.search.operators import REWRITE
from pmpo_ray.search.sense import SenseGate
from pmpo_ray.store import RunStore
from pmpo_ray.store.kept_config import kept_config
from pmpo_ray.tasks import load_task
from pmpo_ray.text import in_line
from pmpo_ray.types import Task

TEXTS = Path(__file__).parent / "results" / "sense.json"
GOOD, NONSENSE = "good", "nonsense"

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="folder of the benchmark files")
    parser.add_argument("--texts", type=Path, default=TEXTS)
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
    print(table(judged(rows, arguments.data_dir)))


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


if __name__ == "__main__":
    main()
