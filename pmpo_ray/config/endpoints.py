"""The servers that a configuration uses, and where their keys go."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from pmpo_ray.config.engines import EndpointConfig
from pmpo_ray.config.run import RunConfig

_OPENAI_URL = "https://api.openai.com/v1"
_PORTS = {"http": 80, "https": 443}


def endpoints(config: RunConfig) -> dict[str, EndpointConfig]:
    """The servers that a run or its evaluation uses, by the keys of their settings."""
    roles = {"scorer": config.scorer}
    replicas = roles if config.scorer.role == "both" else {**roles, "rewriter": config.rewriter}
    servers = {
        f"{role}.endpoint": replica.endpoint
        for role, replica in replicas.items()
        if replica.engine == "openai"
    }
    evaluator, judge = config.evaluation.evaluator, config.evaluation.judge
    if evaluator.model is not None and evaluator.engine == "openai":
        servers["evaluation.evaluator.endpoint"] = evaluator.endpoint
    if judge.model is not None:
        servers["evaluation.judge.endpoint"] = judge.endpoint
    return servers


def address_of(settings: EndpointConfig, environ: Mapping[str, str]) -> str:
    """The URL of a server, where `environ` are the variables of its replica."""
    return settings.url or environ.get("OPENAI_BASE_URL") or _OPENAI_URL


def host_of(url: str) -> str:
    """The host and the port that requests to `url` go to."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or _PORTS.get(parts.scheme, 443)}"


def key_notes(
    config: RunConfig, environ: Mapping[str, str], *, evaluates: bool, local: bool
) -> tuple[str, ...]:
    """A line for each server of a run (`evaluates`: of an evaluation): the variable of its key, and the host
    that gets the key. Of a replica elsewhere (`local` false) the environment is not known."""
    notes = []
    for name, settings in endpoints(config).items():
        if name.startswith("evaluation.") and not evaluates:
            continue
        host, variable = host_of(address_of(settings, environ)), settings.api_key_env
        if variable is None:
            notes.append(f"{name}: requests go to {host} without a key")
        elif local and not environ.get(variable):
            notes.append(f"{name}: requests go to {host} without a key: {variable} is not set")
        else:
            notes.append(f"{name}: the key from {variable} goes to {host}")
    return tuple(notes)
