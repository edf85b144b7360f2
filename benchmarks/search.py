"""What does the search find, and what does it cost: presets, and demonstrations beside random ones.

    python -m benchmarks.search --data-dir DIR [--model NAME_OR_FILE ...] [--seeds 0 1 2 3 4]
        [--task NAME ...] [--demonstrations 0 2 4 8] [--rounds N] [--runs FOLDER] [--set KEY=VALUE ...]
        [--json FILE]

For every model and seed it makes one run with a search for every task, preset and number of demonstrations
(`search.preset: best` with each number, `paper` without any), and evaluates it on the tasks' held-out
examples with the free instructions; and one run without rounds, whose start is evaluated with random
demonstrations. A run that is already in FOLDER is continued, or used as it is if finished. Without --model:
SmolLM2-135M. Without --rounds: as many as the preset has. Prints

- a table of all searches: accuracies before and after, of the strongest free instruction and of the start
  with as many random demonstrations; tokens by kind; tokens until the paper's final loss was reached;
- the mean gain of each cell (model, task, preset, demonstrations) over the strongest free instruction and
  over random demonstrations, with its intervals over examples and over searches and examples;
- the share of proposals and survivors by operator, and why texts were refused;
- every winning instruction.

The file of --json gets a row per search, and keeps its rows of other searches.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.classification import BASELINES, CONFIG, options, run, settings_of
from benchmarks.packaged_models import available_model
from benchmarks.repeated import Values, both_intervals, corrected, gain_cell
from pmpo_ray.evaluation.paired_tests import compare
from pmpo_ray.history.run_history import RunHistory, TaskHistory, load_history
from pmpo_ray.history.task_facts import operator_counts, refusal_counts
from pmpo_ray.text import in_line

REPETITIONS = 3
"""Draws of random demonstrations."""

Row = dict[str, Any]


def main() -> None:
    parser = options(__doc__, Path("runs/search"))
    parser.add_argument("--demonstrations", type=int, nargs="+", default=[0, 2, 4, 8])
    parser.add_argument("--rounds", type=int, help="rounds of every search (default: the preset's)")
    arguments = parser.parse_args()
    settings = settings_of(arguments)
    rows = [
        row
        for model in arguments.model
        for seed in arguments.seeds
        for row in measured(
            model, seed, searches(arguments.demonstrations, arguments.rounds), arguments.runs, settings
        )
    ]
    rows.sort(key=identity)
    print(table(rows))
    print(f"\n{mean_table(rows)}")
    print(f"\n{proposals(rows)}")
    print(f"\n{winners(rows)}")
    if arguments.json is not None:
        write(arguments.json, rows)


def searches(numbers: Sequence[int], rounds: int | None) -> dict[str, Row]:
    """The entries of the grid."""
    found: dict[str, Row] = {f"best-{n}": {"preset": "best", "demonstrations": n} for n in numbers}
    found["paper-0"] = {"preset": "paper"}
    return found if rounds is None else {name: one | {"rounds": rounds} for name, one in found.items()}


def measured(
    model: str, seed: int, grid: Mapping[str, Row], runs: Path, settings: Sequence[str]
) -> list[Row]:
    """Make and evaluate the runs of one model and seed; one row per search."""
    name = Path(model).stem if model.endswith(".gguf") else model.rpartition("/")[2]
    common = [*settings, f"model={json.dumps(available_model(model))}", f"seed={seed}"]
    folder = runs / f"{name}-{seed}"
    optimized(folder, [*common, f"grid={json.dumps(grid)}"])
    baselines = [part for baseline in BASELINES for part in ("--baseline", baseline)]
    run("evaluate", str(folder), *baselines, "--format", "json")
    history = load_history(str(folder))
    numbers = [number for one in grid.values() if (number := one.get("demonstrations"))]
    drawn = random_draws(runs / f"{name}-{seed}-random", numbers, common)
    papers = [task for task in history.tasks if task.task.endswith(".paper-0")]
    paper = {task.task.removesuffix(".paper-0"): task for task in papers}
    return [search_row(name, seed, history, task, paper, drawn) for task in history.tasks]


def optimized(folder: Path, settings: Sequence[str]) -> None:
    sets = [part for setting in settings for part in ("--set", setting)]
    run("optimize", str(CONFIG), "--run-dir", str(folder), *sets, "--json")


def random_draws(
    folder: Path, numbers: Sequence[int], settings: Sequence[str]
) -> dict[tuple[str, int], Values]:
    """The values of the start instruction behind random demonstrations, by task and number: each the mean
    over the draws."""
    if not numbers:
        return {}
    optimized(folder, [*settings, "search.rounds=0"])
    shots = [part for number in numbers for part in ("--shots", str(number))]
    run("evaluate", str(folder), *shots, "--set", f"evaluation.seeds={REPETITIONS}", "--format", "json")
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for one in load_history(str(folder)).evaluation:
        if one.condition.name == "start":
            values = found.setdefault((one.condition.task, one.condition.shots), {})
            for outcome in one.outcomes:
                values.setdefault(outcome.example, []).append(float(outcome.right))
    return {key: {name: fmean(all_) for name, all_ in values.items()} for key, values in found.items()}


def search_row(
    model: str,
    seed: int,
    history: RunHistory,
    task: TaskHistory,
    paper: Mapping[str, TaskHistory],
    drawn: Mapping[tuple[str, int], Values],
) -> Row:
    """The results of one search. `p_over_free` is that of the paired test against the strongest free
    instruction, for this search alone; `accuracy_random` is that of the start with as many random
    demonstrations as the search may use, null without any; `tokens_to_paper_loss` counts all tokens until
    the training loss was the paper's final one or lower, null if it never was."""
    name, _, variant = task.task.rpartition(".")
    preset, _, number = variant.partition("-")
    values = evaluated_values(history, task.task)
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
        "tokens_to_paper_loss": tokens_to(task, paper[name].best.loss) if name in paper else None,
        "prompt_tokens": {"before": result.prompt_before, "after": result.prompt_after},
        "seconds": result.seconds,
        "operators": [asdict(count) for count in operator_counts(task)],
        "refused": dict(refusal_counts(task)),
        "instruction": result.best,
        "shots": [asdict(shot) for shot in result.shots],
        "values": {"best": after, "free": values[free], "random": random},
    }


def evaluated_values(history: RunHistory, task: str) -> dict[str, Values]:
    """Which held-out examples were answered rightly, by the name of the instruction."""
    return {
        one.condition.name: {outcome.example: float(outcome.right) for outcome in one.outcomes}
        for one in history.evaluation
        if one.condition.task == task
    }


def tokens_to(task: TaskHistory, loss: float) -> int | None:
    """All tokens of the rounds up to the first whose best training loss is `loss` or lower."""
    spent = 0
    for record in task.records:
        spent += record.tokens
        if record.scored_survivors[0].loss <= loss:
            return spent
    return None


def table(rows: Sequence[Row]) -> str:
    """The searches as Markdown."""
    lines = [
        "| model | task | preset | demos | seed | start | best | strongest free | p | random demos | loss "
        "| tokens scored + prompted + generated | to the paper's loss |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        random, reached = row["accuracy_random"], row["tokens_to_paper_loss"]
        cells = [
            *(str(row[key]) for key in ("model", "task", "preset", "demonstrations", "seed")),
            f"{row['accuracy_before']:.1%}",
            f"{row['accuracy_after']:.1%}",
            f"{row['accuracy_free']:.1%} {row['strongest_free']}",
            f"{row['p_over_free']:.3g}",
            "–" if random is None else f"{random:.1%}",
            f"{row['loss_before']:.3f} to {row['loss_after']:.3f}",
            " + ".join(f"{row['tokens'][kind]:,}" for kind in ("scored", "prompted", "generated")),
            "never" if reached is None else f"{reached:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_table(rows: Sequence[Row]) -> str:
    """The mean gains of the cells as Markdown, and the tokens to the paper's loss."""
    cells: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("model", "task", "preset", "demonstrations"))
        cells.setdefault(key, []).append(row)
    against = {"free": "strongest free", "random": "random demonstrations"}
    gains = {
        (key, other): both_intervals([(row["values"][other], row["values"]["best"]) for row in group])
        for key, group in cells.items()
        for other in against
        if all(row["values"][other] for row in group)
    }
    corrected([found for (_, other), found in gains.items() if other == one] for one in against)
    lines = [
        "| model | task | preset | demos | searches | best | against | gain [95% over examples] | p "
        "| [95% over searches and examples] | p |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (key, other), found in gains.items():
        after = fmean(row["accuracy_after"] for row in cells[key])
        shown = [*key, str(len(cells[key])), f"{after:.1%}", against[other]]
        for kind in ("examples", "searches"):
            one = found[kind]
            shown += (
                ["one search", "–"]
                if one is None
                else [gain_cell(one["gain"], one["low"], one["high"]), f"{one['p_adjusted']:.3g}"]
            )
        lines.append(f"| {' | '.join(shown)} |")
    lines.append("\np: corrected for the cells that are compared with the same (Holm)")
    shares = [
        row["tokens_to_paper_loss"] / spent
        for row in rows
        if row["preset"] == "best" and row["demonstrations"] == 0 and row["tokens_to_paper_loss"]
        for other in rows
        if other["preset"] == "paper"
        and all(other[key] == row[key] for key in ("model", "task", "seed"))
        and (spent := sum(other["tokens"].values()))
    ]
    if shares:
        lines.append(
            "tokens of `best` without demonstrations until the paper's final loss, as a share of its own: "
            f"median {median(shares):.0%} of {len(shares)} searches that reached it"
        )
    return "\n".join(lines)


def proposals(rows: Sequence[Row]) -> str:
    """What became of the proposals of each operator, and why texts were refused."""
    counts: dict[str, Counter[str]] = {}
    refused: Counter[str] = Counter()
    for row in rows:
        refused.update({reason.split(" example ")[0]: number for reason, number in row["refused"].items()})
        for count in row["operators"]:
            counts.setdefault(count["operator"], Counter()).update(
                {name: number for name, number in count.items() if name != "operator"}
            )
    total = sum(count["scored"] + count["refused"] + count["failed"] for count in counts.values())
    lines = [
        "| operator | share of proposals | scored | left the race | survived | refused |",
        "|---|" * 2 + "---|" * 4,
    ]
    for name, count in counts.items():
        own = count["scored"] + count["refused"] + count["failed"]
        lines.append(
            f"| {name} | {own / total:.1%} | {count['scored']} | {count['left']} | {count['survived']} "
            f"| {count['refused']} |"
        )
    reasons = "; ".join(f"{reason}: {number}" for reason, number in refused.most_common(12))
    return "\n".join([*lines, f"\nrefused: {reasons or 'none'}"])


def winners(rows: Sequence[Row]) -> str:
    """Every winning instruction, on one line each, with the number of its demonstrations."""
    lines = ["| model | task | preset | demos | seed | winning instruction |", "|---|---|---|---|---|---|"]
    for row in rows:
        text = in_line(row["instruction"]).replace("|", "\\|")
        shown = f"{len(row['shots'])} of {row['demonstrations']}"
        cells = [row["model"], row["task"], row["preset"], shown, str(row["seed"]), text]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def identity(row: Row) -> tuple[str, str, str, int, int]:
    """The search that a row is of."""
    return row["model"], row["task"], row["preset"], row["demonstrations"], row["seed"]


def write(file: Path, rows: Sequence[Row]) -> None:
    """Write the rows to the file. They replace rows of the same searches."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    kept += [{key: value for key, value in row.items() if key != "values"} for row in rows]
    content = sorted({identity(row): row for row in kept}.values(), key=identity)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
