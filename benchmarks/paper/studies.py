"""The studies behind the tables: each makes a run, evaluates it, and returns the rows of a table.

A row has plain values: "table", the labels of the row, "ours", and "paper" if the paper reports this result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.paper import figures
from pmpo_ray import evaluate, optimize
from pmpo_ray.display.summary_json import summary_json
from pmpo_ray.store import RunStore
from pmpo_ray.tasks.bbh import DESCRIPTIONS

Row = dict[str, Any]

PAPER_BASELINES = ("answer_only", "step_by_step", "rephrase", "step_back")
BBH = tuple(f"bbh/{subtask}" for subtask in DESCRIPTIONS)
_FAMILIES = ("logical_deduction", "tracking_shuffled_objects")
"""Families of three tasks of different sizes; the paper counts each family as one group."""
_SMALL_ROUNDS = 1
"""Number of rounds with `--limit`."""


@dataclass(frozen=True, slots=True)
class Request:
    """The options of a table. `limit` bounds the training and the test examples of a task, and reduces the
    number of rounds; `settings` are further KEY=VALUE settings, as for --set."""

    models: tuple[str, ...]
    data_dir: str | None
    runs: Path
    limit: int | None
    tasks: tuple[str, ...]
    settings: tuple[str, ...]

    @property
    def model(self) -> str:
        """The first model."""
        return self.models[0]


def optimised(request: Request, name: str, model: str, config: Mapping[str, Any]) -> Path:
    """Make or continue the run `name` with `model`, and return its folder."""
    folder = request.runs / f"{name}-{_short(model)}"
    folder.mkdir(parents=True, exist_ok=True)
    search = {"preset": "paper", **config.get("search", {})}
    settings: dict[str, Any] = {
        "model": model,
        "data_dir": request.data_dir,
        # The paper's size: all test examples.
        "evaluation": {"enabled": False, "limit": None},
        **config,
        "search": search,
    }
    if request.limit is not None:
        split = {"train_max": max(3, request.limit), **config.get("split", {})}
        settings |= {"split": split, "search": {"rounds": _SMALL_ROUNDS, **search}}
    file = folder / "settings.yaml"
    file.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    optimize(file, run_dir=folder / "run", overrides=request.settings)
    return folder / "run"


def evaluated(request: Request, folder: Path, **settings: object) -> dict[str, Any]:
    """The document of `pmpo evaluate --format json`, with these keys of `evaluation`."""
    if request.limit is not None:
        settings["limit"] = request.limit
    overrides = [
        setting
        for setting in request.settings
        if setting.split(".")[0] in ("evaluation", "scorer", "rewriter", "ray")
    ]
    result = evaluate(folder, overrides=overrides, **settings)
    return summary_json(result.summary, result.run_dir)


def bbh(request: Request) -> list[Row]:
    """Accuracy by generation, 1 shot: our best instruction and the free baselines, next to the paper's."""
    run = optimised(request, "bbh", request.model, _bbh(request))
    document = evaluated(request, run, method="generation", baselines=PAPER_BASELINES)
    means = _group_means(document, lambda row: row["name"])
    return _rows_of("bbh", means, figures.BBH)


def math(request: Request) -> list[Row]:
    """GSM8K and AQuA-RAT, 0 shots, the loss over whole worked solutions."""
    tasks = request.tasks or ("gsm8k", "aqua")
    config = {"tasks": tasks, "search": {"objective": "cross_entropy"}}
    document = evaluated(
        request,
        optimised(request, _named("math", tasks), request.model, config),
        method="generation",
        baselines=PAPER_BASELINES,
        max_tokens=64 if request.limit else 1024,
    )
    rows = []
    for task in tasks:
        ours = {row["name"]: row for row in document["rows"] if row["task"] == task}
        percent = {name: row["accuracy"]["value"] * 100 for name, row in ours.items()}
        table = _rows_of("math", percent, figures.MATH.get(task, {}))
        rows += [{"table": "math", "task": task, **row} for row in table]
    return rows


def alpaca(request: Request, judge: Mapping[str, Any]) -> list[Row]:
    """Win rate of the optimised instruction's answers before and after, through `judge` (a section
    evaluation.judge)."""
    config = {"tasks": ["alpaca_eval"], "search": {"objective": "preference"}}
    run = optimised(request, "alpaca", request.model, config)
    document = evaluated(request, run, judge=judge, baselines=[], max_tokens=64 if request.limit else 2048)
    percent = {row["name"]: row["accuracy"]["value"] * 100 for row in document["rows"]}
    return _rows_of("alpaca", percent, figures.ALPACA)


def fewshot(request: Request) -> list[Row]:
    """Accuracy of the start and the optimised instruction with 0 to 16 shots."""
    run = optimised(request, "bbh", request.model, _bbh(request))
    shots = [0, 3] if request.limit else list(figures.FEWSHOT)
    document = evaluated(request, run, method="generation", baselines=[], shots=shots)
    rows = []
    for count in shots:
        selected = {"rows": [row for row in document["rows"] if row["shots"] == count]}
        means = _group_means(selected, lambda row: row["name"])
        for column, name in enumerate(("start", "best")):
            paper = figures.FEWSHOT[count][column]
            rows.append(
                {"table": "fewshot", "shots": count, "name": name, "ours": means[name], "paper": paper}
            )
    return rows


def transfer(request: Request) -> list[Row]:
    """Accuracy of each model with the instructions that were optimised for each model."""
    tasks = request.tasks or ("bbh/navigate",)
    config = {"tasks": tasks, "split": {"shots": 0}}
    runs = {model: optimised(request, "transfer", model, config) for model in request.models}
    instructions = {f"on-{number}": best_of(run, tasks[0]) for number, run in enumerate(runs.values())}
    document = evaluated(
        request,
        next(iter(runs.values())),
        method="generation",
        models=request.models,
        baselines=[],
        instructions=instructions,
    )
    positions = {name: number for number, name in enumerate(figures.TRANSFER_MODELS)}
    rows = []
    for row in document["rows"]:
        if row["name"] not in instructions or row["task"] != tasks[0]:
            continue
        source = request.models[int(row["name"].removeprefix("on-"))]
        entry: Row = {"table": "transfer", "answers": row["model"], "optimised_on": source}
        entry["ours"] = row["accuracy"]["value"] * 100
        if row["model"] in positions and source in positions:
            entry["paper"] = figures.TRANSFER[positions[row["model"]]][positions[source]]
        rows.append(entry)
    return rows


def ablation(request: Request) -> list[Row]:
    """The method without its parts, cumulatively, as one run: every task with every variant."""
    no_bca = {"masking": "off", "hard_cases": "random"}
    grid: dict[str, dict[str, Any]] = {
        "full": {},
        "no-tim": {"masking": "off"},
        "no-tim-bca": no_bca,
        "no-tim-bca-prefloss": no_bca | {"objective": "cross_entropy"},
    }
    run = optimised(request, "ablation", request.model, {**_bbh(request), "grid": grid})
    document = evaluated(request, run, method="generation", baselines=[])
    best = {"rows": [row for row in document["rows"] if row["name"] == "best"]}
    means = _group_means(best, lambda row: row["task"].rpartition(".")[2])
    return _rows_of("ablation", means, figures.ABLATION)


def process_reward(request: Request, model: Mapping[str, Any]) -> list[Row]:
    """The mean score of the steps of answers to GSM8K, by `model` (a section evaluation.process_reward)."""
    tasks = ("gsm8k",)
    config = {"tasks": tasks, "search": {"objective": "cross_entropy"}}
    document = evaluated(
        request,
        optimised(request, _named("math", tasks), request.model, config),
        method="generation",
        baselines=["answer_only", "step_by_step"],
        process_reward=model,
        max_tokens=64 if request.limit else 1024,
    )
    scores = {row["name"]: row["score"]["value"] for row in document["rows"] if row["score"] is not None}
    return _rows_of("process_reward", scores, figures.PROCESS_REWARD)


def best_of(run: Path, task: str) -> str:
    """The best instruction of a run for a task."""
    result = RunStore.open(str(run)).read_task_result(task)
    if result is None:
        raise SystemExit(f"{run}: task {task} is not finished")
    return result.best


def _named(study: str, tasks: Sequence[str]) -> str:
    return "-".join((study, *(task.replace("/", "_") for task in tasks)))


def _bbh(request: Request) -> dict[str, Any]:
    return {"tasks": request.tasks or BBH, "split": {"shots": 1}, "search": {"objective": "preference"}}


def _group_means(document: Mapping[str, Any], name: Callable[[Row], str]) -> dict[str, float]:
    """Mean accuracies in percent by `name`; the paper's groups of tasks weigh the same."""
    groups: dict[str, dict[str, list[float]]] = {}
    for row in document["rows"]:
        task = row["task"].partition(".")[0]
        family = next((family for family in _FAMILIES if family in task), task)
        groups.setdefault(name(row), {}).setdefault(family, []).append(row["accuracy"]["value"] * 100)
    return {key: fmean(map(fmean, by_group.values())) for key, by_group in groups.items()}


def _rows_of(table: str, ours: Mapping[str, float], paper: Mapping[str, float]) -> list[Row]:
    names: Sequence[str] = list(dict.fromkeys((*paper, *ours)))
    return [
        {"table": table, "name": name, "ours": ours.get(name), "paper": paper.get(name)} for name in names
    ]


def _short(model: str) -> str:
    return Path(model).stem if model.endswith(".gguf") else model.rstrip("/").rpartition("/")[2]
