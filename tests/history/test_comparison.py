"""What `pmpo compare` says of two runs, and what it must not say."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pmpo_ray.display.comparison import show_comparison
from pmpo_ray.display.comparison_json import comparison_json
from pmpo_ray.errors import RunFolderError
from pmpo_ray.evaluation.statistics import holm
from pmpo_ray.history.comparison import HIDDEN, RunComparison, compare_runs
from pmpo_ray.history.run_history import RunHistory, TaskHistory, load_history
from pmpo_ray.outcomes import Condition, ConditionResult, Outcome
from pmpo_ray.redaction import Redaction
from tests.run_folders import ENGINE, write_run

ROOT = Path(__file__).parents[2]


def pmpo(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pmpo_ray", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def own_task(folder: Path, name: str) -> dict[str, str]:
    path = folder / f"{name}.csv"
    rows = "".join(f"is {n} even?,{'yes' if n % 2 == 0 else 'no'}\n" for n in range(40))
    path.write_text("input,target\n" + rows)
    return {"name": name, "path": str(path)}


def compared(a: RunHistory, b: RunHistory, task: str | None = None) -> RunComparison:
    return compare_runs(a, b, task=task, redact=lambda text: text)


def printed(found: RunComparison, width: int = 100) -> str:
    stream = io.StringIO()
    show_comparison(found, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunHistory:
    """A run of the ticket task with default settings, evaluated."""
    folder = tmp_path_factory.mktemp("a")
    write_run(folder / "run")
    return load_history(str(folder / "run"))


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory: pytest.TempPathFactory) -> RunHistory:
    """A run of two tasks, evaluated."""
    folder = tmp_path_factory.mktemp("b")
    write_run(folder / "run", tasks=["tickets", own_task(folder, "second")], search={"rounds": 2})
    return load_history(str(folder / "run"))


def other_run(folder: Path, **settings: object) -> RunHistory:
    write_run(folder / "other", **settings)  # type: ignore[arg-type]
    return load_history(str(folder / "other"))


def best_condition(task: TaskHistory, right: Callable[[int], bool], count: int = 40) -> ConditionResult:
    """Held-out answers of a task's best instruction on the examples 0, 1, 2, ..."""
    condition = Condition(task.task, "m", "best", task.best.candidate.text, 0, 0, "likelihood")
    return ConditionResult(condition, tuple(Outcome(str(n), right(n), "x") for n in range(count)))


def test_runs_of_the_same_settings_have_comparable_losses(run: RunHistory, wide_run: RunHistory) -> None:
    found = compared(run, wide_run)
    (task,) = found.tasks
    assert task.task == "tickets"
    assert task.obstacles == ()
    assert (task.a.rounds, task.b.rounds) == (3, 2)
    assert task.a.cost.tokens_scored > 0
    assert (found.only_a, found.only_b) == ((), ("second",))
    assert {key.key for key in found.differences} == {"tasks.1", "search.rounds"}


@pytest.mark.parametrize(
    ("settings", "obstacles"),
    [
        ({"search": {"rounds": 1, "objective": "listwise"}}, ("objective",)),
        ({"search": {"rounds": 1, "calibrate": True}}, ("calibration",)),
        ({"search": {"rounds": 1}, "seed": 5}, ("split",)),
        ({"search": {"rounds": 1}, "split": {"train_max": 10}}, ("split",)),
        ({"search": {"rounds": 1}, "split": {"shots": 1}}, ("split",)),
    ],
)
def test_losses_of_different_measures_are_not_ranked(
    run: RunHistory, tmp_path: Path, settings: dict[str, object], obstacles: tuple[str, ...]
) -> None:
    found = compared(run, other_run(tmp_path, **settings))
    assert found.tasks[0].obstacles == obstacles
    row = next(line for line in printed(found).splitlines() if line.startswith("tickets"))
    assert row.split()[3] == "?"
    assert f"the losses cannot be compared: {obstacles[0]} differs" in printed(found)


def test_losses_of_different_models_or_data_are_not_ranked(run: RunHistory) -> None:
    manifest = run.manifest
    assert manifest is not None
    assert manifest.scorer is not None
    other_weights = replace(manifest, scorer=replace(manifest.scorer, revision="other"))
    weights = replace(run, manifest=other_weights)
    data = replace(run, manifest=replace(manifest, data={"tickets": "other"}))
    assert compared(run, weights).tasks[0].obstacles == ("model",)
    assert compared(run, data).tasks[0].obstacles == ("data",)
    both = replace(run, manifest=replace(other_weights, data={"tickets": "other"}))
    assert "model and data differ" in printed(compared(run, both))


def test_an_objective_that_was_chosen_automatically_is_the_one_it_came_to(
    run: RunHistory, tmp_path: Path
) -> None:
    other = other_run(tmp_path, search={"rounds": 1, "objective": "preference"})
    assert compared(run, other).tasks[0].obstacles == ()


def test_the_lower_loss_is_named(run: RunHistory) -> None:
    task = run.task()
    worse = replace(run, tasks=(replace(task, best_id=task.start.candidate.id),))
    row = next(line for line in printed(compared(worse, run)).splitlines() if line.startswith("tickets"))
    assert row.split()[3] == "B"


def test_accuracies_are_compared_on_the_examples_that_both_answered(run: RunHistory) -> None:
    task = run.task()
    a = replace(run, evaluation=(best_condition(task, lambda n: n < 10),))
    b = replace(run, evaluation=(best_condition(task, lambda n: n < 20, count=30),))
    (found,) = compared(a, b).tasks
    assert found.paired is not None
    assert found.paired.difference.n == 30
    assert found.paired.difference.value == pytest.approx(10 / 30)
    assert found.a.accuracy is not None
    assert found.a.accuracy.value == pytest.approx(10 / 30)
    assert found.significant
    assert "on the same 30 held-out examples" in printed(compared(a, b))


def test_p_values_are_corrected_for_the_number_of_tasks(wide_run: RunHistory) -> None:
    def answered(gained: int) -> RunHistory:
        first, second = wide_run.tasks
        return replace(
            wide_run,
            evaluation=(
                best_condition(first, lambda n: n < 10 + gained),
                best_condition(second, lambda n: n < 10 + gained // 2),
            ),
        )

    found = compared(answered(0), answered(8)).tasks
    plain = [task.paired.p_value for task in found if task.paired is not None]
    assert [task.p_adjusted for task in found] == list(holm(plain))
    assert found[0].p_adjusted == 2 * plain[0]


def test_answers_that_cannot_be_compared_are_not(run: RunHistory) -> None:
    evaluated = best_condition(run.task(), lambda n: n < 10)
    stale = replace(evaluated, condition=replace(evaluated.condition, instruction="an earlier best"))
    judged = replace(evaluated, condition=replace(evaluated.condition, method="judged"))
    elsewhere = replace(evaluated, condition=replace(evaluated.condition, model="another"))
    usual = replace(run, evaluation=(evaluated,))
    for other in ((), (stale,), (judged,), (elsewhere,), (best_condition(run.task(), bool, count=0),)):
        (found,) = compared(usual, replace(run, evaluation=other)).tasks
        assert found.paired is None
        assert found.p_adjusted is None
        # What the run itself measured stands for itself.
        assert found.a.accuracy is not None
        assert found.a.accuracy.n == 200
    both_judged = replace(run, evaluation=(judged,))
    assert compared(both_judged, both_judged).tasks[0].paired is None
    assert "not paired: the best instructions were not evaluated on the same examples" in printed(
        compared(run, replace(run, evaluation=()))
    )


def test_one_of_many_tasks_is_compared_with_its_texts(wide_run: RunHistory) -> None:
    task = wide_run.task("tickets")
    started = replace(
        wide_run, tasks=(replace(task, best_id=task.start.candidate.id), wide_run.task("second"))
    )
    found = compared(started, wide_run, "tickets")
    assert [one.task for one in found.tasks] == ["tickets"]
    assert (found.only_a, found.only_b) == ((), ())
    assert "[-Choose one of these labels" in " ".join(printed(found).split())
    assert "[-Choose" not in printed(compared(started, wide_run))
    with pytest.raises(RunFolderError, match="holds no task third"):
        compared(started, wide_run, "third")


def test_runs_without_a_common_task_cannot_be_compared(run: RunHistory, tmp_path: Path) -> None:
    other = other_run(tmp_path, tasks=[own_task(tmp_path, "mine")], search={"rounds": 0})
    with pytest.raises(RunFolderError, match="have no task in common"):
        compared(run, other)


def test_settings_that_differ_stand_side_by_side(run: RunHistory, tmp_path: Path) -> None:
    other = other_run(tmp_path, search={"rounds": 1, "mask_token": "\x1b[2J[red]"}, seed=4)
    found = {key.key: (key.a, key.b) for key in compared(run, other).differences}
    assert found["seed"] == ("0", "4")
    assert found["search.rounds"] == ("3", "1")
    assert "\x1b" not in printed(compared(run, other))
    assert "[red]" in printed(compared(run, other))


def test_values_that_may_be_secret_are_never_shown(run: RunHistory, tmp_path: Path) -> None:
    secret = "hunter2hunter2"
    scorer = {
        **ENGINE,
        "endpoint": {"parameters": {"user": secret}},
        "vllm": {"options": {"load_format": secret}},
    }
    tasks = [{"name": "tickets", "description": f"https://me:{secret}x@host/ and {secret}"}]
    other = other_run(tmp_path, scorer=scorer, tasks=tasks, search={"rounds": 0})
    found = compare_runs(run, other, task=None, redact=Redaction({"SOME_TOKEN": secret}))
    shown = {key.key: key.b for key in found.differences}
    assert shown["scorer.endpoint.parameters"] == HIDDEN
    assert shown["scorer.vllm.options"] == HIDDEN
    assert secret not in printed(found)
    assert secret not in json.dumps(comparison_json(found))


def test_the_json_has_null_for_numbers_that_do_not_exist(run: RunHistory) -> None:
    task = run.task()
    lost = replace(task.best, loss=math.inf)
    last = replace(task.records[-1], candidates=(lost,))
    endless = replace(run, tasks=(replace(task, records=(last,)),))
    document = json.loads(json.dumps(comparison_json(compared(run, endless)), allow_nan=False))
    (found,) = document["tasks"]
    assert found["b"]["loss"] is None
    assert set(found["a"]) == {
        "state",
        "rounds",
        "loss",
        "accuracy",
        "best",
        "tokens_scored",
        "tokens_prompted",
        "tokens_generated",
        "seconds",
    }
    assert found["comparable"] is True


def test_27_tasks_fit_80_columns(wide_run: RunHistory) -> None:
    (task,) = compared(wide_run, wide_run, "tickets").tasks
    many = tuple(replace(task, task=f"bbh/quite_a_long_name_of_a_task_{n}") for n in range(27))
    lines = printed(replace(compared(wide_run, wide_run), tasks=many), width=80).splitlines()
    assert max(map(len, lines[3:])) <= 80
    assert sum("+0.0 [-" in line for line in lines) == 27


@pytest.mark.slow
def test_the_command_prints_tables_or_one_object(run: RunHistory, wide_run: RunHistory) -> None:
    shown = pmpo("compare", run.location, wide_run.location)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"A: {run.location}\nB: {wide_run.location}\n")
    document = json.loads(pmpo("compare", run.location, wide_run.location, "--json").stdout)
    assert document == json.loads(json.dumps(comparison_json(compared(run, wide_run))))
    done = pmpo("compare", run.location, "/nonexistent/run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
