"""Requests to an OpenAI-compatible server, and the project's errors for its failures.

Invariants:
- The key comes from the environment variable that the configuration names, and appears in no error, log or
  info.
- At most `concurrency` requests are open at once. The client repeats a request up to `retries` times, with
  growing pauses or those that the server requests, if a connection fails, a timeout expires, or the status is
  408, 409, 429 or 5xx.
- Every other failure leaves `Endpoint.request` as one of the project's errors, in one line.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pmpo_ray.config.engines import ReplicaConfig
from pmpo_ray.errors import ConfigError, EndpointError, EngineError, ModelError, PromptTooLongError

if TYPE_CHECKING:
    from openai import APIError, APIStatusError, AsyncOpenAI

Role = Literal["scorer", "rewriter", "judge"]

_CONNECT_SECONDS = 10.0
"""Timeout for connecting to the host; `endpoint.timeout` is for answers."""
_NO_KEY = "none"
"""Placeholder key for servers without keys: the client insists on one."""
_CHECK_URL = "check the url (most end in /v1)"
_MAX_MESSAGE = 300
_MAX_NAMES = 10
_TEMPORARY = (408, 409, 429)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model under the server's name. `context_length` is None if the server does not report it."""

    name: str
    context_length: int | None


class Endpoint:
    """The server of one replica in the role `role`.

    Raises ConfigError if the package openai or the key is missing.
    """

    def __init__(self, role: Role, config: ReplicaConfig) -> None:
        try:
            import openai
        except ImportError as error:
            raise ConfigError(
                f"{role}.engine=openai needs the package openai: pip install 'pmpo-ray[openai]'"
            ) from error
        self._role = role
        self._settings = config.endpoint
        self._key = _read_key(role, config.endpoint.api_key_env)
        seconds = config.endpoint.timeout
        self._client = openai.AsyncOpenAI(
            api_key=self._key or _NO_KEY,
            base_url=config.endpoint.url,
            timeout=openai.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
            max_retries=config.endpoint.retries,
        )
        self.url = _without_credentials(str(self._client.base_url))
        self.where = f"{role}.endpoint.url={self.url}"
        self._slots = asyncio.Semaphore(config.endpoint.concurrency)
        self._served: tuple[str, ...] | None = None
        self._closing: asyncio.Future[None] | None = None
        if not self._key and f".{urlsplit(self.url).hostname}".endswith(".openai.com"):
            raise ConfigError(f"{self.where}: this server needs a key; {self._how_to_give_key()}")

    @property
    def parameters(self) -> dict[str, Any]:
        """Additional fields of every request."""
        return self._settings.parameters

    @asynccontextmanager
    async def request(self) -> AsyncIterator[AsyncOpenAI]:
        """The client, for one request, as soon as fewer than `concurrency` are open.

        Raises EngineError if the request is at fault, ModelError if no request to this endpoint can succeed,
        and EndpointError if the failure of the server may be temporary.
        """
        import openai

        async with self._slots:
            try:
                yield self._client
            except openai.APIStatusError as error:
                raise self._refusal(error) from None
            except openai.APIError as error:
                raise EndpointError(f"{self.where} gives no answer: {self.reason(error)}") from None
            except json.JSONDecodeError:
                raise self.not_compatible("something that is not JSON") from None

    def not_compatible(self, answer: str) -> EndpointError:
        """The error for an answer that no OpenAI-compatible server gives."""
        return EndpointError(
            f"{self.where} answers {answer}, unlike an OpenAI-compatible server; {_CHECK_URL}"
        )

    async def find_model(self, name: str, *, named: bool) -> ServedModel:
        """The server's model `name`. If the role's configuration did not name it (`named` False), a server's
        only model is accepted instead. Raises ModelError if there is no such model."""
        served = await self._list_models()
        if served is None:
            return ServedModel(name, None)
        self._served = tuple(model.name for model in served)
        for model in served:
            if model.name == name:
                return model
        if not named and len(served) == 1:
            return served[0]
        raise self._not_served(name)

    def close(self) -> None:
        """Close the connections."""
        self._closing = asyncio.ensure_future(self._client.close())

    async def _list_models(self) -> list[ServedModel] | None:
        """The models that the server serves; None if it does not list them."""
        import openai

        async with self.request() as client:
            try:
                # Not client.models.list(): it raises AttributeError for an answer that is not JSON.
                listed = await client.get("/models", cast_to=object)
            except openai.APIStatusError as error:
                if error.status_code in (404, 405):
                    return None
                raise
        models = listed.get("data") if isinstance(listed, Mapping) else None
        if not isinstance(models, list):
            raise ModelError(f"{self.where} is no OpenAI-compatible server: no list of models; {_CHECK_URL}")
        return [
            ServedModel(str(model["id"]), _length(model.get("max_model_len")))
            for model in models
            if isinstance(model, Mapping) and "id" in model
        ]

    def _not_served(self, name: str) -> ModelError:
        return ModelError(
            f"{self.where} does not serve model {name!r}; it serves: {_names(self._served or ())}; "
            f"set {self._role}.model to one of them"
        )

    def _refusal(self, error: APIStatusError) -> Exception:
        """The error for a status of 4xx or 5xx, after all retries."""
        status, reason = error.status_code, self.reason(error)
        if status in (401, 403):
            return ModelError(f"{self.where} does not accept the key ({status}); {self._how_to_give_key()}")
        if status == 402 or error.code == "insufficient_quota":
            return ModelError(
                f"{self.where}: the key's account has nothing left to spend ({status}: {reason}); top it up"
            )
        if status == 404:
            served = f"; it serves: {_names(self._served)}" if self._served else ""
            return ModelError(f"{self.where} has no such model or path (404: {reason}){served}; {_CHECK_URL}")
        if status in _TEMPORARY or status >= 500:
            return EndpointError(
                f"{self.where} fails, up to {self._settings.retries} retries included ({status}: {reason})"
            )
        kind = PromptTooLongError if error.code == "context_length_exceeded" else EngineError
        return kind(
            f"{self.where} refuses a request ({status}: {reason}); shorten the examples or correct "
            f"{self._role}.endpoint.parameters"
        )

    def reason(self, error: APIError) -> str:
        """The first line of the message of the server, or of the system below the client; the key is
        masked."""
        body: object = error.body
        message = body.get("message", body.get("detail")) if isinstance(body, Mapping) else body
        lines = str(message or error.__cause__ or error.message).strip().splitlines()
        line = lines[0] if lines else error.message
        return (line.replace(self._key, "***") if self._key else line)[:_MAX_MESSAGE]

    def _how_to_give_key(self) -> str:
        variable = self._settings.api_key_env
        if variable is None:
            return f"name the environment variable that holds it in {self._role}.endpoint.api_key_env"
        state = "the one there is wrong or not for this model" if self._key else "it is not set"
        return f"set the environment variable {variable} where the replica runs ({platform.node()}): {state}"


def _read_key(role: Role, variable: str | None) -> str:
    """The key that `variable` holds, empty for none. Raises ConfigError, without showing it, if no header
    can hold it."""
    key = "" if variable is None else os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            f"{role}.endpoint.api_key_env: the environment variable {variable} on {platform.node()} holds no "
            "key: there are blanks, line breaks or letters beyond ASCII in it; set it to the key alone"
        )
    return key


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")


def _length(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _names(served: Sequence[str]) -> str:
    more = f" and {len(served) - _MAX_NAMES} more" if len(served) > _MAX_NAMES else ""
    return ", ".join(" ".join(name.split()) for name in served[:_MAX_NAMES]) + more or "nothing"
