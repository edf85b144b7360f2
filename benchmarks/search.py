"""What does the search find, and what does it cost? Small real models on four classification tasks.

    python -m benchmarks.search --data-dir DIR [--model NAME_OR_FILE ...] [--seeds 0 1 2 3 4]
        [--task NAME ...] [--search best-0 best-2 best-4 best-8 paper-0] [--random] [--runs FOLDER]
        [--set KEY=VALUE ...] [--json FILE]

A search is named by its preset and its number of demonstrations. For every model and seed it makes one run
(`pmpo optimize`) with all searches of all tasks, and evaluates it on the tasks' held-out examples beside the
free instructions (`pmpo evaluate`). With --random also one run without rounds, whose start is evaluated with
as many random demonstrations, another draw for every seed. A run that is already in FOLDER is continued, or
used as it is if finished. Without --model: SmolLM2-135M. Prints

- a table of all searches: accuracies before and after, of the strongest free instruction and of the start
  with as many random demonstrations; tokens by kind; tokens until the paper's final loss was reached;
- the mean gain of each cell (model, task, preset, demonstrations) over the start, the strongest free
  instruction and random demonstrations, with its intervals over examples (these searches, other examples)
  and over searches and examples (others of both);
- the share of proposals and survivors by operator, and why texts were refused;
- every winning instruction.

The file of --json gets a row per search and one per cell, and keeps its rows of other searches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.packaged_models import available_model
from benchmarks.repeated import Values, merged_rows, values_of_run, write_rows
from benchmarks.search_tables import (
    Row,
    mean_table,
    means,
    problem,
    proposals,
    reached,
    table,
    verdict,
    winners,
)
from pmpo_ray.config.engines import DEFAULT_MODEL
from pmpo_ray.evaluation.paired_tests import compare
from pmpo_ray.history.run_history import TaskHistory, load_history
from pmpo_ray.history.task_facts import operator_counts, refusal_counts
from pmpo_ray.store import RunStore

CONFIG = Path(__file__).parents[1] / "configs" / "classification.yaml"
BASELINES = ("description", "step_by_step", "answer_only")
SEARCHES: Mapping[str, Mapping[str, Any]] = {
    **{f"best-{number}": {"demonstrations": number} for number in (0, 2, 4, 8)},
    "paper-0": {"preset": "paper", "max_tokens": None},
}
"""The entries of the grid. The paper has no limit of tokens."""


def main() -> None:
    arguments = _arguments()
    rows = [
        row
        for model in arguments.model
        for seed in arguments.seeds
        for row in measured(model, seed, arguments)
    ]
    rows.sort(key=identity)
    find_paper_losses(rows)
    averages = means(rows)
    parts = [table(rows), mean_table(averages), verdict(averages), reached(rows), proposals(rows)]
    print("\n\n".join([*parts, winners(rows)]))
    if arguments.json is not None:
        write(arguments.json, [*rows, *averages])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="folder of the benchmark files")
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--task", nargs="+", help="tasks of the configuration (default: all)")
    parser.add_argument("--search", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument("--random", action="store_true", help="measure random demonstrations, too")
    parser.add_argument("--runs", type=Path, default=Path("runs/search"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change the configuration")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser.parse_args()


def measured(model: str, seed: int, arguments: argparse.Namespace) -> list[Row]:
    """Make and evaluate the runs of one model and seed; one row per search."""
    name = Path(model).stem if model.endswith(".gguf") else model.rpartition("/")[2]
    settings = [
        f"data_dir={json.dumps(arguments.data_dir)}",
        f"model={json.dumps(available_model(model))}",
        f"seed={seed}",
        *([f"tasks={json.dumps(arguments.task)}"] if arguments.task else []),
        *arguments.set,
    ]
    grid = {search: SEARCHES[search] for search in arguments.search}
    folder = arguments.runs / f"{name}-{seed}"
    baselines = [part for baseline in BASELINES for part in ("--baseline", baseline)]
    evaluated(folder, [*settings, f"grid={json.dumps(grid)}"], baselines)
    history = load_history(str(folder))
    numbers = sorted({number for one in grid.values() if (number := one.get("demonstrations"))})
    drawn = (
        random_draws(arguments.runs / f"{name}-{seed}-random", numbers, settings) if arguments.random else {}
    )
    values = values_of_run(str(folder))
    return [
        search_row(
            name,
            seed,
            task,
            {one: found for (of, one), found in values.items() if of == task.task},
            drawn,
        )
        for task in history.tasks
    ]


def evaluated(folder: Path, settings: Sequence[str], conditions: Sequence[str]) -> None:
    """Make the run in `folder` and evaluate it, if that is not done yet."""
    if RunStore.exists(str(folder)) and RunStore.open(str(folder)).read_evaluation() is not None:
        return
    sets = [part for setting in settings for part in ("--set", setting)]
    run("optimize", str(CONFIG), "--run-dir", str(folder), *sets, "--json")
    run("evaluate", str(folder), *conditions, "--format", "json")


def run(*arguments: str) -> str:
    """Run a `pmpo` command, and return its standard output. Ends with its exit code if it fails: it has said
    why."""
    process = subprocess.run(
        [sys.executable, "-m", "pmpo_ray", *arguments], stdout=subprocess.PIPE, text=True
    )
    if process.returncode:
        sys.exit(process.returncode)
    return process.stdout


def random_draws(
    folder: Path, numbers: Sequence[int], settings: Sequence[str]
) -> dict[tuple[str, int], Values]:
    """The values of the start instruction behind random demonstrations, by task and number."""
    if not numbers:
        return {}
    shots = [part for number in numbers for part in ("--shots", str(number))]
    # The start alone is wanted, and one draw for every seed of a search.
    alone = ["--set", "evaluation.baselines=[]", "--set", "evaluation.seeds=1"]
    evaluated(folder, [*settings, "search.rounds=0"], [*shots, *alone])
    return {
        (one.condition.task, one.condition.shots): {o.example: float(o.right) for o in one.outcomes}
        for one in load_history(str(folder)).evaluation
        if one.condition.name == "start"
    }


def search_row(
    model: str,
    seed: int,
    task: TaskHistory,
    values: Mapping[str, Values],
    drawn: Mapping[tuple[str, int], Values],
) -> Row:
    """The results of one search. `values` are those of its instructions on the held-out examples, by name.
    `p_over_free` is that of the paired test against the strongest free instruction, for this search alone;
    `accuracy_random` is that of the start with as many random demonstrations as the search may use, null if
    not measured; `rounds` has all tokens so far and the best training loss, after every round."""
    name, _, variant = task.task.rpartition(".")
    preset, _, number = variant.partition("-")
    free = max((one for one in values if one != "best"), key=lambda one: fmean(values[one].values()))
    before, after = values["start"], values["best"]
    random = drawn.get((name, int(number)))
    result = task.result
    assert result is not None
    return {
        "task": name,
        "model": model,
        "seed": seed,
        "preset": preset,
        "demonstrations": int(number),
        "n_train": len(task.examples),
        "n_test": len(after),
        "accuracy_before": fmean(before.values()),
        "accuracy_after": fmean(after.values()),
        "strongest_free": free,
        "accuracy_free": fmean(values[free].values()),
        "p_over_free": compare(list(values[free].values()), [after[one] for one in values[free]]).p_value,
        "accuracy_random": fmean(random.values()) if random else None,
        "loss_before": result.loss_before,
        "loss_after": result.loss_after,
        "tokens": {
            "scored": result.tokens_scored,
            "prompted": result.tokens_prompted,
            "generated": result.tokens_generated,
        },
        "tokens_to_paper_loss": None,
        "rounds": rounds_of(task),
        "prompt_tokens": {"before": result.prompt_before, "after": result.prompt_after},
        "seconds": result.seconds,
        "operators": [asdict(count) for count in operator_counts(task)],
        "refused": dict(refusal_counts(task)),
        "instruction": result.best,
        "shots": [asdict(shot) for shot in result.shots],
        "values": {"start": before, "best": after, "free": values[free], "random": random},
    }


def rounds_of(task: TaskHistory) -> list[tuple[int, float]]:
    """All tokens so far and the best training loss, after every round."""
    spent = accumulate(record.tokens for record in task.records)
    losses = (record.scored_survivors[0].loss for record in task.records)
    return list(zip(spent, losses, strict=True))


def find_paper_losses(rows: Iterable[Row]) -> None:
    """Set `tokens_to_paper_loss` of the searches beside which there is one with the paper's preset: all
    tokens until the training loss was the paper's final one or lower, null if it never was."""
    searches = [row for row in rows if row["seed"] != "mean"]
    final = {problem(row): row["rounds"][-1][1] for row in searches if row["preset"] == "paper"}
    for row in searches:
        if (goal := final.get(problem(row))) is not None:
            row["tokens_to_paper_loss"] = next((spent for spent, loss in row["rounds"] if loss <= goal), None)


def identity(row: Row) -> tuple[str, str, str, int, str]:
    """The search that a row is of; the row of a cell comes behind those of its searches."""
    seed = row["seed"]
    return row["model"], row["task"], row["preset"], row["demonstrations"], f"{seed:>4}"


def write(file: Path, rows: Sequence[Row]) -> None:
    """Write the rows to the file, beside its rows of other searches."""
    content = merged_rows(file, rows, identity)
    find_paper_losses(content)
    write_rows(file, content)


if __name__ == "__main__":
    main()
