"""The sections about engines: the model, the device, and the number of replicas."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from pmpo_ray.config.base import (
    Changeable,
    Gigabytes,
    NonNegative,
    Options,
    Positive,
    Seconds,
    Section,
    Share,
    Temperature,
    Units,
    name_or_path,
)
from pmpo_ray.config.import_paths import is_import_path

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ENGINES = ("auto", "transformers", "vllm", "openai", "simulated")

_SCALE = Changeable("the number of replicas that share the work does not change its outcome")
_MACHINE = Changeable("a share of a machine, not a setting of the method")
_REQUESTS = Changeable("the account and the pace of requests do not change their outcome")


class VllmConfig(Section):
    """Settings of the engine vllm alone. `kv_cache_gb` None: 1 GB on a CPU, and on a GPU the rest of the
    replica's share; `options` are further arguments of vLLM's AsyncEngineArgs."""

    kv_cache_gb: Annotated[Gigabytes | None, _MACHINE] = None
    options: Options = Field(default_factory=dict)


class EndpointConfig(Section):
    """An OpenAI-compatible server, for the engine openai alone. `url` None: the client's default (the
    variable OPENAI_BASE_URL, else OpenAI's address). The key is read from the variable `api_key_env` where
    the replica runs. `parameters` are further fields of every request."""

    url: Annotated[str | None, Changeable("the same model may be served elsewhere")] = None
    api_key_env: Annotated[str | None, Changeable("the payer does not change the outcome")] = "OPENAI_API_KEY"
    concurrency: Annotated[Positive, Field(le=10_000), _REQUESTS] = 16
    retries: Annotated[NonNegative, Field(le=1000), _REQUESTS] = 8
    timeout: Annotated[Seconds, _REQUESTS] = 300.0
    parameters: Options = Field(default_factory=dict)

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            plain = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # its text shows a part of the value
            plain = False
        if not plain:
            raise ValueError("should be a URL such as http://127.0.0.1:8000/v1")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError(
                "must hold no credentials and no query; name a variable with the key in api_key_env"
            )
        return value

    @field_validator("api_key_env")
    @classmethod
    def _name_not_key(cls, value: str | None) -> str | None:
        # The run folder keeps this value: it must not be the key itself, and the message must not show it.
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            raise ValueError(
                "should be the name of an environment variable in capital letters, not the key itself"
            )
        return value


Engine = Annotated[str, name_or_path(ENGINES, "a custom engine")]


class ReplicaConfig(Section):
    """The settings that scorers and rewriters share. `model` None: the run's model. `replicas` is the maximum
    number of replicas, `min_replicas` the minimum (None: the same number)."""

    engine: Engine = "auto"
    model: str | None = None
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    trust_remote_code: bool = False
    replicas: Annotated[Positive, Field(le=100_000), _SCALE] = 1
    min_replicas: Annotated[NonNegative | None, _SCALE] = None
    tensor_parallel: Annotated[Positive, Field(le=1024), _MACHINE] = 1
    cpus: Annotated[Units, _MACHINE] = Field(default=1, gt=0)
    gpus: Annotated[Units | None, _MACHINE] = None
    memory_gb: Annotated[Gigabytes | None, _MACHINE] = None
    threads: Annotated[Positive | None, Field(le=10_000), _MACHINE] = None
    vllm: VllmConfig = VllmConfig()
    endpoint: EndpointConfig = EndpointConfig()

    @property
    def has_custom_engine(self) -> bool:
        """True if `engine` is the import path of a user-defined engine."""
        return is_import_path(self.engine)

    @property
    def serves_both_roles(self) -> bool:
        """True if one replica of this engine can score and rewrite."""
        return self.engine != "openai" and not self.has_custom_engine

    @model_validator(mode="after")
    def _minimum_within_maximum(self) -> Self:
        if self.min_replicas is not None and self.min_replicas > self.replicas:
            raise ValueError(
                f"min_replicas={self.min_replicas} is more than replicas={self.replicas}, the maximum"
            )
        return self


class ScorerConfig(ReplicaConfig):
    """Scorer replicas. With `role` both they also rewrite. `working_memory_gb` bounds the memory that a
    replica uses in addition to its weights (None: 1 GiB on a CPU, half of the free memory on a GPU);
    `chunk_examples` is the number of examples in one unit of work."""

    role: Literal["scorer", "both"] = "scorer"
    layout: Literal["auto", "system", "user", "plain"] = "auto"
    working_memory_gb: Annotated[
        Gigabytes | None, Changeable("the size of the pieces of work does not change its outcome")
    ] = None
    chunk_examples: Annotated[Positive, Field(le=1_000_000)] = 64


class RewriterConfig(ReplicaConfig):
    """Rewriter replicas and their sampling."""

    temperature: Temperature = 0.9
    top_p: Share = 0.95
    max_tokens: Annotated[Positive, Field(le=1_000_000)] = 512
    batch: Annotated[Positive, Field(le=10_000)] = 16

    def changed_replica_keys(self) -> tuple[str, ...]:
        """The keys about replicas, as opposed to sampling, that differ from their defaults."""
        plain = RewriterConfig()
        return tuple(
            name for name in ReplicaConfig.model_fields if getattr(self, name) != getattr(plain, name)
        )
