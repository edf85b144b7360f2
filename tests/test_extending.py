"""Tasks, objectives, operators and engines of the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pmpo_ray import Task, load_run, optimize, task
from pmpo_ray.config.engines import ReplicaConfig, RewriterConfig, ScorerConfig
from pmpo_ray.config.import_paths import imported, path_of, script_object
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.engines.factory import open_generator, open_scorer
from pmpo_ray.engines.simulated.engine import SimulatedGenerator, SimulatedScorer
from pmpo_ray.errors import ConfigError, DataError, EngineError, RunFolderError
from pmpo_ray.outcomes import Progress
from pmpo_ray.search.objectives import Objective, make_objective
from pmpo_ray.search.operators import ProposalContext, load_proposers
from pmpo_ray.sources import TaskKeywords, requested
from pmpo_ray.store import RunStore
from pmpo_ray.store.kept_config import kept_config
from pmpo_ray.tasks import load_task
from pmpo_ray.types import (
    AnswerScore,
    EngineInfo,
    Example,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    ScoreRequest,
    ScoreResult,
)
from tests.examples.custom_engine import WordScorer
from tests.examples.custom_hard_cases import nearest_to_undecided
from tests.examples.custom_objective import hinge
from tests.examples.custom_operator import Shorten, without_harm
from tests.examples.custom_task import parity
from tests.run_folders import ENGINE, write_run

pytestmark = [pytest.mark.usefixtures("running_ray"), pytest.mark.slow]
ROOT = Path(__file__).parents[1]
HERE = "tests.test_extending"
EXAMPLES = "tests.examples"
OPERATORS = ["rewrite", f"{EXAMPLES}.custom_operator:Shorten", f"{EXAMPLES}.custom_operator:without_harm"]
SCORE = ExampleScore(AnswerScore(-2.0, 2), (AnswerScore(-3.0, 2), AnswerScore(-9.0, 3)), 10)
REQUEST = ScoreRequest("Say odd or even.", (Example("a", "3", "odd", ("even",)),))


def quiet(progress: Progress) -> None:
    """An observer that keeps nothing."""


def asked(source: Any = None, /, *, search: dict[str, object] | None = None, **settings: object) -> RunConfig:
    """The configuration that a call of `optimize` with these arguments would run."""
    return requested(source, TaskKeywords(), search or {}, settings=settings, overrides=(), run_dir=None)[0]


# All together


def test_all_parts_of_ones_own_work_in_one_run_and_its_folder_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings: dict[str, Any] = {
        "scorer": {"engine": WordScorer, "model": "words", "replicas": 2, "cpus": 0.5},
        "rewriter": ENGINE,
        "split": {"train_max": 9},
    }
    parts: dict[str, Any] = {"objective": hinge, "operators": ["rewrite", Shorten, without_harm]}
    settings["search"] = {"hard_cases": nearest_to_undecided}
    result = optimize(parity, **parts, **settings, rounds=2, run_dir=folder, observer=quiet)
    assert result["parity"].rounds == 2
    assert {"rewrite", "Shorten"} <= set(result.to_pandas()["operator"])
    manifest = RunStore.open(str(folder)).read_manifest()
    assert manifest is not None
    assert manifest.scorer is not None
    assert (manifest.scorer.engine, manifest.scorer.model) == ("words", "words")

    kept = kept_config(str(folder))
    assert kept.tasks[0].function == f"{EXAMPLES}.custom_task:parity"
    assert kept.search.objective == f"{EXAMPLES}.custom_objective:hinge"
    assert list(kept.search.operators) == OPERATORS
    assert kept.search.hard_cases == f"{EXAMPLES}.custom_hard_cases:nearest_to_undecided"
    assert kept.scorer.engine == f"{EXAMPLES}.custom_engine:WordScorer"

    assert optimize(run_dir=folder, observer=quiet) == result
    parts["operators"] = ["rewrite", without_harm]
    with pytest.raises(RunFolderError, match=r"search\.operators differs"):
        optimize(parity, **parts, **settings, rounds=2, run_dir=folder, observer=quiet)


SCRIPT = '''
import sys
from pmpo_ray import optimize, task
from tests.examples.custom_engine import WordScorer

@task("tiny")
def tiny():
    return [{"input": f"number {n}", "target": "ab"[n % 2]} for n in range(40)]

class Scorer(WordScorer):
    """Of this script, which no other process can import."""

class Polite:
    async def propose(self, context):
        return [f"{context.parent.candidate.text} Please {context.round}."]

def loss(score):
    return -score.target.logprob

if __name__ == "__main__":
    optimize("tiny", objective=loss, operators=[Polite], rounds=1, run_dir=sys.argv[1],
             scorer={"engine": Scorer, "model": "words"}, evaluation={"enabled": False},
             rewriter={"engine": "simulated", "model": "simulated"})
'''


def test_parts_that_stand_in_a_script_are_sent_to_the_replicas(tmp_path: Path) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(script), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = load_run(folder)
    operators = set(result.to_pandas()["operator"])
    assert "Polite" in operators
    assert operators <= {"seed", "mask_drop", "demonstrate", "Polite"}
    config = kept_config(str(folder))
    assert config.tasks[0].function == "__main__:tiny"
    assert config.search.operators == ("__main__:Polite",)
    with pytest.raises(ConfigError, match=r"__main__:tiny: tiny belongs to another script or"):
        optimize(run_dir=folder, observer=quiet)


# Import paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("no_such_module:thing", "search.objective: no_such_module:thing cannot be imported"),
        (f"{EXAMPLES}.custom_task:thing", "thing is not in the module tests.examples.custom_task"),
        ("__main__:thing", "thing belongs to another script or notebook"),
    ],
)
def test_a_path_that_leads_nowhere_is_one_line_that_names_the_key(path: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_objective(path, beta=1.0, per_token=False)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_module_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lying_here.py").write_text("def loss(score):\n    return 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert make_objective("lying_here:loss", beta=1.0, per_token=False)(SCORE) == 1.0


def test_what_is_passed_has_the_path_by_which_it_is_found() -> None:
    for thing in (hinge, WordScorer, ClassInClass.Inner):
        assert imported(path_of(thing, "key"), "key") is thing
    assert path_of(hinge, "key") == f"{EXAMPLES}.custom_objective:hinge"
    assert script_object(path_of(hinge, "key"), "key") is None


class ClassInClass:
    class Inner:
        """A class with a path of two names."""


def test_what_has_no_path_is_refused_with_the_key() -> None:
    def local(score: ExampleScore) -> float:
        return 0.0

    for thing in (local, lambda _: 0.0):
        with pytest.raises(ConfigError, match=r"^objective: .* define it at the top level"):
            asked(search={"objective": thing})
    with pytest.raises(ConfigError, match=r"^scorer\.engine: Inner cannot be imported by that name"):
        asked(scorer={"engine": type("Inner", (), {"__module__": HERE})})


def test_functions_and_classes_become_paths_wherever_they_stand() -> None:
    config = asked(
        "tickets",
        search={"objective": hinge, "operators": ["rewrite", Shorten]},
        scorer={"engine": WordScorer},
    )
    assert config.search.objective == f"{EXAMPLES}.custom_objective:hinge"
    assert list(config.search.operators) == OPERATORS[:2]
    assert config.scorer.engine == f"{EXAMPLES}.custom_engine:WordScorer"
    task = asked(tasks=[{"name": "p", "function": parity}]).tasks[0]
    assert task == TaskConfig(name="p", function=f"{EXAMPLES}.custom_task:parity")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"search": {"operators": ["rewrites"]}},
            "search.operators: 'rewrites' should be rewrite, induce, contrast, shorten, repair, compose, or",
        ),
        ({"search": {"operators": "compose"}}, "search.operators: should be auto, or a list of names"),
        ({"search": {"operators": [print]}}, "print> should be a name such as compose, module:name of"),
        ({"search": {"operators": ["rewrite", "rewrite"]}}, "search.operators: an operator is named twice"),
        (
            {"scorer": {"engine": "torch"}},
            "scorer.engine: should be auto, transformers, vllm, openai, simulated",
        ),
        ({"scorer": {"engine": "a:b", "role": "both"}}, "a custom engine has one role"),
        ({"tasks": [{"name": "x", "function": "x"}]}, "tasks.0: function: 'x' should be module:name"),
        ({"tasks": [{"name": "x", "function": "a:b", "path": "c.csv"}]}, "leave out path, hub and test_path"),
        ({"tasks": [{"name": "x", "function": "a:b", "given": True}]}, "leave out path, hub, function"),
    ],
)
def test_keys_are_checked_when_they_are_read(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        asked(**settings)
    assert expected in str(caught.value)


# Tasks


def rows() -> list[dict[str, str]]:
    return [{"input": f"number {n}", "target": "ab"[n % 2]} for n in range(40)]


def frame() -> pd.DataFrame:
    return pd.DataFrame(rows())


def yielded() -> Iterator[dict[str, str]]:
    yield from rows()


def whole() -> Task:
    return Task("theirs", "text", "Say it.", "Go.", (Example("a", "x", "y"), Example("b", "z", "w")))


def unusable() -> Task:
    return replace(whole(), examples=())


def nothing() -> None:
    """Returns no task."""


def from_function(name: str, **settings: object) -> Task:
    config = {"name": "own", "function": f"{HERE}:{name}", **settings}
    return load_task(TaskConfig.model_validate(config), None, 0)


def test_a_function_may_make_rows_in_any_form() -> None:
    first, *others = (from_function(name) for name in ("rows", "frame", "yielded"))
    assert (first.kind, len(first.examples)) == ("labels", 40)
    assert others == [first, first]


def test_a_function_may_make_the_whole_task_which_takes_the_configured_name() -> None:
    assert from_function("whole") == replace(whole(), name="own")
    assert from_function("whole", instruction="Stop.").instruction == "Stop."
    with pytest.raises(ConfigError, match="labels and columns do not apply; remove them"):
        from_function("whole", labels=("a", "b"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unusable", "has no name, no examples or no instruction"),
        ("nothing", "function returned a NoneType; return a Task or rows, or yield dicts"),
    ],
)
def test_what_a_function_makes_is_checked(name: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        from_function(name)


def test_a_registered_function_is_a_task_by_name() -> None:
    assert load_task(TaskConfig(name="parity"), None, 0).examples[3].input == "the number 3"
    [settings] = asked("parity").tasks
    assert settings == TaskConfig(name="parity", function=f"{EXAMPLES}.custom_task:parity")
    assert asked(RunConfig(tasks=(TaskConfig(name="parity"),))).tasks == (settings,)
    assert asked(parity).tasks == (settings,)
    with pytest.raises(ConfigError, match="did you mean parity"):
        load_task(TaskConfig(name="paritty"), None, 0)


def test_a_name_is_never_registered_for_something_else() -> None:
    task("parity")(parity)
    for name in ("parity", "tickets", "bbh/navigate"):
        with pytest.raises(ConfigError, match=f"task '{name}' is already registered"):
            task(name)(rows)


# Objectives


MARGIN = Objective("margin", lambda score: score.target.logprob, needs_negatives=True)


def whole_number(score: ExampleScore) -> int:
    return 3


def test_an_objective_is_a_function_of_the_scores() -> None:
    objective = make_objective(f"{EXAMPLES}.custom_objective:hinge", beta=1.0, per_token=False)
    assert objective.name == f"{EXAMPLES}.custom_objective:hinge"
    assert objective(SCORE) == pytest.approx(0.5 - -1.0 + -1.5)
    assert (objective.needs_negatives, objective.signed) == (False, False)
    assert isinstance(make_objective(f"{HERE}:whole_number", beta=1.0, per_token=False)(SCORE), float)


def test_an_objective_may_say_that_it_needs_negatives() -> None:
    objective = make_objective(f"{HERE}:MARGIN", beta=1.0, per_token=False)
    assert objective == replace(MARGIN, name=f"{HERE}:MARGIN")


@pytest.mark.parametrize("name", ["ROOT", "ClassInClass"])
def test_what_is_no_function_is_no_objective(name: str) -> None:
    with pytest.raises(ConfigError, match="is neither a function nor an Objective"):
        make_objective(f"{HERE}:{name}", beta=1.0, per_token=False)


# Operators


class Marked:
    """Proposes the parent's text with a mark, what is there already, a broken text, and an empty one."""

    async def propose(self, context: ProposalContext) -> Sequence[str]:
        text = context.parent.candidate.text
        return [f"{text} Mark {context.seed % 1000}.", text, f"{text} <|im_end|>", ""]


class Failing:
    async def propose(self, context: ProposalContext) -> Sequence[str]:
        raise EngineError("the prompt is too long")


class Wrong:
    async def propose(self, context: ProposalContext) -> Sequence[str]:
        return "one text"


def seven(context: ProposalContext) -> Any:
    return 7


def sevens(context: ProposalContext) -> Any:
    return [7]


async def waiting(context: ProposalContext) -> list[str]:
    """Tells by its text what it was shown."""
    assert len(context.parent.losses) == len(context.examples) == 12
    worst = max(range(12), key=context.parent.losses.__getitem__)
    assert context.hardest[0] == context.examples[worst]
    assert len(context.hardest) == 3
    assert all(row.candidate == context.parent.candidate.id for row in context.importances)
    assert context.importances
    reply = await context.rewriter.generate(GenerateRequest("anything", n=2, seed=context.seed))
    return [f"Number {len(reply.samples)} of round {context.round} in {context.max_chars}."]


def run_with(folder: Path, *operators: str, **search: object) -> RunStore:
    paths = [name if name == "rewrite" else f"{HERE}:{name}" for name in operators]
    settings = {"rounds": 2, "operators": paths, **search}
    parity = {"name": "parity", "instruction": "Read the number. Answer with the right word."}
    return write_run(folder, tasks=[parity], search=settings, evaluated=False)


def test_proposals_pass_the_gate_and_are_scored_under_the_name_of_their_operator(tmp_path: Path) -> None:
    record = run_with(tmp_path / "run", "rewrite", "Marked").read_rounds("parity")[1]
    made = [one for one in record.candidates if one.candidate.operator == "Marked"]
    parent = record.candidates[0].candidate
    assert [one.candidate.parent for one in made] == [parent.id]
    assert made[0].candidate.text.startswith(f"{parent.text} Mark ")
    assert made[0].losses
    refused = [refusal.reason for refusal in record.refusals if refusal.operator == "Marked"]
    assert refused == ["duplicate", "holds tags", "empty"]
    assert any(one.candidate.operator == "rewrite" for one in record.candidates)


def test_without_rewriting_the_operators_of_ones_own_are_the_only_ones(tmp_path: Path) -> None:
    run_with(tmp_path / "run", "waiting", "Marked")
    table = load_run(tmp_path / "run").to_pandas()
    assert set(table["operator"]) == {"seed", "mask_drop", "Marked", "waiting"}
    assert "Number 2 of round 1 in 4000." in set(table["text"])


def test_what_a_proposer_asks_of_the_rewriter_is_counted(tmp_path: Path) -> None:
    bare = run_with(tmp_path / "bare", "Marked").read_rounds("parity")[1]
    asking = run_with(tmp_path / "asking", "Marked", "waiting").read_rounds("parity")[1]
    assert asking.tokens_generated > bare.tokens_generated


def test_a_run_with_operators_comes_out_alike_every_time(tmp_path: Path) -> None:
    first, second = (
        run_with(tmp_path / name, "rewrite", "Marked", "waiting").read_rounds("parity") for name in "ab"
    )
    assert first == second
    seeds = [
        one.candidate.text
        for record in first
        for one in record.candidates
        if one.candidate.operator == "Marked"
    ]
    assert len(set(seeds)) == len(seeds)


def test_a_proposer_that_cannot_answer_leaves_a_reason(tmp_path: Path) -> None:
    record = run_with(tmp_path / "run", "Failing").read_rounds("parity")[1]
    assert [(one.operator, one.reason) for one in record.refusals] == [("Failing", "the prompt is too long")]


@pytest.mark.parametrize(
    ("operator", "returned"), [("Wrong", "'one text'"), ("seven", "7"), ("sevens", "7 in a list")]
)
def test_a_proposer_that_gives_no_list_of_texts_is_named(
    operator: str, returned: str, tmp_path: Path
) -> None:
    told = rf"the operator '{operator}' should return a list of texts or Proposals; it returned {returned}$"
    with pytest.raises(ConfigError, match=told):
        run_with(tmp_path / "run", operator)


def test_operators_are_found_before_anything_starts() -> None:
    assert list(load_proposers(OPERATORS[1:])) == ["Shorten", "without_harm"]
    with pytest.raises(ConfigError, match="neither has a method propose nor is a function"):
        load_proposers([f"{HERE}:ROOT"])
    with pytest.raises(ConfigError, match="the name Shorten is taken"):
        load_proposers([OPERATORS[1], OPERATORS[1]])
    with pytest.raises(ConfigError, match="the name seed is taken"):
        load_proposers(["anything:seed"])


# Engines


class Waiting:
    """An AsyncScorer and an AsyncGenerator, made by a function that has to be awaited."""

    def info(self) -> EngineInfo:
        return SimulatedScorer("waiting").info()

    async def score(self, request: ScoreRequest) -> ScoreResult:
        return SimulatedScorer("waiting").score(request)

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        return SimulatedGenerator("waiting").generate([request])[0]

    def close(self) -> None:
        """Nothing was started."""


async def opened(config: ReplicaConfig, model: str) -> Waiting:
    return Waiting()


class Writer(SimulatedGenerator):
    def __init__(self, config: RewriterConfig, model: str) -> None:
        super().__init__(f"{model}/{config.batch}")


class NoEngine:
    def __init__(self, config: ReplicaConfig, model: str) -> None:
        """Neither scores nor writes."""


@asynccontextmanager
async def scorer_of(name: str, factory: object = None) -> AsyncIterator[Any]:
    engine = await open_scorer(ScorerConfig(engine=name), "m", factory=factory)
    try:
        yield engine
    finally:
        engine.close()


async def test_a_scorer_may_be_synchronous_or_not() -> None:
    async with scorer_of(f"{EXAMPLES}.custom_engine:WordScorer") as engine:
        assert engine.info().model == "m"
        assert await engine.score(REQUEST) == WordScorer(ScorerConfig(), "m").score(REQUEST)
    async with scorer_of(f"{HERE}:opened") as engine:
        assert await engine.score(REQUEST) == SimulatedScorer("waiting").score(REQUEST)
    async with scorer_of("__main__:Gone", WordScorer) as engine:
        assert engine.info().engine == "words"


async def test_a_rewriter_may_be_synchronous_or_not() -> None:
    request = GenerateRequest("Instruction: Go.\n\nSay it better.", n=3)
    for name, model in (("Writer", "m/16"), ("opened", "waiting")):
        engine = await open_generator(RewriterConfig(engine=f"{HERE}:{name}"), "m")
        assert await engine.generate(request) == SimulatedGenerator(model).generate([request])[0]
        engine.close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NoEngine", r"scorer\.engine: the object that .*:NoEngine makes lacks a method of pmpo_ray\.Scorer"),
        ("ROOT", "is neither a class nor a function"),
        ("Gone", "Gone is not in the module"),
    ],
)
async def test_what_is_no_engine_is_said_when_it_is_made(name: str, expected: str) -> None:
    config = ScorerConfig(engine=f"{HERE}:{name}")
    with pytest.raises(ConfigError, match=expected):
        await open_scorer(config, "m")
    if name == "NoEngine":
        with pytest.raises(ConfigError, match=r"rewriter\.engine: .*pmpo_ray\.Generator"):
            await open_generator(RewriterConfig(engine=config.engine), "m")
