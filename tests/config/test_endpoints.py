"""The notes about the keys of servers: which variable, and which host gets it."""

from __future__ import annotations

from pmpo_ray.config.endpoints import key_notes
from pmpo_ray.config.run import RunConfig

CONFIG = RunConfig.model_validate(
    {
        "rewriter": {
            "engine": "openai",
            "endpoint": {"url": "https://llm.example.org/v1", "api_key_env": "MY_KEY"},
        },
        "evaluation": {"judge": {"model": "judge"}},
    }
)


def test_the_variable_and_the_host_of_a_key_are_named_and_the_key_is_not() -> None:
    environ = {"MY_KEY": "hunter2hunter2", "OPENAI_API_KEY": "sk-x"}
    assert key_notes(CONFIG, environ, evaluates=True, local=True) == (
        "rewriter.endpoint: the key from MY_KEY goes to llm.example.org:443",
        "evaluation.judge.endpoint: the key from OPENAI_API_KEY goes to api.openai.com:443",
    )
    assert len(key_notes(CONFIG, environ, evaluates=False, local=True)) == 1
    assert key_notes(RunConfig(), environ, evaluates=True, local=True) == ()


def test_a_server_that_gets_no_key_is_named_too() -> None:
    assert key_notes(CONFIG, {"OPENAI_BASE_URL": "http://[::1]:8000/v1"}, evaluates=True, local=True) == (
        "rewriter.endpoint: requests go to llm.example.org:443 without a key: MY_KEY is not set",
        "evaluation.judge.endpoint: requests go to [::1]:8000 without a key: OPENAI_API_KEY is not set",
    )
    elsewhere = key_notes(CONFIG, {}, evaluates=False, local=False)
    assert elsewhere == ("rewriter.endpoint: the key from MY_KEY goes to llm.example.org:443",)
    endpoint = CONFIG.rewriter.endpoint.model_copy(update={"api_key_env": None, "url": "http://h/v1"})
    open_server = CONFIG.rewriter.model_copy(update={"endpoint": endpoint})
    config = CONFIG.model_copy(update={"rewriter": open_server})
    assert key_notes(config, {}, evaluates=False, local=True) == (
        "rewriter.endpoint: requests go to h:80 without a key",
    )
