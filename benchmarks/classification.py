"""Text classification with small real models: does optimising on 40 examples raise held-out accuracy?

    python -m benchmarks.classification --data-dir DIR [--model NAME_OR_FILE ...] [--seeds 0 1 2]
        [--task NAME ...] [--runs FOLDER] [--set KEY=VALUE ...] [--json FILE]

For every model and seed it makes one run of all tasks (`pmpo optimize`) and evaluates it on the tasks'
held-out examples (`pmpo evaluate`). A run that is already in FOLDER is continued, or used as it is if
finished. Prints a table of all runs with the means over seeds and the strongest free instructions. The file
of --json keeps its rows of other models, seeds and tasks. Without --model: SmolLM2-135M.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.packaged_models import available_model
from pmpo_ray.config.engines import DEFAULT_MODEL
from pmpo_ray.config.loading import load_config
from pmpo_ray.config.overrides import parse_overrides
from pmpo_ray.evaluation.statistics import LEVEL, Comparison, compare, holm
from pmpo_ray.store import RunStore

CONFIG = Path(__file__).parents[1] / "configs" / "classification.yaml"
BASELINES = ("description", "step_by_step", "answer_only")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="folder of the benchmark files")
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--task", nargs="+", help="tasks of the configuration (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs/classification"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change the configuration")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    settings = [f"data_dir={json.dumps(arguments.data_dir)}", *arguments.set]
    if arguments.task:
        settings.append(f"tasks={json.dumps(arguments.task)}")
    rows = [
        row
        for model in arguments.model
        for seed in arguments.seeds
        for row in measured(model, seed, arguments.runs, settings)
    ]
    rows.sort(key=identity)
    print(table(rows))
    for model in dict.fromkeys(row["model"] for row in rows):
        print(f"\n{model}: {verdict([row for row in rows if row['model'] == model])}")
    if arguments.json is not None:
        write(arguments.json, rows)


def measured(model: str, seed: int, runs: Path, settings: Sequence[str]) -> list[dict[str, Any]]:
    """Make and evaluate one run; return one row per task."""
    name = Path(model).stem if model.endswith(".gguf") else model.rpartition("/")[2]
    folder = runs / f"{name}-{seed}"
    settings = [*settings, f"model={json.dumps(available_model(model))}", f"seed={seed}"]
    sets = [part for setting in settings for part in ("--set", setting)]
    run("optimize", str(CONFIG), "--run-dir", str(folder), *sets, "--json")
    baselines = [part for baseline in BASELINES for part in ("--baseline", baseline)]
    summary = json.loads(run("evaluate", str(folder), *baselines, "--format", "json"))
    results = RunStore.open(str(folder)).read_evaluation() or ()
    values = {
        (one.condition.task, one.condition.name): {o.example: float(o.right) for o in one.outcomes}
        for one in results
    }
    split = load_config(str(CONFIG), parse_overrides(settings)).split
    return [
        task_row(name, seed, task, summary, values, split.train_max + split.validation)
        for task in dict.fromkeys(row["task"] for row in summary["rows"])
    ]


def run(*arguments: str) -> str:
    """Run a `pmpo` command, and return its standard output."""
    process = subprocess.run(
        [sys.executable, "-m", "pmpo_ray", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return process.stdout


def task_row(
    model: str,
    seed: int,
    task: str,
    summary: dict[str, Any],
    values: dict[tuple[str, str], Any],
    n_train: int,
) -> dict[str, Any]:
    """The results of one run on a task. `low` and `high` are the ends of the 95% interval of the gain in
    accuracy, `p_value` is that of McNemar's exact test, for this run alone."""
    rows = {row["name"]: row for row in summary["rows"] if row["task"] == task}
    gains = {gain["against"]: gain for gain in summary["gains"] if gain["task"] == task}
    gain = gains["start"]["accuracy"]
    free = gains["free"]["other"]
    return {
        "model": model,
        "task": task,
        "seed": seed,
        "n_train": n_train,
        "n_test": rows["start"]["accuracy"]["n"],
        "accuracy_before": rows["start"]["accuracy"]["value"],
        "accuracy_after": rows["best"]["accuracy"]["value"],
        "low": gain["difference"]["low"],
        "high": gain["difference"]["high"],
        "p_value": gain["p_value"],
        "strongest_free": free,
        "accuracy_free": rows[free]["accuracy"]["value"],
        "instruction": rows["best"]["instruction"],
        "values": (values[task, "start"], values[task, "best"]),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, with the mean over seeds for each model and task, and a test of that mean."""
    lines = [
        "| model | task | seed | n | start | best | gain [95%] | p | strongest free |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((row["model"], row["task"]) for row in rows):
        group = [row for row in rows if (row["model"], row["task"]) == key]
        lines += [
            line(*key, str(row["seed"]), row["n_test"], row, (row["low"], row["high"]), row["p_value"])
            for row in group
        ]
        mean = {
            name: fmean(row[name] for row in group)
            for name in ("accuracy_before", "accuracy_after", "accuracy_free")
        }
        over = over_seeds(group)
        ends = (over.difference.low, over.difference.high)
        lines.append(
            line(*key, "mean", group[0]["n_test"], mean | {"strongest_free": ""}, ends, over.p_value)
        )
    return "\n".join(lines)


def over_seeds(rows: Sequence[dict[str, Any]]) -> Comparison:
    """The best instruction compared with the start over all seeds. An example that is in several test parts
    counts once, with the mean of its values."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        before, after = row["values"]
        for example in before:
            pairs.setdefault(example, []).append((before[example], after[example]))
    return compare(
        [fmean(before for before, _ in values) for values in pairs.values()],
        [fmean(after for _, after in values) for values in pairs.values()],
    )


def identity(row: dict[str, Any]) -> tuple[str, str, int]:
    """The model, task and seed of a row, which identify it."""
    return row["model"], row["task"], row["seed"]


def write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows to the file. They replace rows of the same model, task and seed."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    kept += [{key: value for key, value in row.items() if key != "values"} for row in rows]
    content = sorted({identity(row): row for row in kept}.values(), key=identity)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def line(
    model: str, task: str, seed: str, n: int, row: dict[str, Any], ends: tuple[float, float], p: float
) -> str:
    """One line of the table."""
    before, after = row["accuracy_before"], row["accuracy_after"]
    gain = f"{(after - before) * 100:+.1f} [{ends[0] * 100:+.1f}, {ends[1] * 100:+.1f}]"
    free = f"{row['accuracy_free']:.1%} {row['strongest_free']}".strip()
    return f"| {model} | {task} | {seed} | {n} | {before:.1%} | {after:.1%} | {gain} | {p:.3g} | {free} |"


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """The numbers of tasks whose mean over seeds changed significantly, after Holm's correction."""
    groups = [[row for row in rows if row["task"] == task] for task in dict.fromkeys(r["task"] for r in rows)]
    over = [over_seeds(group) for group in groups]
    adjusted = holm([comparison.p_value for comparison in over])
    changes = [c.difference.value for p, c in zip(adjusted, over, strict=True) if p < LEVEL]
    rose, fell = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    return f"accuracy rose significantly on {rose} of {len(groups)} tasks and fell significantly on {fell}"


if __name__ == "__main__":
    main()
