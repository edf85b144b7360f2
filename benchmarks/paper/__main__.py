"""The paper's tables with the results of this implementation:

    python -m benchmarks.paper --table bbh|math|alpaca|fewshot|transfer|ablation|process_reward
        [--model NAME ...] [--data-dir DIR] [--task NAME ...] [--limit N] [--runs FOLDER] [--json FILE]
        [--set KEY=VALUE ...] [--judge NAME --judge-url URL] [--process-reward NAME]

Without --limit, a table has the paper's size: all tasks, 20 rounds, all test examples. On a cluster, submit
it with `ray job submit`; the same command continues after a stop. With --limit N, every task has N training
and N test examples and one round, for a laptop; such results show that the benchmark works, and say nothing
about the method.

Without --model: the paper's Qwen2.5-14B-Instruct (for transfer: its five models).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper import figures, studies

TABLES = ("bbh", "math", "alpaca", "fewshot", "transfer", "ablation", "process_reward")


def main(words: Sequence[str] | None = None) -> None:
    """Make and print the table that the command line `words` requests (None: that of this process)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", required=True, choices=TABLES)
    parser.add_argument("--model", nargs="+")
    parser.add_argument("--data-dir", help="folder of the benchmark files (default: the public hub)")
    parser.add_argument("--task", nargs="+", default=[], help="tasks to use instead of the paper's")
    parser.add_argument("--limit", type=int, help="number of examples of a task")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change the configuration")
    parser.add_argument("--judge", help="model name of AlpacaEval's judge")
    parser.add_argument("--judge-url", help="URL of the judge's server (default: OpenAI's)")
    parser.add_argument("--judge-annotator", choices=("weighted", "plain"), default="weighted")
    parser.add_argument("--process-reward", default="Qwen/Qwen2.5-Math-PRM-7B", help="process-reward model")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args(words)
    models = arguments.model or (
        figures.TRANSFER_MODELS if arguments.table == "transfer" else (figures.MODEL,)
    )
    request = studies.Request(
        models=tuple(models),
        data_dir=arguments.data_dir,
        runs=arguments.runs,
        limit=arguments.limit,
        tasks=tuple(arguments.task),
        settings=tuple(arguments.set),
    )
    rows = make_rows(arguments, request)
    label = {"model": ", ".join(models), "limit": arguments.limit}
    rows = [{**row, **label} for row in rows]
    print(markdown(rows, small=arguments.limit is not None))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def make_rows(arguments: argparse.Namespace, request: studies.Request) -> list[studies.Row]:
    """The rows of the requested table."""
    if arguments.table == "alpaca":
        if arguments.judge is None:
            raise SystemExit("--table alpaca needs a judge: --judge NAME [--judge-url URL]")
        endpoint = {} if arguments.judge_url is None else {"url": arguments.judge_url}
        judge = {"model": arguments.judge, "annotator": arguments.judge_annotator, "endpoint": endpoint}
        return studies.alpaca(request, judge)
    if arguments.table == "process_reward":
        return studies.process_reward(request, {"model": arguments.process_reward})
    simple = {
        "bbh": studies.bbh,
        "math": studies.math,
        "fewshot": studies.fewshot,
        "transfer": studies.transfer,
        "ablation": studies.ablation,
    }
    return simple[arguments.table](request)


def markdown(rows: Sequence[dict[str, Any]], *, small: bool) -> str:
    """The rows as Markdown: our results next to the paper's, labelled with the model and the limit."""
    first = rows[0]
    labels = [key for key in first if key not in ("table", "ours", "paper", "model", "limit")]
    ours = f"ours ({first['model']}" + (f", {first['limit']} examples a task)" if small else ")")
    lines = [
        f"Table {first['table']}" + (": SMALL, not a result of the method" if small else ""),
        "",
        f"| {' | '.join(labels)} | {ours} | paper |",
        "|" + " --- |" * (len(labels) + 2),
    ]
    for row in rows:
        cells = [*(str(row[key]) for key in labels), number(row["ours"]), number(row.get("paper"))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float | None) -> str:
    """A percentage with one decimal, a score below 1 with four; "–" for None."""
    if value is None:
        return "–"
    return f"{value:.4f}" if value <= 1 and value != int(value) else f"{value:.1f}"


if __name__ == "__main__":
    main()
