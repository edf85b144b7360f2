"""Configurations: loading, overrides, errors, dumping, and their documentation."""

from __future__ import annotations

import json
import re
import traceback
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pmpo_ray import optimize
from pmpo_ray.config.engines import EndpointConfig, ReplicaConfig
from pmpo_ray.config.keys import key_paths
from pmpo_ray.config.loading import config_from_mapping, default_config, dump_config, load_config
from pmpo_ray.config.messages import KeyPath
from pmpo_ray.config.overrides import Override, parse_overrides, section_overrides
from pmpo_ray.config.resume import CHANGEABLE, differences
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
        ("tasks.0.path=x.csv", ("tasks", 0, "path"), "x.csv"),
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
        ("tasks: " + "[" * 5000, "run.yaml: not valid YAML: nested too deeply"),
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


KEY = "sk-recognisable-0123456789"
KEYS_IN_WRONG_PLACES = [
    ("api_key_env", KEY, "api_key_env: should be the name of an environment variable in capital letters"),
    ("api_key", KEY, "api_key: unknown key"),
    ("url", f"http://me:{KEY}@127.0.0.1/v1", "url: must hold no credentials"),
    ("url", f"http://127.0.0.1/v1?key={KEY}", "url: must hold no credentials"),
    ("url", f"http://127.0.0.1/v1#{KEY}", "url: must hold no credentials"),
    ("url", f"http://127.0.0.1:{KEY}/v1", "url: should be a URL such as http://127.0.0.1:8000/v1"),
    ("url", f"http://127.0.0.1:99999/v1?{KEY}", "url: should be a URL such as http://127.0.0.1:8000/v1"),
    ("url", f"http://[{KEY}]/v1", "url: should be a URL such as http://127.0.0.1:8000/v1"),
    ("url", f"http://{KEY}\u2100/v1", "url: should be a URL such as http://127.0.0.1:8000/v1"),
    ("concurrency", KEY, "concurrency: should be a whole number, not a text"),
    ("timeout", [KEY], "timeout: should be a number, not a list"),
    ("retries", -87654321, "retries: should be greater than or equal to 0, not the present value"),
    ("parameters", KEY, "parameters: should be a dictionary, not a text"),
    (f"api_key_env:{KEY}", None, "api_key_env…: unknown key"),
]
"""Keys and values in an endpoint section, and the errors about them."""


def secrets_in(error: BaseException) -> list[str]:
    """The secrets above that a traceback of the error shows."""
    shown = "".join(traceback.format_exception(error)) + repr(error)
    return [secret for secret in ("recognisable", "87654321") if secret in shown]


@pytest.mark.parametrize(("name", "value", "expected"), KEYS_IN_WRONG_PLACES)
def test_an_error_shows_nothing_of_an_endpoint_section(
    tmp_path: Path, name: str, value: object, expected: str
) -> None:
    rewriter = {"endpoint": {name: value}}
    path = tmp_path / "run.yaml"
    ways: list[tuple[str, list[str], str]] = [
        (yaml.safe_dump({"rewriter": rewriter}), [], f"{path}:3: "),
        ("", [f"rewriter={json.dumps(rewriter)}"], "--set rewriter: "),
        ("", [f"rewriter.endpoint={json.dumps(rewriter['endpoint'])}"], "--set rewriter.endpoint: "),
    ]
    if name.isidentifier():
        override = f"rewriter.endpoint.{name}={json.dumps(value)}"
        ways.append(("", [override], f"--set rewriter.endpoint.{name}: "))
    for text, overrides, place in ways:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_config(str(path), parse_overrides(overrides))
        assert str(caught.value).startswith(place)
        assert f"rewriter.endpoint.{expected}" in str(caught.value)
        assert not secrets_in(caught.value)
    with pytest.raises(ConfigError) as from_python:
        optimize(rewriter=rewriter)
    assert str(from_python.value).startswith(f"optimize(): rewriter.endpoint.{expected}")
    assert not secrets_in(from_python.value)


@pytest.mark.parametrize(
    ("text", "override", "expected"),
    [
        ("", f"rewriter.endpoint.url: {KEY}", "--set rewriter.endpoint.url…: write it as key=value"),
        ("", f"rewriter: {{endpoint: {{url={KEY}}}}}", "--set rewriter…: rewriter: {endpoint: {url"),
        ("", f"rewriter.endpoint.api_key_env=[{KEY}", "--set rewriter.endpoint.api_key_env: not valid YAML"),
        ("", f"rewriter.endpoint.api_key_env=*{KEY}", "--set rewriter.endpoint.api_key_env: not valid YAML"),
        ("", f"rewriter.endpoint.api_key_env=!{KEY}", "this YAML tag is not allowed"),
        ("", f"rewriter.endpoint.api_key_env=!{KEY}!x", "--set rewriter.endpoint.api_key_env: not valid"),
        (
            "",
            f"rewriter.endpoint={KEY}",
            "rewriter.endpoint: should be a section with keys, not a",
        ),
        (
            "",
            f"rewriter={{batch: 0, endpoint: {{parameters: {{x: {KEY}}}}}}}",
            "--set rewriter: rewriter.batch: should",
        ),
        ("", f"rewriter.api_key={KEY}", "--set rewriter.api_key: rewriter.api_key: unknown key"),
        ("", f"run_dir=[s3://me:{KEY}@runs/x]", "--set run_dir: run_dir: should be text, not a list"),
        (f"rewriter: {{endpoint: {KEY}}}", "rewriter.endpoint.url=x", "rewriter.endpoint is a text, which"),
        (
            f"rewriter: {{endpoint: {{url: {KEY}}}}}",
            "rewriter.endpoint.url.x=1",
            "url is a text, which has no",
        ),
        (f"rewriter: {{endpoint: {{api_key_env: *{KEY}}}}}", "seed=1", "run.yaml:1: not valid YAML"),
        (f"rewriter: {{endpoint: {{api_key_env: !{KEY} }}}}", "seed=1", "this YAML tag is not allowed"),
        (f"rewriter: {{endpoint: {KEY}}}", "seed=1", "run.yaml:1: rewriter.endpoint: should be a section"),
    ],
)
def test_a_key_in_a_text_that_is_no_configuration_is_not_shown(
    tmp_path: Path, text: str, override: str, expected: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), parse_overrides([override]))
    assert len(str(caught.value).splitlines()) == 1
    assert expected in str(caught.value)
    assert not secrets_in(caught.value)


def test_a_model_made_in_python_shows_no_value_either() -> None:
    with pytest.raises(ValidationError, match="not the key itself") as caught:
        RunConfig.model_validate({"rewriter": {"endpoint": {"api_key_env": KEY}}})
    assert not secrets_in(caught.value)
    with pytest.raises(ValidationError) as url:
        EndpointConfig(url=f"http://127.0.0.1:{KEY}")
    assert not secrets_in(url.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://[::1]:80/v1", "http://server"])
def test_an_endpoint_is_any_plain_url(url: str) -> None:
    assert EndpointConfig(url=url).url == url


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
    instruction=texts | st.none(),
    labels=st.none() | st.lists(texts, max_size=3).map(tuple),
    beta=st.floats(min_value=0, exclude_min=True, allow_nan=False),
    target=st.none() | st.floats(allow_nan=False),
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
    config = RunConfig(search=SearchConfig(masking="off", objective="1e3"))
    assert yaml.safe_load(dump_config(config)) == config.model_dump(mode="json")


def test_freely_named_settings_differ_as_a_whole() -> None:
    old = config_from_mapping({"rewriter": {"endpoint": {"parameters": {"top_k": 3}}}}, "here")
    new = config_from_mapping(
        {"scorer": {"vllm": {"options": {"seed": 1}}}, "rewriter": {"endpoint": {"parameters": {"x": 3}}}},
        "here",
    )
    assert differences(old, new) == ("scorer.vllm.options", "rewriter.endpoint.parameters")
    assert differences(new, RunConfig()) == ("scorer.vllm.options", "rewriter.endpoint.parameters")


def test_differences_are_key_paths() -> None:
    old = RunConfig(tasks=(TaskConfig(name="a", path="x"),))
    new = RunConfig(
        tasks=(TaskConfig(name="a", path="y"), TaskConfig(name="b")),
        search=SearchConfig(beta=2.0, rounds=99),
        seed=1,
    )
    assert differences(old, new) == ("tasks.0.path", "tasks.1", "search.beta", "seed")
    assert differences(old, old) == ()


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


def test_the_keys_that_may_change_are_marked_at_their_fields() -> None:
    machine = ("replicas", "min_replicas", "tensor_parallel", "cpus", "gpus", "memory_gb", "threads")
    requests = ("url", "api_key_env", "concurrency", "retries", "timeout")
    replica = (*machine, "vllm.kv_cache_gb", *(f"endpoint.{key}" for key in requests))
    stopping = ("rounds", "patience", "target_loss", "max_tokens", "max_seconds")
    assert set(CHANGEABLE) == {
        *("run_dir", "data_dir", "ray", "tracking", "scorer.working_memory_gb"),
        *(f"{role}.{key}" for role in ("scorer", "rewriter") for key in replica),
        *(f"search.{key}" for key in stopping),
    }
    assert set(CHANGEABLE) < set(key_paths())
    assert all(CHANGEABLE.values())


def test_keys_that_may_change_do_not_count_as_differences() -> None:
    machine = {"replicas": 2, "cpus": 2, "gpus": 1, "memory_gb": 3, "threads": 4}
    new = config_from_mapping(
        {
            "run_dir": "r",
            "data_dir": "d",
            "tracking": {"mlflow": True, "wandb": {"project": "other"}},
            "ray": {"address": "auto", "num_cpus": 3, "num_gpus": 1, "start_timeout": 1},
            "scorer": machine,
            "rewriter": {**machine, "endpoint": {"url": "http://server/v1"}},
            "search": {"rounds": 1, "patience": 1, "target_loss": 0.5, "max_tokens": 9, "max_seconds": 9},
        },
        "here",
    )
    assert differences(RunConfig(), new) == ()
    evaluated = config_from_mapping(
        {"evaluation": {"judge": {"endpoint": {"url": "http://server/v1"}}}}, "here"
    )
    assert differences(RunConfig(), evaluated) == ("evaluation.judge.endpoint.url",)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_built_in_configurations_load(path: Path) -> None:
    assert isinstance(load_config(str(path)), RunConfig)


def test_the_bbh_configuration_names_every_file_with_the_papers_settings(data_dir: Path) -> None:
    config = load_config(str(CONFIGS / "bbh.yaml"))
    assert sorted(task.name for task in config.tasks) == sorted(
        f"bbh/{path.stem}" for path in (data_dir / "bbh").glob("*.json")
    )
    search, split = config.search, config.split
    assert (search.rounds, search.hard_examples, search.variants, search.beta) == (20, 3, 4, 1.0)
    assert (split.train_fraction, split.train_max) == (0.2, 50)


def documented() -> dict[str, str]:
    """The default of each key in configs/README.md."""
    rows = re.findall(
        r"^\| `([^`|]+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$",
        (CONFIGS / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    keys = [key for key, _ in rows]
    assert sorted(set(keys)) == sorted(keys), "a key is documented twice"
    return dict(rows)


def field_at(path: str) -> FieldInfo:
    section: type[BaseModel] = RunConfig
    *above, last = path.split(".")
    for part in above:
        if part == "N":
            section = TaskConfig
        elif part != "tasks":
            kind = section.model_fields[part].annotation
            kind = next(iter(get_args(kind)), kind)  # a section that may be missing
            assert isinstance(kind, type)
            assert issubclass(kind, BaseModel)
            section = kind
    return section.model_fields[last]


def test_the_readme_documents_every_key_and_no_other() -> None:
    sections = {path.rpartition(".")[0] for path in key_paths()} - {"", "tasks.N"}
    leaves = [path for path in key_paths() if path not in sections]
    assert sorted(documented()) == sorted(leaves)


def test_the_readme_gives_the_true_defaults() -> None:
    for key, shown in documented().items():
        field = field_at(key)
        if field.is_required():
            assert shown == "required", key
        elif key == "tasks":
            assert yaml.safe_load(shown.strip("`")) == [task.name for task in RunConfig().tasks]
        else:
            value = yaml.safe_load(shown.strip("`")) if shown != "`[MASK]`" else "[MASK]"
            assert (tuple(value) if isinstance(value, list) else value) == field.get_default(
                call_default_factory=True
            ), key


def test_the_readme_names_every_key_that_may_change_on_a_resume() -> None:
    text = (CONFIGS / "README.md").read_text(encoding="utf-8").partition("## Continuing a run")[2]
    for key in CHANGEABLE:
        assert f"`{key.rpartition('.')[2]}`" in text, key
    assert {"replicas", "cpus", "gpus", "memory_gb", "threads"} < set(ReplicaConfig.model_fields)


def test_errors_of_configurations_are_errors_of_users() -> None:
    assert issubclass(ConfigError, PmpoError)
