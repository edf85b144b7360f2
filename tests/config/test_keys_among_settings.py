"""Keys and passwords among the settings of a configuration: refused by name and by form, and never shown."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pmpo_ray import optimize
from pmpo_ray.config.loading import config_for_reading, load_config
from pmpo_ray.config.overrides import parse_overrides
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.secrets import keys_in_prompts
from pmpo_ray.errors import ConfigError

PLAIN = "hunter2"
"""A secret that only its place gives away."""
OPENAI = "sk-proj-Abcdefghij0123456789"
HUB = "hf_AbcdefghijklmnopqrstUVWXYZ01"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEvQhunter2\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.s5nature_hunter2"

REFUSED = [
    ("rewriter.endpoint.parameters.extra_headers.Authorization", f"Token {PLAIN}"),
    ("rewriter.endpoint.parameters.extra_headers.X-Api-Key", PLAIN),
    ("rewriter.endpoint.parameters.extra_headers.Ocp-Apim-Subscription-Key", PLAIN),
    ("rewriter.endpoint.parameters.extra_headers.Cookie", f"session={PLAIN}"),
    ("rewriter.endpoint.parameters.extra_headers.X-Custom-Auth", PLAIN),
    ("rewriter.endpoint.parameters.extra_query.key", PLAIN),
    ("rewriter.endpoint.parameters.extra_body.apiKey", PLAIN),
    ("rewriter.endpoint.parameters.api_key", PLAIN),
    ("rewriter.endpoint.parameters.password", 12345678),
    ("rewriter.endpoint.parameters.user", OPENAI),
    ("rewriter.endpoint.parameters.metadata.tags", ["x", HUB]),
    ("scorer.endpoint.parameters.token", PLAIN),
    ("evaluation.judge.endpoint.parameters.extra_headers.api-key", PLAIN),
    ("evaluation.evaluator.endpoint.parameters.client_secret", PLAIN),
    ("scorer.vllm.options.hf_token", HUB),
    ("scorer.vllm.options.hf_token", PLAIN),
    ("scorer.vllm.options.api_key", PLAIN),
    ("rewriter.vllm.options.model_loader_extra_config.secret_access_key", PLAIN),
    ("rewriter.vllm.options.anything", PEM),
    ("tracking.mlflow.uri", f"postgresql://me:{PLAIN}@host/db"),
    ("tracking.mlflow.uri", f"http://me:a/{PLAIN}@host/db"),
    ("tracking.mlflow.uri", f"me:{PLAIN}@host:5000"),
    ("tracking.mlflow.uri", f"https://host/?token={PLAIN}"),
    ("tracking.wandb.project", "gh" + "p_" + "Abcdefghij0123456789Abcd"),
    ("tracking.tensorboard.log_dir", f"logs?api_key={PLAIN}"),
    ("model", HUB),
    ("model", f"https://{HUB}@huggingface.co/org/name"),
    ("tasks.0.hub", "AKIA" + "ABCDEFGHIJKLMNOP"),
    ("ray.address", f"ray://me:{PLAIN}@head:10001"),
    ("run_dir", f"s3://runs/x?secret_key={PLAIN}&region=a"),
    ("scorer.revision", f"Bearer {JWT}"),
    ("evaluation.process_reward.separator", JWT),
]
ALLOWED: list[tuple[str, object]] = [
    ("rewriter.endpoint.parameters.extra_headers.X-Title", "a test"),
    ("rewriter.endpoint.parameters.prompt_cache_key", "news"),
    ("rewriter.endpoint.parameters.max_completion_tokens", 12),
    ("rewriter.endpoint.parameters.stop_token", "</s>"),
    ("rewriter.endpoint.parameters.response_format.password", {"type": "string"}),
    ("rewriter.endpoint.parameters.api_key", ""),
    ("scorer.vllm.options.hf_token", True),
    ("scorer.vllm.options.tokenizer", "org/sk-learn-text-classification-2"),
    ("search.mask_token", "[KEY]"),
    ("model", "models/hf_models_of_the_year_2026"),
    ("run_dir", "s3://runs/x?endpoint_override=127.0.0.1:9000&region=us-east-1"),
    ("run_dir", "gs://anonymous@runs/x"),
    ("tracking.mlflow.uri", "sqlite:////tmp/m.db"),
    ("tasks.0.path", "data/2026:a@b.csv"),
]


def document(path: str, value: object) -> dict[str, object]:
    for part in reversed(path.split(".")):
        value = [value] if part == "0" else {part: value}
    assert isinstance(value, dict)
    if isinstance(value.get("tasks"), list):
        value["tasks"][0]["name"] = "mine"
    return value


def secret_in(error: BaseException, value: object) -> bool:
    shown = "".join(traceback.format_exception(error)) + repr(error)
    parts = (PLAIN, OPENAI, HUB[3:], "12345678", JWT, "ABCDEFGHIJKLMNOP", "Abcdefghij0123456789")
    return any(part in shown for part in parts if part in str(value))


@pytest.mark.parametrize(("path", "value"), REFUSED)
def test_a_key_is_refused_with_its_path_and_is_not_shown(tmp_path: Path, path: str, value: object) -> None:
    named = path if not isinstance(value, list) else f"{path}.1"
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"seed": 1, **document(path, value)}, sort_keys=False), encoding="utf-8")
    with pytest.raises(ConfigError) as in_file:
        load_config(str(file))
    with pytest.raises(ConfigError) as from_python:
        optimize(**document(path, value)) if path != "run_dir" else load_config(str(file))
    with pytest.raises(ValidationError) as as_values:
        RunConfig.model_validate(document(path, value if not isinstance(value, list) else tuple(value)))
    for caught in (in_file, from_python, as_values):
        assert f"{named}: " in str(caught.value)
        assert "the run folder would keep" in str(caught.value)
        assert not secret_in(caught.value, value)
    assert len(str(in_file.value).splitlines()) == 1
    assert ".yaml:" in str(in_file.value)
    if "tasks" not in path:
        with pytest.raises(ConfigError) as override:
            load_config("configs/quickstart.yaml", parse_overrides([f"{path}={json.dumps(value)}"]))
        assert f"{named}: " in str(override.value)
        assert not secret_in(override.value, value)


def test_the_error_says_where_the_key_belongs(tmp_path: Path) -> None:
    def line(path: str, value: object) -> str:
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(document(path, value)), encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_config(str(file))
        return str(caught.value).removeprefix(f"{file}:")

    assert line("rewriter.endpoint.parameters.extra_headers.Authorization", PLAIN) == (
        "5: rewriter.endpoint.parameters.extra_headers.Authorization: must hold no key, which the run folder "
        "would keep; name the environment variable that holds the key in endpoint.api_key_env"
    )
    assert line("scorer.vllm.options.hf_token", HUB) == (
        "4: scorer.vllm.options.hf_token: holds what looks like a key (hf_…), which the run folder would "
        "keep; set it in the environment of the replicas, as in HF_TOKEN"
    )
    assert line("tracking.mlflow.uri", f"https://h/?token={PLAIN}") == (
        "3: tracking.mlflow.uri: must hold no credentials, which the run folder would keep; set such an "
        "address in the environment variable MLFLOW_TRACKING_URI"
    )


@pytest.mark.parametrize(("path", "value"), ALLOWED)
def test_what_only_resembles_a_key_is_taken(tmp_path: Path, path: str, value: object) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(document(path, value)), encoding="utf-8")
    load_config(str(file))


def test_a_key_as_the_name_of_an_entry_is_refused_and_not_shown(tmp_path: Path) -> None:
    for section in ("endpoint: {parameters", "vllm: {options"):
        file = tmp_path / "run.yaml"
        file.write_text(f"rewriter: {{{section}: {{{HUB}: 1}}}}}}", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"….*holds what looks like a key") as caught:
            load_config(str(file))
        assert HUB[3:] not in str(caught.value)


@pytest.mark.parametrize("path", ["seed", "scorer.dtype", "search.operators", "tasks.0.function", "grid.x.y"])
def test_an_error_about_something_else_does_not_show_a_key(tmp_path: Path, path: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(document(path, OPENAI)), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(str(file))
    with pytest.raises(ConfigError) as override:
        load_config("configs/quickstart.yaml", parse_overrides([f"search.rounds={OPENAI}"]))
    assert OPENAI not in str(caught.value) + str(override.value)


def test_prompt_texts_may_speak_of_keys_and_are_named() -> None:
    task = {"name": "leaks", "instruction": f"Find keys such as {OPENAI}.", "labels": ("yes", "no")}
    config = RunConfig.model_validate(
        {"tasks": (task,), "evaluation": {"instructions": {"mine": f"{HUB} is a key"}}}
    )
    assert keys_in_prompts(config) == ("tasks.0.instruction", "evaluation.instructions.mine")
    assert keys_in_prompts(RunConfig()) == ()


def test_a_configuration_with_a_key_can_still_be_read_without_it() -> None:
    text = yaml.safe_dump(
        {
            "model": "m",
            "rewriter": {"endpoint": {"parameters": {"extra_headers": {"Authorization": PLAIN}, HUB: 2}}},
            "tracking": {"mlflow": {"uri": f"http://me:{PLAIN}@host"}},
            "tasks": [{"name": "t", "instruction": f"Find {OPENAI}"}],
        }
    )
    config, hidden = config_for_reading(text, "config.yaml")
    assert hidden == (
        "rewriter.endpoint.parameters.extra_headers.Authorization",
        "tracking.mlflow.uri",
    )
    shown = str(config)
    assert PLAIN not in shown
    assert HUB not in shown
    assert config.tasks[0].instruction == f"Find {OPENAI}"
    assert config_for_reading("model: m", "config.yaml")[1] == ()
