"""The sections about engines: which model computes, where, and in how many replicas."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    field_validator,
    model_validator,
)

from pmpo_ray.config.base import NonNegative, Positive, Section
from pmpo_ray.config.import_paths import is_import_path

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


class VllmConfig(Section):
    """What the engine vllm alone is told. `kv_cache_gb` None means 1 GB on a CPU, and on a GPU what its share
    of the GPU leaves; `options` are further arguments of vLLM's AsyncEngineArgs."""

    kv_cache_gb: float | None = Field(default=None, gt=0)
    options: dict[str, Any] = Field(default_factory=dict)


class EndpointConfig(Section):
    """An OpenAI-compatible server, for the engine openai alone. `url` None means the client's own (the
    variable OPENAI_BASE_URL, else OpenAI's); the key is read from the variable `api_key_env` where the
    replica runs. `parameters` are further fields of every request."""

    url: str | None = None
    api_key_env: str | None = "OPENAI_API_KEY"
    concurrency: Positive = 16
    retries: NonNegative = 8
    timeout: float = Field(default=300.0, gt=0)
    parameters: dict[str, Any] = Field(default_factory=dict)

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
        # What is here is kept in the run folder: it must not be the key itself, nor may the message show it.
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            raise ValueError(
                "should be the name of an environment variable in capital letters, not the key itself"
            )
        return value


ENGINES = ("auto", "transformers", "vllm", "openai", "simulated")


def _engine(value: str) -> str:
    if value not in ENGINES and not is_import_path(value):
        raise ValueError(f"should be {', '.join(ENGINES)}, or module:name for an engine of your own")
    return value


Engine = Annotated[str, AfterValidator(_engine)]


class ReplicaConfig(Section):
    """What scorers and rewriters have in common. `model` None means the run's model; `replicas` are the
    most, `min_replicas` the fewest (None: as many)."""

    engine: Engine = "auto"
    model: str | None = None
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    trust_remote_code: bool = False
    replicas: Positive = 1
    min_replicas: NonNegative | None = None
    tensor_parallel: Positive = 1
    cpus: float = Field(default=1, gt=0)
    gpus: float | None = Field(default=None, ge=0)
    memory_gb: float | None = Field(default=None, gt=0)
    threads: Positive | None = None
    vllm: VllmConfig = VllmConfig()
    endpoint: EndpointConfig = EndpointConfig()

    @property
    def own_engine(self) -> bool:
        """Whether the engine is the user's, by its import path."""
        return is_import_path(self.engine)

    @property
    def serves_both_roles(self) -> bool:
        """Whether one replica of this engine can score and rewrite."""
        return self.engine != "openai" and not self.own_engine

    @model_validator(mode="after")
    def _at_least_no_more_than_at_most(self) -> Self:
        if self.min_replicas is not None and self.min_replicas > self.replicas:
            raise ValueError(
                f"min_replicas={self.min_replicas} is more than replicas={self.replicas}, which are the most"
            )
        return self


class ScorerConfig(ReplicaConfig):
    """Scorer replicas. With `role` both they are the rewriters, too. `working_memory_gb` bounds what a
    replica takes beside its weights (None: 1 GiB on a CPU, half of what is free on a GPU), `chunk_examples`
    the examples of one unit of work."""

    role: Literal["scorer", "both"] = "scorer"
    layout: Literal["auto", "system", "user", "plain"] = "auto"
    working_memory_gb: float | None = Field(default=None, gt=0)
    chunk_examples: Positive = 64


class RewriterConfig(ReplicaConfig):
    """Rewriter replicas and how they sample."""

    temperature: float = Field(default=0.9, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: Positive = 512
    batch: Positive = 16

    def beyond_sampling(self) -> tuple[str, ...]:
        """The keys that say where and what replicas are, as far as they were changed."""
        plain = RewriterConfig()
        return tuple(
            name for name in ReplicaConfig.model_fields if getattr(self, name) != getattr(plain, name)
        )
