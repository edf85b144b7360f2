"""API keys in the wrong place of a configuration: no error shows them."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pmpo_ray import optimize
from pmpo_ray.config.engines import EndpointConfig
from pmpo_ray.config.loading import load_config
from pmpo_ray.config.overrides import parse_overrides
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import ConfigError

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
