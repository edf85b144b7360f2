"""Plans on a real Ray with the simulated engine: they write nothing, and a run takes no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmpo_ray import RunConfig, RunPlan, optimize
from pmpo_ray.errors import DataError

pytestmark = [pytest.mark.usefixtures("running_ray"), pytest.mark.slow]
SIMULATED = {"engine": "simulated", "model": "simulated:tokens_per_s=100000", "role": "both"}


def simulated(**settings: object) -> RunConfig:
    base = {
        "tasks": ["tickets"],
        "scorer": {**SIMULATED, "replicas": 2, "cpus": 0.5},
        "search": {"rounds": 2, "operators": ["rewrite", "compose"], "demonstrations": 2},
        "evaluation": {"limit": 20},
    }
    return RunConfig.model_validate({**base, **settings})


def test_a_run_takes_what_was_planned_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = simulated(grid={"free": {}, "limited": {"max_tokens": 60_000}}, run_dir=str(tmp_path / "run"))
    plan = optimize(config, plan_only=True)
    assert isinstance(plan, RunPlan)
    assert list(tmp_path.iterdir()) == []
    assert (plan.scoring.replicas, plan.scoring.max_replicas) == (2, 2)
    assert plan.writing is not None
    # Two replicas at 100,000 tokens a second; what they share of a prompt takes no time.
    assert plan.scoring.per_second > 100_000
    assert plan.scoring.seconds >= 10
    assert plan.notes == ()
    result = optimize(config, observer=lambda _: None)
    for planned, task in zip(plan.searches, result.tasks, strict=True):
        spent = planned.at_most.search.within(planned.max_tokens)
        assert planned.task == task.task
        assert 0 < task.tokens_scored <= spent.scored
        assert 0 < task.tokens_prompted <= spent.prompted
        assert 0 < task.tokens_generated <= spent.generated
    assert plan.searches[1].max_tokens == 60_000


def test_a_task_that_cannot_be_searched_is_an_error_of_the_plan() -> None:
    with pytest.raises(DataError, match="a budget of 10 tokens does not suffice"):
        optimize(simulated(search={"max_tokens": 10}), plan_only=True)
