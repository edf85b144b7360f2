"""Configurations: loading, overrides, errors, dumping, and their documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pmpo_ray.config.loading import (
    config_from_mapping,
    config_from_yaml,
    default_config,
    dump_config,
    load_config,
)
from pmpo_ray.config.messages import KeyPath
from pmpo_ray.config.overrides import Override, parse_overrides, section_overrides
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.config.tracking import MlflowConfig, TensorboardConfig, TrackingConfig
from pmpo_ray.errors import ConfigError, PmpoError, RunFolderError
from pmpo_ray.store.kept_config import kept_config, requested_config

CONFIGS = Path(__file__).parents[2] / "configs"


def load(folder: Path, text: str, *overrides: str) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(str(path), parse_overrides(overrides))


def complaint(folder: Path, text: str, *overrides: str) -> str:
    """The error for a configuration, without the folder. It has to be one line."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{folder}/")


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n") == RunConfig()


def test_values_are_read_into_the_models(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "tasks: [bbh/navigate, {name: own, path: a.csv, labels: [x, y]}]\nsearch: {rounds: 3, beta: 2}\n",
    )
    assert config.tasks == (
        TaskConfig(name="bbh/navigate"),
        TaskConfig(name="own", path="a.csv", labels=("x", "y")),
    )
    assert (config.search.rounds, config.search.beta) == (3, 2.0)


def test_words_mean_what_they_look_like(tmp_path: Path) -> None:
    config = load(tmp_path, "search: {masking: off, beta: 1e-3}\ntasks: [{name: q, labels: [yes, no, on]}]\n")
    assert config.search.masking == "off"
    assert config.search.beta == 0.001
    assert config.tasks[0].labels == ("yes", "no", "on")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("search.rounds=3", ("search", "rounds"), 3),
        ("search.masking=off", ("search", "masking"), "off"),
        ("run_dir=null", ("run_dir",), None),
        ("model=a=b", ("model",), "a=b"),
        ("search.max_seconds=1e3", ("search", "max_seconds"), 1000.0),
        ("tasks.0.path=x.csv", ("tasks", 0, "path"), str(Path("x.csv").absolute())),
        ("tasks.1.columns.input=text", ("tasks", 1, "columns", "input"), "text"),
        ("tasks=[bbh/navigate,bbh/snarks]", ("tasks", 1, "name"), "bbh/snarks"),
        ("ray={num_cpus: 2}", ("ray", "num_cpus"), 2),
    ],
)
def test_an_override_reaches_any_key(
    tmp_path: Path, override: str, key: tuple[str | int, ...], value: object
) -> None:
    found: Any = load(
        tmp_path, "run_dir: before\ntasks: [a, {name: b}]\nsearch: {rounds: 1}\n", override
    ).model_dump()
    for part in key:
        found = found[part]
    assert found == value


def test_values_from_python_stay_as_they_are() -> None:
    texts = ("3", "off", "a: b", "\u2028", "null")
    changes = section_overrides("evaluation", {"models": texts, "instructions": {"1e3": "yes"}}, "here")
    config = default_config([*changes, Override(("evaluation", "models", 1), "on", "here")])
    assert config.evaluation.models == ("3", "on", "a: b", "\u2028", "null")
    assert config.evaluation.instructions == {"1e3": "yes"}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("search", "rounds"), "3", "here: search.rounds: should be a whole number, not the text '3'"),
        (("search", "rounds"), True, "here: search.rounds: should be a whole number, not true"),
        (
            ("evaluation", "models"),
            {"a"},
            "here: evaluation.models: should be a list, as in [a, b], not a set",
        ),
        (("seed", "x"), 1, "here: seed is 7, which has no key x"),
    ],
)
def test_a_wrong_value_from_python_is_one_line_with_its_origin(
    tmp_path: Path, path: KeyPath, value: object, expected: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 7\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(str(file), [Override(path, value, "here")])
    assert str(caught.value) == expected


def test_an_override_reaches_the_task_of_the_defaults() -> None:
    config = default_config(parse_overrides(["tasks.0.instruction=Sort it."]))
    assert config.tasks == (TaskConfig(name="tickets", instruction="Sort it."),)
    with pytest.raises(ConfigError, match=r"tasks\.0\.foo: unknown key; tasks\.0 has the keys name, path, "):
        default_config(parse_overrides(["tasks.0.foo=1"]))


def test_a_task_may_start_from_several_instructions(tmp_path: Path) -> None:
    config = load(tmp_path, "tasks:\n- {name: a, instruction: [Sort it., Name it.]}\n")
    assert config.tasks[0].instructions == ("Sort it.", "Name it.")
    assert config_from_yaml(dump_config(config), "kept") == config
    set_to = default_config(parse_overrides(["tasks.0.instruction=[Sort it., Name it.]"]))
    assert set_to.tasks[0].instructions == ("Sort it.", "Name it.")
    changed = load(tmp_path, "tasks:\n- {name: a, instruction: [A, B]}\n", "tasks.0.instruction.1=C")
    assert changed.tasks[0].instructions == ("A", "C")
    assert TaskConfig(name="a").instructions == ()


def test_a_list_of_one_instruction_is_that_instruction(tmp_path: Path) -> None:
    listed = load(tmp_path, "tasks:\n- {name: a, instruction: [Sort it.]}\n")
    assert listed.tasks == (TaskConfig(name="a", instruction="Sort it."),)


def test_later_overrides_win_and_leave_other_keys_alone(tmp_path: Path) -> None:
    config = load(tmp_path, "search: {variants: 7}\n", "search.rounds=3", "search.rounds=5")
    assert (config.search.rounds, config.search.variants) == (5, 7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("search:\n  roundz: 3\n", "run.yaml:2: search.roundz: unknown key; did you mean search.rounds?"),
        ("rounds: 3\n", "run.yaml:1: rounds: unknown key; did you mean search.rounds?"),
        (
            "tasks:\n- name: a\n  colums: {}\n",
            "run.yaml:3: tasks.0.colums: unknown key; did you mean tasks.0.columns?",
        ),
        ("zzz: 3\n", "run.yaml:1: zzz: unknown key; see configs/README.md"),
        (
            "tasks:\n- name: a\n  columns: {zzz: x}\n",
            "run.yaml:3: tasks.0.columns.zzz: unknown key; tasks.0.columns has the keys input, target, "
            "negatives, weight",
        ),
        (
            "search: {objective: 3}\n",
            "run.yaml:1: search.objective: should be auto, cross_entropy, preference, listwise, or "
            "module:name of an objective",
        ),
        (
            "search:\n  rounds: many\n",
            "run.yaml:2: search.rounds: should be a whole number, not the text 'many'",
        ),
        ("search: {rounds: true}\n", "run.yaml:1: search.rounds: should be a whole number, not true"),
        ("search: {rounds: '3'}\n", "run.yaml:1: search.rounds: should be a whole number, not the text '3'"),
        ("seed: -1\n", "run.yaml:1: seed: should be greater than or equal to 0, not -1"),
        ("model: 3\n", "run.yaml:1: model: should be text, not 3: write it in quotes"),
        ("search: 3\n", "run.yaml:1: search: should be a section with keys, not 3"),
        ("tasks: a\n", "run.yaml:1: tasks: should be a list, as in [a, b], not the text 'a'"),
        ("tasks: []\n", "run.yaml:1: tasks: should have at least one entry"),
        ("tasks:\n- path: x\n", "run.yaml:2: tasks.0.name: missing: this key is required"),
        ("tasks: [a, a]\n", "run.yaml: task 'a' is named more than once; give each task its own name"),
        ("seed: 1\nseed: 2\n", "run.yaml:2: seed: given twice (first on line 1): keep one"),
        (
            "tasks:\n- {name: a, instruction: ' '}\n",
            "run.yaml:2: tasks.0.instruction: should hold words; leave it out for the task's own instruction",
        ),
        (
            "tasks:\n- {name: a, instruction: 3}\n",
            "run.yaml:2: tasks.0.instruction: should be a text, or a list of texts, not 3",
        ),
        (
            "tasks:\n- {name: a, instruction: []}\n",
            "run.yaml:2: tasks.0.instruction: should have at least one text; leave it out for the task's own "
            "instruction",
        ),
        (
            "tasks:\n- {name: a, instruction: [Sort it., ' ']}\n",
            "run.yaml:2: tasks.0.instruction: text 2 of 2 should hold words; remove it",
        ),
        (
            "tasks:\n- {name: a, instruction: [Sort it., 3]}\n",
            "run.yaml:2: tasks.0.instruction: text 2 of 2 is 3: write a text, in quotes",
        ),
        (
            "tasks:\n- {name: a, instruction: [Sort it., Name it., ' sort  IT.']}\n",
            "run.yaml:2: tasks.0.instruction: texts 1 and 3 of 3 are the same but for white space and case; "
            "keep one",
        ),
        (
            f"tasks:\n- {{name: a, instruction: {[str(number) for number in range(1001)]}}}\n",
            "run.yaml:2: tasks.0.instruction: has 1,001 texts; give at most 1,000",
        ),
        ("- seed\n", "run.yaml: a configuration must be a mapping of keys to values, not a list"),
        ("1: x\n", "run.yaml:1: a key must be text: write it in quotes"),
        (
            "seed: 1\nmodel: [\n",
            "run.yaml:3: not valid YAML: expected the node content, but found '<stream end>'",
        ),
        (
            "model: !!python/name:os.system\n",
            "run.yaml:1: YAML tag tag:yaml.org,2002:python/name:os.system is not allowed",
        ),
        ("tasks: &a [*a]\n", "run.yaml:1: tasks.0: contains itself"),
        ("model: \x00\n", "run.yaml: not valid YAML: character 7 is not allowed"),
        ("tasks: " + "[" * 5000, "run.yaml:1: not valid YAML: nested too deeply"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    assert complaint(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "search.roundz=3",
            "--set search.roundz=3: search.roundz: unknown key; did you mean search.rounds?",
        ),
        (
            "search.rounds=x",
            "--set search.rounds=x: search.rounds: should be a whole number, not the text 'x'",
        ),
        ("rounds", "--set rounds: write it as key=value, for example search.rounds=3"),
        ("=3", "--set =3: write it as key=value, for example search.rounds=3"),
        ("seed.x=3", "--set seed.x=3: seed is 7, which has no key x"),
        ("tasks.4.path=x", "--set tasks.4.path=x: tasks has 1 entries (counted from 0), and none at 4"),
        (
            "tasks=[",
            "--set tasks=[: not valid YAML: expected the node content, but found '<stream end>'",
        ),
    ],
)
def test_a_bad_override_is_one_line_that_repeats_it(tmp_path: Path, override: str, expected: str) -> None:
    assert complaint(tmp_path, "seed: 7\ntasks: [a]\n", override) == expected


def test_what_is_no_readable_text_file_is_a_config_error(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"seed: \xff\n")
    for path, reason in [
        (tmp_path / "absent.yaml", "no such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (binary, "not UTF-8 text (byte 6): save it as UTF-8"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(f"{path}: {reason}")):
            load_config(str(path))
    with pytest.raises(ConfigError, match="name a YAML file, or an existing run folder"):
        requested_config(None, (), None)


def test_a_run_folder_gives_its_own_configuration(tmp_path: Path) -> None:
    kept = RunConfig(search=SearchConfig(rounds=2), run_dir="elsewhere")
    (tmp_path / "config.yaml").write_text(dump_config(kept), encoding="utf-8")
    config = kept_config(str(tmp_path), parse_overrides(["search.rounds=9"]))
    assert config == kept.model_copy(update={"search": SearchConfig(rounds=9), "run_dir": str(tmp_path)})
    with pytest.raises(RunFolderError, match="not a run folder"):
        kept_config(str(tmp_path / "absent"))


def test_the_run_folder_named_on_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("run_dir: here\n", encoding="utf-8")
    assert requested_config(str(path), (), "there").run_dir == "there"
    assert load_config(str(path)).run_dir == "here"


def test_a_mapping_is_checked_alike() -> None:
    assert config_from_mapping({"search": {"rounds": 3}}, "here").search.rounds == 3
    with pytest.raises(
        ConfigError, match=r"^here: search\.roundz: unknown key; did you mean search\.rounds\?$"
    ):
        config_from_mapping({"search": {"roundz": 3}}, "here")


texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["off", "1e3", "null", "2020-01-01", "1:30", "~", "<<", "0x1f", "- a", "a: b", "# c", "\x85", "\u2028"]
)


@pytest.mark.slow
@settings(deadline=None)
@given(
    model=texts,
    instruction=texts.filter(str.strip) | st.none(),
    labels=st.none() | st.lists(texts, max_size=3).map(tuple),
    beta=st.floats(min_value=0, max_value=1e6, exclude_min=True),
    target=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_dumped_configuration_loads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    model: str,
    instruction: str | None,
    labels: tuple[str, ...] | None,
    beta: float,
    target: float | None,
) -> None:
    task = TaskConfig(name="own", path="a.csv", instruction=instruction, labels=labels)
    config = RunConfig(tasks=(task,), model=model, search=SearchConfig(beta=beta, target_loss=target))
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump_config(config), encoding="utf-8", newline="")
    assert load_config(str(path)) == config


def test_a_dumped_configuration_means_the_same_to_other_yaml_readers() -> None:
    config = RunConfig(search=SearchConfig(masking="off"), model="1e3")
    assert yaml.safe_load(dump_config(config)) == config.model_dump(mode="json")


@pytest.mark.parametrize(
    ("overrides", "mlflow", "tensorboard"),
    [
        ([], None, None),
        (["tracking.mlflow=true", "tracking.tensorboard={}"], MlflowConfig(), TensorboardConfig()),
        (["tracking.mlflow={uri: x}", "tracking.mlflow=false"], None, None),
        (["tracking.tensorboard.log_dir=logs"], None, TensorboardConfig(log_dir="logs")),
        (["tracking={mlflow: true}", "tracking.mlflow=null"], None, None),
    ],
)
def test_a_tracker_is_switched_on_by_true_or_a_key_of_it(
    tmp_path: Path,
    overrides: list[str],
    mlflow: MlflowConfig | None,
    tensorboard: TensorboardConfig | None,
) -> None:
    tracking = load(tmp_path, "", *overrides).tracking
    assert tracking == TrackingConfig(mlflow=mlflow, tensorboard=tensorboard)


def test_complaints_about_trackers_name_the_key_and_hide_credentials(tmp_path: Path) -> None:
    assert complaint(tmp_path, "tracking: {wandb: {projekt: x}}\n") == (
        "run.yaml:1: tracking.wandb.projekt: unknown key; did you mean tracking.wandb.project?"
    )
    assert complaint(tmp_path, "tracking: {mlflow: 1}\n") == (
        "run.yaml:1: tracking.mlflow: should be a section with keys, not 1"
    )
    text = complaint(tmp_path, "", "tracking.mlflow.uri=postgresql://me:hush@host/db")
    assert "must hold no credentials" in text
    assert "hush" not in text


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_built_in_configurations_load(path: Path) -> None:
    assert isinstance(load_config(str(path)), RunConfig)


def test_the_bbh_configuration_names_every_file_with_the_papers_settings(data_dir: Path) -> None:
    config = load_config(str(CONFIGS / "bbh.yaml"))
    assert sorted(task.name for task in config.tasks) == sorted(
        f"bbh/{path.stem}" for path in (data_dir / "bbh").glob("*.json")
    )
    search, split = config.search, config.split
    assert (search.preset, search.operators, search.demonstrations) == ("paper", ("rewrite",), 0)
    assert (search.rounds, search.hard_examples, search.variants, search.beta) == (20, 3, 4, 1.0)
    assert (split.train_fraction, split.train_max) == (0.2, 50)


def test_errors_of_configurations_are_errors_of_users() -> None:
    assert issubclass(ConfigError, PmpoError)


def test_a_preset_gives_what_is_not_named() -> None:
    paper = config_from_mapping({"search": {"preset": "paper", "rounds": 5}}, "test").search
    assert (paper.rounds, paper.variants, paper.sense, paper.reasks) == (5, 4, False, 0)
    best = config_from_mapping({"search": {"preset": "best"}}, "test").search
    assert best == config_from_mapping({}, "test").search
    with pytest.raises(ConfigError, match=r"search\.preset"):
        config_from_mapping({"search": {"preset": "fast"}}, "test")


def test_a_use_decides_loss_calibration_and_evaluation_where_they_are_not_named() -> None:
    def decided(**settings: object) -> tuple[str, object, object]:
        config = config_from_mapping(settings, "test")
        return config.search.objective, config.search.calibrate, config.evaluation.method

    plain = decided()
    assert decided(use="choose") == (plain[0], "auto", "likelihood")
    assert decided(use="generate") == ("cross_entropy", False, "generation")
    assert decided(use="choose", search={"calibrate": True, "rounds": 3}) == (plain[0], True, "likelihood")
    assert decided(use="generate", evaluation={"method": "likelihood"})[2] == "likelihood"
    # Algorithm 1 calibrates nothing.
    assert decided(use="choose", search={"preset": "paper"}) == (plain[0], False, "likelihood")
    with pytest.raises(ConfigError, match="use: should be 'choose' or 'generate'"):
        decided(use="read")
    chosen = config_from_mapping({"use": "choose"}, "test")
    assert config_from_yaml(dump_config(chosen), "test") == chosen


@pytest.mark.parametrize(
    ("section", "value", "known"),
    [
        ("search", "input", "inputs or auto"),
        ("search", 1, "inputs or auto"),
        ("evaluation", "auto", "inputs"),
    ],
)
def test_a_calibration_that_does_not_exist_is_told_what_there_is(
    section: str, value: object, known: str
) -> None:
    with pytest.raises(ConfigError, match=rf"test: {section}\.calibrate: should be true, false, {known}"):
        config_from_mapping({section: {"calibrate": value}}, "test")


def test_a_preset_in_a_grid_replaces_the_settings_of_the_search() -> None:
    config = config_from_mapping(
        {
            "search": {"rounds": 3, "demonstrations": 2, "beta": 2.0},
            "grid": {"a": {}, "paper": {"preset": "paper"}, "short": {"preset": "paper", "rounds": 1}},
        },
        "test",
    )
    found = config.searches()
    assert (found["a"].rounds, found["a"].demonstrations) == (3, 2)
    assert (found["paper"].rounds, found["paper"].demonstrations, found["paper"].beta) == (20, 0, 2.0)
    assert (found["short"].rounds, found["short"].sense) == (1, False)
    again = config_from_mapping(yaml.safe_load(dump_config(config)), "test")
    assert again.searches() == found


@pytest.mark.parametrize("level", ["light", "medium", "heavy"])
def test_the_name_of_a_level_stands_for_a_budget(tmp_path: Path, level: str) -> None:
    config = load(tmp_path, f"budget: {level}\n", "budget.max_seconds=60")
    assert config.budget.model_dump() == {"level": level, "max_tokens": None, "max_seconds": 60}
    assert load(tmp_path, "{}", f"budget={level}").budget == load(tmp_path, f"budget: {level}").budget
    assert config_from_yaml(dump_config(config), "kept") == config


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("huge", "budget.level: should be 'light', 'medium' or 'heavy', not the text 'huge'"),
        ("{level: 3}", "budget.level: should be 'light', 'medium' or 'heavy', not 3"),
        ("1000", "budget: should be light, medium or heavy, or a section with keys"),
        ("null", "budget: should be light, medium or heavy, or a section with keys"),
    ],
)
def test_a_budget_that_is_none_is_an_error(tmp_path: Path, budget: str, expected: str) -> None:
    assert complaint(tmp_path, f"budget: {budget}\n") == f"run.yaml:1: {expected}"
