"""Whole runs on a real Ray with the simulated engine: only their course matters here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import ray
from transformers import AutoModelForCausalLM, Gemma2Config

from pmpo_ray import PmpoError, RunConfig, optimize
from pmpo_ray.actors import cluster
from pmpo_ray.config.engines import DEFAULT_MODEL
from pmpo_ray.engines.weights.loading import load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import DataError, ResourceError, RunFolderError
from pmpo_ray.outcomes import Progress
from pmpo_ray.store import RunStore
from tests.run_folders import REWRITING

pytestmark = [pytest.mark.usefixtures("running_ray"), pytest.mark.slow]
SIMULATED = {"engine": "simulated", "model": "simulated", "role": "both"}


def simulated(*, search: Mapping[str, object] | None = None, **settings: object) -> RunConfig:
    base = {
        "tasks": ["tickets"],
        "scorer": SIMULATED,
        "search": {**REWRITING, **({"rounds": 2} if search is None else search)},
        "evaluation": {"limit": 20},
    }
    return RunConfig.model_validate({**base, **settings})


def quiet(progress: Progress) -> None:
    """An observer that keeps nothing."""


def test_a_finished_run_started_again_gives_the_same_result_and_may_be_extended(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    first = optimize(simulated(), run_dir=folder, observer=quiet)
    again = optimize(run_dir=folder, observer=quiet)
    assert again.tasks == first.tasks
    longer = simulated(search={"rounds": 4})
    extended = optimize(longer, run_dir=folder, observer=quiet)
    straight = optimize(longer, run_dir=str(tmp_path / "other"), observer=quiet)
    assert extended.tasks[0].best == straight.tasks[0].best
    assert extended.tasks[0].rounds == 4
    assert extended.tasks[0].tokens_scored == straight.tasks[0].tokens_scored


def test_many_tasks_run_at_once_over_the_same_replicas(tmp_path: Path, data_dir: Path) -> None:
    names = ["bbh/navigate", "bbh/snarks", "bbh/word_sorting", "sst2"]
    seen: list[Progress] = []
    config = simulated(tasks=names, data_dir=str(data_dir), scorer={**SIMULATED, "replicas": 2, "cpus": 0.5})
    result = optimize(config, run_dir=str(tmp_path / "run"), observer=seen.append)
    assert [task.task for task in result.tasks] == names
    first_done = next(i for i, p in enumerate(seen) if p.state == "done")
    assert {p.task for p in seen[:first_done] if p.state != "waiting"} == set(names)
    store = RunStore.open(str(tmp_path / "run"))
    assert tuple(map(store.read_task_result, names)) == result.tasks


def test_an_interrupted_run_goes_on_from_its_last_round(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # All that a search does by default: several operators, their bandit, racing, a final pick.
    engines = {"scorer": {"engine": "simulated"}, "rewriter": {"engine": "simulated"}, "model": "simulated"}
    settings = {"tasks": ["tickets"], **engines, "search": {"rounds": 4}, "evaluation": {"limit": 20}}
    whole = optimize(RunConfig.model_validate(settings), run_dir=str(tmp_path / "whole"), observer=quiet)
    script = (
        "import os, signal, sys\n"
        "from pmpo_ray import optimize\n"
        "def watch(p):\n"
        "    if p.round == 2 and p.state == 'rewriting':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        f"        optimize(**{settings}, run_dir=sys.argv[1], observer=watch)\n"
        "    except KeyboardInterrupt as stop:\n"
        "        sys.exit(f'stopped {stop}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert f"stopped {folder}" in done.stderr
    kept = len(list((folder / "tasks" / "tickets").glob("round-*.parquet")))
    assert 2 <= kept <= 3
    continued = optimize(run_dir=str(folder), observer=quiet)
    assert continued.tasks[0].best == whole.tasks[0].best
    assert continued.tasks[0].tokens_scored == whole.tasks[0].tokens_scored


class StoppedError(Exception):
    """Raised by an observer."""


def score_keys(folder: Path) -> dict[str, set[bytes]]:
    """The keys of the scores in every part, by the part's name."""
    return {path.name: set(pd.read_parquet(path)["key"]) for path in folder.glob("scores/*.parquet")}


@pytest.mark.parametrize(("state", "number"), [("rewriting", 2), ("done", 3)])
def test_a_stopped_run_goes_on_without_scoring_anything_again(
    state: str, number: int, tmp_path: Path
) -> None:
    """Stopped where the masked texts of a round are scored, and where the evaluation is; in neither case is
    there a record of it yet. A part holds only what its process computed."""
    config = simulated(search={"rounds": 3, "mask_mode": "token"})
    whole = optimize(config, run_dir=str(tmp_path / "whole"), observer=quiet)
    folder, seen = tmp_path / "run", list[str]()

    def stop(progress: Progress) -> None:
        seen.append(progress.state)
        evaluated = state != "done" or "evaluating" in seen
        if (progress.state, progress.round) == (state, number) and evaluated:
            raise StoppedError

    with pytest.raises(StoppedError):
        optimize(config, run_dir=str(folder), observer=stop)
    first = set().union(*score_keys(folder).values())
    RunStore.open(str(folder)).join_scores()
    [joined] = score_keys(folder)
    continued = optimize(config, run_dir=str(folder), observer=quiet)
    parts = score_keys(folder)
    assert parts.pop(joined) == first
    later = set().union(*parts.values())
    assert not first & later
    assert bool(later) == (state != "done")
    assert first | later == set().union(*score_keys(tmp_path / "whole").values())
    assert [replace(task, seconds=0.0) for task in continued.tasks] == [
        replace(task, seconds=0.0) for task in whole.tasks
    ]


def test_a_broken_part_of_the_scores_is_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = simulated(run_dir=str(tmp_path / "run"))
    first = optimize(config, observer=quiet)
    [part] = (tmp_path / "run" / "scores").iterdir()
    part.write_bytes(part.read_bytes()[:100])
    assert optimize(config, observer=quiet).tasks == first.tasks
    assert "1 of 1 parts of the scores damaged" in caplog.text
    assert part.with_name(f"{part.name}.damaged").exists()


def test_a_folder_of_another_configuration_is_refused(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    optimize(simulated(search={"rounds": 0}), run_dir=folder, observer=quiet)
    with pytest.raises(RunFolderError, match=r"made with another configuration: seed differs"):
        optimize(simulated(search={"rounds": 0}, seed=1), run_dir=folder, observer=quiet)


def test_a_folder_without_a_finished_round_takes_the_mended_configuration(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    with pytest.raises(ResourceError):
        optimize(simulated(scorer={**SIMULATED, "device": "cuda"}), run_dir=folder, observer=quiet)
    optimize(simulated(search={"rounds": 0}), run_dir=folder, observer=quiet)
    assert "device: auto" in RunStore.open(folder).config_yaml()


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"replicas": 5000}, "scorer.replicas"),
        ({"device": "cuda"}, "cuda"),
        ({"gpus": 1.0}, "1 GPU"),
        ({"memory_gb": 1e6}, "memory"),
    ],
)
def test_a_request_beyond_the_machine_is_refused_at_once(
    section: dict[str, object], named: str, tmp_path: Path
) -> None:
    config = simulated(scorer={**SIMULATED, **section})
    with pytest.raises(ResourceError, match=named):
        optimize(config, run_dir=str(tmp_path / "run"), observer=quiet)


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        optimize(simulated(ray={"address": "127.0.0.1:1"}), run_dir=str(tmp_path / "r"), observer=quiet)


def test_a_cluster_that_refuses_may_want_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `ray start` does if a token exists, which the first local Ray leaves behind."""

    def refuse(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(ResourceError, match="if it requires a token, set RAY_AUTH_MODE=token"):
        optimize(simulated(), run_dir=str(tmp_path / "r"), observer=quiet)


def test_data_that_do_not_fit_the_objective_are_refused_before_ray_starts(tmp_path: Path) -> None:
    rows = [{"input": f"question {n}", "target": f"answer {n}", "r": -1} for n in range(30)]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    own = {"name": "own", "path": str(data), "columns": {"weight": "r"}}
    config = simulated(tasks=[own], search={"objective": "preference"})
    with pytest.raises(DataError, match=r"task own: .* takes none below 0"):
        optimize(config, run_dir=str(tmp_path / "run"), observer=quiet)
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_scored_in_a_slower_way_is_named_when_the_run_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its soft caps keep this one from tree attention."""
    tokenizer = load_tokenizer(resolve_model(DEFAULT_MODEL, progress=False), trust_remote_code=False)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    optimize(
        simulated(
            scorer={"model": str(tmp_path / "model"), "role": "both"},
            search={"rounds": 0},
            evaluation={"enabled": False},
        ),
        run_dir=tmp_path / "run",
        observer=quiet,
    )
    assert "expanded cache" in caplog.text
    manifest = RunStore.open(str(tmp_path / "run")).read_manifest()
    assert manifest is not None
    assert manifest.scorer is not None
    assert manifest.scorer.fallback in caplog.text


def test_rows_that_are_all_longer_than_the_context_end_the_run(tmp_path: Path, tiny_model: str) -> None:
    rows = [{"input": f"{n} " + "word " * 9000, "target": str(n % 2)} for n in range(20)]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match=r"'own': 0 of 4 training rows fit into the context of 8192 tokens"):
        optimize(
            tasks=[{"name": "own", "path": str(data)}],
            model=tiny_model,
            scorer={"role": "both"},
            evaluation={"enabled": False},
            run_dir=tmp_path / "run",
            observer=quiet,
        )


def test_a_task_that_cannot_be_scored_fails_alone(tmp_path: Path) -> None:
    rows = [{"input": f"{n} " + "word " * 400, "target": str(n % 2)} for n in range(20)]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    seen: list[Progress] = []
    config = simulated(
        scorer={**SIMULATED, "model": "simulated:context=400"},
        tasks=["tickets", {"name": "own", "path": str(data)}],
        search={"rounds": 1},
        split={"train_fraction": 0.9},
        evaluation={"enabled": False},
    )
    result = optimize(config, run_dir=tmp_path / "run", observer=seen.append)
    assert [task.task for task in result.tasks] == ["tickets"]
    [failure] = result.failed
    assert failure.task == "own"
    assert "context of 400 tokens" in failure.reason
    assert [(p.state, p.note) for p in seen if p.task == "own"][-1] == ("failed", failure.reason)
    store = RunStore.open(str(tmp_path / "run"))
    assert (store.read_task_result("tickets"),) == result.tasks
    manifest = store.read_manifest()
    assert manifest is not None
    assert manifest.ended is None


def test_a_running_cluster_is_used_and_left_running(
    ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = simulated(ray={"address": ray_cluster}, search={"rounds": 1})
    first = optimize(config, run_dir=str(tmp_path / "run"), observer=quiet)
    assert "token" not in caplog.text
    monkeypatch.setattr(cluster, "_turned_on_by_ray", True)
    second = optimize(config, run_dir=str(tmp_path / "again"), observer=quiet)
    assert "set RAY_AUTH_MODE=disabled from the start" in caplog.text
    assert second.tasks[0].best == first.tasks[0].best
    manifest = RunStore.open(str(tmp_path / "run")).read_manifest()
    assert manifest is not None
    assert manifest.cluster is not None
    assert (manifest.cluster.address, manifest.cluster.cpus) == (ray_cluster, os.cpu_count())


def test_python_and_configuration_do_not_mix() -> None:
    with pytest.raises(TypeError, match="not both"):
        optimize(RunConfig(), seed=1)
    with pytest.raises(PmpoError, match="sed"):
        optimize(sed=1)
