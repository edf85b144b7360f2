"""Text classification with small real models: does optimising on 40 examples raise held-out accuracy?

    python -m benchmarks.classification --data-dir DIR [--model NAME_OR_FILE ...] [--seeds 0 1 2 3 4]
        [--task NAME ...] [--runs FOLDER] [--set KEY=VALUE ...] [--json FILE]

For every model and seed it makes one run of all tasks (`pmpo optimize`) and evaluates it on the tasks'
held-out examples (`pmpo evaluate`). A run that is already in FOLDER is continued, or used as it is if
finished. Without --model: SmolLM2-135M. Prints

- a table of all runs, with the gain over the start and its interval over examples (these searches, other
  examples), and the strongest free instruction;
- the mean gain of each model and task over the start and over each search's strongest free instruction, with
  its interval over examples and its interval over searches and examples (other searches, other examples).
  p-values are corrected (Holm) for all models and tasks of a column;
- every winning instruction.

The file of --json gets the rows of all three, and keeps its rows of other models, seeds and tasks; the row of
a mean has the seeds that it is over.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.packaged_models import available_model
from benchmarks.repeated import Values, both_intervals, corrected, gain_cell, values_of_run
from pmpo_ray.config.engines import DEFAULT_MODEL
from pmpo_ray.config.loading import load_config
from pmpo_ray.config.overrides import parse_overrides
from pmpo_ray.evaluation.statistics import LEVEL
from pmpo_ray.text import in_line

CONFIG = Path(__file__).parents[1] / "configs" / "classification.yaml"
BASELINES = ("description", "step_by_step", "answer_only")


def main() -> None:
    arguments = options(__doc__, Path("runs/classification")).parse_args()
    settings = settings_of(arguments)
    rows = [
        row
        for model in arguments.model
        for seed in arguments.seeds
        for row in measured(model, seed, arguments.runs, settings)
    ]
    rows.sort(key=identity)
    averages = means(rows)
    print(table(rows))
    print(f"\n{mean_table(averages)}\n\n{verdict(averages)}")
    print(f"\n{winners(rows)}")
    if arguments.json is not None:
        write(arguments.json, [*rows, *averages])


def options(description: str | None, runs: Path) -> argparse.ArgumentParser:
    """The options of a benchmark that searches the tasks of the configuration, with runs in the folder `runs`
    if no other is named."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="folder of the benchmark files")
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--task", nargs="+", help="tasks of the configuration (default: all)")
    parser.add_argument("--runs", type=Path, default=runs)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change the configuration")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser


def settings_of(arguments: argparse.Namespace) -> list[str]:
    """What the options change of the configuration."""
    settings = [f"data_dir={json.dumps(arguments.data_dir)}", *arguments.set]
    return [*settings, f"tasks={json.dumps(arguments.task)}"] if arguments.task else settings


def measured(model: str, seed: int, runs: Path, settings: Sequence[str]) -> list[dict[str, Any]]:
    """Make and evaluate one run; return one row per task."""
    name = Path(model).stem if model.endswith(".gguf") else model.rpartition("/")[2]
    folder = runs / f"{name}-{seed}"
    settings = [*settings, f"model={json.dumps(available_model(model))}", f"seed={seed}"]
    sets = [part for setting in settings for part in ("--set", setting)]
    run("optimize", str(CONFIG), "--run-dir", str(folder), *sets, "--json")
    baselines = [part for baseline in BASELINES for part in ("--baseline", baseline)]
    summary = json.loads(run("evaluate", str(folder), *baselines, "--format", "json"))
    values = values_of_run(str(folder))
    split = load_config(str(CONFIG), parse_overrides(settings)).split
    return [
        task_row(name, seed, task, summary, values, split.train_max)
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
    values: Mapping[tuple[str, str], Values],
    n_train: int,
) -> dict[str, Any]:
    """The results of one run on a task. `low` and `high` are the ends of the 95% interval of the gain in
    accuracy over examples, `p_value` is that of the same test (Tango, McNemar), for this run alone; balanced
    accuracies are null if the labels are even."""
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
        "balanced_before": _balanced(rows["start"]),
        "balanced_after": _balanced(rows["best"]),
        "instruction": rows["best"]["instruction"],
        "values": {name: values[task, name] for name in ("start", "best", free)},
    }


def _balanced(row: Mapping[str, Any]) -> float | None:
    return None if row["by_label"] is None else float(row["by_label"]["balanced"]["value"])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The runs as Markdown."""
    lines = [
        "| model | task | seed | n | start | best | balanced | gain [95%, examples] | p | strongest free |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        before, after = row["accuracy_before"], row["accuracy_after"]
        balanced = "even"
        if row["balanced_before"] is not None:
            balanced = f"{row['balanced_before']:.1%} to {row['balanced_after']:.1%}"
        cells = [
            *(str(row[key]) for key in ("model", "task", "seed", "n_test")),
            f"{before:.1%}",
            f"{after:.1%}",
            balanced,
            gain_cell(after - before, row["low"], row["high"]),
            f"{row['p_value']:.3g}",
            f"{row['accuracy_free']:.1%} {row['strongest_free']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean gains of each model and task over the start and over each search's strongest free instruction,
    with p-values corrected for all models and tasks."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["task"]), []).append(row)
    averages: list[dict[str, Any]] = []
    for (model, task), group in groups.items():
        average: dict[str, Any] = {"model": model, "task": task, "seed": "mean"}
        average["seeds"] = [row["seed"] for row in group]
        for key in ("accuracy_before", "accuracy_after", "accuracy_free"):
            average[key] = fmean(row[key] for row in group)
        for over in ("start", "free"):
            other = [row["values"]["start" if over == "start" else row["strongest_free"]] for row in group]
            pairs = list(zip(other, (row["values"]["best"] for row in group), strict=True))
            average[f"over_{over}"] = both_intervals(pairs)
        averages.append(average)
    corrected([average[f"over_{over}"] for average in averages] for over in ("start", "free"))
    return averages


def mean_table(averages: Sequence[dict[str, Any]]) -> str:
    """The means as Markdown."""
    titles = ["model", "task", "seeds", "start", "best"]
    for over in ("start", "free"):
        titles += [f"over {over} [95% over examples]", "p", "[95% over searches and examples]", "p"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for one in averages:
        cells = [one["model"], one["task"], str(len(one["seeds"]))]
        cells += [f"{one['accuracy_before']:.1%}", f"{one['accuracy_after']:.1%}"]
        for over in ("start", "free"):
            for kind in ("examples", "searches"):
                found = one[f"over_{over}"][kind]
                cells += (
                    ["one search", "–"]
                    if found is None
                    else [
                        gain_cell(found["gain"], found["low"], found["high"]),
                        f"{found['p_adjusted']:.3g}",
                    ]
                )
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"\np: corrected for {len(averages)} tests, models times tasks (Holm)")
    return "\n".join(lines)


def winners(rows: Sequence[dict[str, Any]]) -> str:
    """Every winning instruction, on one line each."""
    lines = ["| model | task | seed | winning instruction |", "|---|---|---|---|"]
    for row in rows:
        text = in_line(row["instruction"]).replace("|", "\\|")
        lines.append(f"| {row['model']} | {row['task']} | {row['seed']} | {text} |")
    return "\n".join(lines)


def identity(row: dict[str, Any]) -> tuple[str, str, str]:
    """The model, task and seed of a row, which identify it; the row of a mean comes last."""
    return row["model"], row["task"], f"{row['seed']:>4}"


def write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows to the file. They replace rows of the same model, task and seed."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    kept += [{key: value for key, value in row.items() if key != "values"} for row in rows]
    content = sorted({identity(row): row for row in kept}.values(), key=identity)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def verdict(averages: Sequence[dict[str, Any]]) -> str:
    """The numbers of mean gains that are significant over examples, and over searches and examples."""
    sentences = []
    for over, words in (("start", "the start"), ("free", "the strongest free instruction")):
        for kind, basis in (("examples", "examples"), ("searches", "searches and examples")):
            found = [one[f"over_{over}"][kind] for one in averages]
            changes = [one["gain"] for one in found if one is not None and one["p_adjusted"] < LEVEL]
            rose, fell = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
            sentences.append(
                f"mean gains over {words}: {rose} of {len(found)} significant over {basis}; losses: {fell}"
            )
    return "\n".join(sentences)


if __name__ == "__main__":
    main()
