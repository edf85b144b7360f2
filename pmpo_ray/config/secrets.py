"""Keys and passwords among the settings of a configuration.

Invariants: a run folder, a report and a tracker get every setting, so a configuration with a key in it is
refused, by the name of the setting or by the form of its value; no error shows any part of the value. Prompt
texts are not settings: they go to models by design, and may speak of keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from pmpo_ray.config.messages import KeyPath, dotted
from pmpo_ray.redaction import HIDDEN, key_form

PROMPT_KEYS = frozenset({"instruction", "description", "labels", "instructions"})
"""The keys whose values are texts for models."""
_ADVICE: Mapping[str, str] = {
    "endpoint": "name the environment variable that holds the key in endpoint.api_key_env",
    "vllm": "set it in the environment of the replicas, as in HF_TOKEN",
    "mlflow": "set such an address in the environment variable MLFLOW_TRACKING_URI",
}
_PLACES_OF_KEYS = frozenset({"headers", "query", "cookies"})
"""The last word of the name of a mapping whose entries are more often secret than elsewhere."""
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = frozenset(
    {"authorization", "cookie", "credential", "credentials", "passphrase", "passwd", "password", "secret"}
    | {"apikey", "apitoken", "authtoken", "accesstoken", "pwd"}
)
_KINDS_OF_KEYS = frozenset(
    {"api", "access", "account", "auth", "client", "encryption", "license", "master", "private", "secret"}
    | {"service", "shared", "signing", "subscription"}
)
_KINDS_OF_TOKENS = frozenset(
    {"access", "api", "auth", "bearer", "client", "gitlab", "github", "hf", "hub", "huggingface", "id"}
    | {"private", "refresh", "secret", "security", "session", "user", "csrf", "jwt"}
)
_SCHEMELESS = re.compile(r"[^\s/:@]+:[^\s@]+@[\w.-]+\.?\w(?::\d+)?(?:/\S*)?")
"""An address such as user:password@host."""


def key_among_settings(config: BaseModel) -> tuple[KeyPath, str] | None:
    """The path of the first setting that holds a key or a password, with the reason and the advice as one
    text; None if there is none."""
    for path, value, named in _settings(config, (), secret=False):
        problem = _problem(value, named=named)
        if problem is not None:
            advice = next((text for part, text in _ADVICE.items() if part in path), None)
            return path, f"{problem}; {advice or 'remove it, and set it in the environment'}"
    return None


def keys_in_prompts(config: BaseModel) -> tuple[str, ...]:
    """The paths of all prompt texts that hold a text in the form of a key."""
    return tuple(dotted(path) for path, text in _prompts(config, ()) if key_form(text) is not None)


def without_keys(value: Any) -> tuple[Any, tuple[str, ...]]:
    """A document of plain values with HIDDEN in place of every key and password among its settings, and the
    paths of those."""
    found: list[str] = []
    return _masked(value, (), found, secret=False), tuple(found)


def _problem(value: str, *, named: bool) -> str | None:
    if value in ("", HIDDEN):
        return None
    form = key_form(value)
    if form == "://" or (form is None and "://" not in value and _SCHEMELESS.fullmatch(value)):
        return "must hold no credentials, which the run folder would keep"
    if form is not None:
        return f"holds what looks like a key ({form.strip()}…), which the run folder would keep"
    return "must hold no key, which the run folder would keep" if named else None


def _settings(value: object, path: KeyPath, *, secret: bool) -> Iterator[tuple[KeyPath, str, bool]]:
    """The path and the text of every setting, and if it has the name of a secret."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            if name not in PROMPT_KEYS:
                yield from _settings(getattr(value, name), (*path, name), secret=False)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield (*path, name), str(name), False
            # A mapping of that name describes something, such as a field of a form.
            named = _names_secret(str(name), path) and not isinstance(item, Mapping)
            yield from _settings(item, (*path, name), secret=named)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _settings(item, (*path, index), secret=secret)
    elif isinstance(value, str) or (secret and isinstance(value, int) and not isinstance(value, bool)):
        yield path, str(value), secret


def _prompts(value: object, path: KeyPath, *, prompt: bool = False) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _prompts(item, (*path, name), prompt=prompt or name in PROMPT_KEYS)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _prompts(item, (*path, index), prompt=prompt)
    elif isinstance(value, str) and prompt:
        yield path, value


def _masked(value: Any, path: KeyPath, found: list[str], *, secret: bool) -> Any:
    if isinstance(value, Mapping):
        free = "parameters" in path or "options" in path
        masked = {}
        for name, item in value.items():
            shown = HIDDEN if key_form(name) else name
            named = free and _names_secret(name, path) and not isinstance(item, Mapping)
            prompt = name in PROMPT_KEYS and not free
            masked[shown] = item if prompt else _masked(item, (*path, shown), found, secret=named)
        return masked
    if isinstance(value, list):
        return [_masked(item, (*path, index), found, secret=secret) for index, item in enumerate(value)]
    is_text = isinstance(value, str) or (secret and isinstance(value, int) and not isinstance(value, bool))
    if not is_text or _problem(str(value), named=secret) is None:
        return value
    found.append(dotted(path))
    return HIDDEN


def _names_secret(name: str, path: KeyPath) -> bool:
    """True if the entry `name` of the mapping at `path` has the name of a secret."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words:
        return False
    *before, last = words
    kind = before[-1] if before else ""
    pairs = (last == "key" and kind in _KINDS_OF_KEYS) or (last == "token" and kind in _KINDS_OF_TOKENS)
    alone = not before and last in ("token", "auth", "bearer")
    place = _WORDS.findall(str(path[-1]))[-1:] if path else []
    header = bool(_PLACES_OF_KEYS & {word.lower() for word in place}) and bool(
        {"key", "token", "auth", "signature"} & set(words)
    )
    key_id = words[-2:] == ["key", "id"] and words[-3:-2] == ["access"]
    return bool(_SECRET_WORDS & set(words)) or pairs or alone or header or key_id
