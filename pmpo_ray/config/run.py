"""The configuration of a run: the only place where defaults live.

Invariants: an unknown key is an error that names its path; a loaded configuration is frozen; reading one
imports neither ray nor torch. configs/README.md documents every key.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pmpo_ray.config.import_paths import is_import_path

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    # No value in errors of a model that is made in Python: it may be a key that was put in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), hide_input_in_errors=True)


class ColumnsConfig(_Section):
    """Which column of a data file holds what."""

    input: str = "input"
    target: str = "target"
    negatives: str | None = None
    weight: str | None = None


class TaskConfig(_Section):
    """A task: a registered name alone, or own data from a file, a hub data set, or a function, which returns
    a Task or rows. `given` says that the data
    were handed over in Python, and that the run folder keeps them."""

    name: str = Field(min_length=1)
    path: str | None = None
    hub: str | None = None
    hub_config: str | None = None
    hub_split: str = "train"
    function: str | None = None
    given: bool = False
    test_path: str | None = None
    columns: ColumnsConfig = ColumnsConfig()
    labels: tuple[str, ...] | None = None
    instruction: str | None = None
    description: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> TaskConfig:
        if self.path is not None and self.hub is not None:
            raise ValueError("give either path or hub, not both")
        own = self.path is self.hub is self.test_path is None
        if self.given and not (own and self.function is None):
            raise ValueError("given=true has its own data: leave out path, hub, function and test_path")
        if self.function is not None and not own:
            raise ValueError("a function makes all of the data: leave out path, hub and test_path")
        if self.function is not None and not is_import_path(self.function):
            raise ValueError(f"function: {self.function!r:.80} should be module:name")
        return self


class SplitConfig(_Section):
    """How a task's examples are parted (paper: 20%, at most 50, drawn at random). `validation` examples, on
    which the final instruction is picked, are drawn after them (paper: none)."""

    train_fraction: float = Field(default=0.2, gt=0, lt=1)
    train_max: Positive = 50
    shots: NonNegative = 0
    validation: NonNegative = 0


class VllmConfig(_Section):
    """What the engine vllm alone is told. `kv_cache_gb` None means 1 GB on a CPU, and on a GPU what its share
    of the GPU leaves; `options` are further arguments of vLLM's AsyncEngineArgs."""

    kv_cache_gb: float | None = Field(default=None, gt=0)
    options: dict[str, Any] = {}


class EndpointConfig(_Section):
    """An OpenAI-compatible server, for the engine openai alone. `url` None means the client's own (the
    variable OPENAI_BASE_URL, else OpenAI's); the key is read from the variable `api_key_env` where the
    replica runs. `parameters` are further fields of every request."""

    url: str | None = None
    api_key_env: str | None = "OPENAI_API_KEY"
    concurrency: Positive = 16
    retries: NonNegative = 8
    timeout: float = Field(default=300.0, gt=0)
    parameters: dict[str, Any] = {}

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


class ReplicaConfig(_Section):
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


class SearchConfig(_Section):
    """The method's settings (paper: 20 rounds, 3 hard examples, 4 variants, one lineage). `operators` are
    what proposes instructions; masking is a setting of its own. `calibrate` takes from each label's
    log-likelihood that behind an input without content, in tasks with labels."""

    rounds: NonNegative = 20
    hard_examples: Positive = 3
    variants: Positive = 4
    population: Positive = 1
    max_siblings: Positive | None = None
    masking: Literal["model", "rules", "off"] = "model"
    mask_mode: Literal["drop", "token"] = "drop"
    mask_token: str = "[MASK]"
    max_segments: Positive = 5
    hard_case_selection: bool = True
    objective: str = "auto"
    operators: tuple[str, ...] = ("rewrite",)
    beta: float = Field(default=1.0, gt=0)
    per_token: bool = False
    calibrate: bool = False
    meta_prompt: Literal["auto", "long", "short"] = "auto"
    max_instruction_chars: Positive = 4000
    reasks: NonNegative = 1
    patience: Positive | None = None
    target_loss: float | None = None
    max_tokens: Positive | None = None
    max_seconds: float | None = Field(default=None, gt=0)

    @field_validator("operators")
    @classmethod
    def _rewriting_or_own(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for operator in value:
            if operator != "rewrite" and not is_import_path(operator):
                raise ValueError(
                    f"{operator!r:.80} should be rewrite, or module:name of an operator of your own"
                )
        if len(set(value)) < len(value):
            raise ValueError("an operator is named twice; name each once")
        return value


class EvaluatorConfig(_Section):
    """A model that tells whether a reply comes to the target; without `model` rules do."""

    model: str | None = None
    engine: Engine = "openai"
    endpoint: EndpointConfig = EndpointConfig()


class JudgeConfig(_Section):
    """The judge of AlpacaEval, for tasks of better and worse answers: whether it is asked for one token,
    whose log-likelihoods count (`weighted`), or for a ranking in words (`plain`). `references` is a file of
    outputs in AlpacaEval's format (None: the outputs under the start instruction)."""

    model: str | None = None
    annotator: Literal["weighted", "plain"] = "weighted"
    references: str | None = None
    endpoint: EndpointConfig = EndpointConfig()


class ProcessRewardConfig(_Section):
    """A process-reward model that rates the steps of generated replies; none without `model`. `separator` is
    the text or token that ends a step (None: what the model is known to use)."""

    model: str | None = None
    separator: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    gpus: float | None = Field(default=None, ge=0)


Baseline = Literal["answer_only", "step_by_step", "rephrase", "step_back", "description"]


class EvaluationConfig(_Section):
    """Held-out accuracy. A run measures its first and its best instruction so; `pmpo evaluate` also takes
    `models` (none: the scorer's), `baselines`, `instructions` by name (a text, or a file as @PATH),
    `shots` (None: those of the split), `seeds` repetitions and, with `candidates`, all candidates of a run.

    `limit` bounds the test examples of a task. `method` auto chooses among given answers by likelihood where
    there are some and generates elsewhere. `temperature` 0 is greedy. With `follow_up` a reply in which no
    answer is found is asked for the answer alone once more. `evaluator` is a model that compares replies with
    the targets, in place of rules; `judge` compares whole answers with others; `process_reward` rates the
    steps of replies. `calibrate` is as in the search (None: as the search had it)."""

    enabled: bool = True
    limit: Positive | None = None
    method: Literal["auto", "likelihood", "generation"] = "auto"
    calibrate: bool | None = None
    max_tokens: Positive = 256
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    follow_up: bool = True
    seeds: Positive = 1
    models: tuple[str, ...] = ()
    baselines: tuple[Baseline, ...] = ("description",)
    instructions: dict[str, str] = {}
    shots: tuple[NonNegative, ...] | None = None
    candidates: Literal["best", "all"] = "best"
    evaluator: EvaluatorConfig = EvaluatorConfig()
    judge: JudgeConfig = JudgeConfig()
    process_reward: ProcessRewardConfig = ProcessRewardConfig()


class RayConfig(_Section):
    """Where to run. `address` None: the cluster that RAY_ADDRESS names, else a local Ray of this process.

    Timeouts in seconds: for a replica to load once it is placed, for a pool to be without any working
    replica, and for a surplus replica to be idle before it is given back.
    """

    address: str | None = None
    num_cpus: Positive | None = None
    num_gpus: NonNegative | None = None
    autoscaling: bool = False
    start_timeout: float = Field(default=300.0, gt=0)
    outage_timeout: float = Field(default=600.0, gt=0)
    idle_timeout: float = Field(default=60.0, ge=0)


class MlflowConfig(_Section):
    """A run in MLflow. `uri` None: what MLFLOW_TRACKING_URI names, else MLflow's own default."""

    uri: str | None = None
    experiment: str = Field(default="pmpo", min_length=1)
    register_prompts: bool = True

    @field_validator("uri")
    @classmethod
    def _without_password(cls, value: str | None) -> str | None:
        # What is here is kept in the run folder, and the message must not show it either.
        if value is not None and "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("must hold no credentials; give such an address in MLFLOW_TRACKING_URI")
        return value


class WandbConfig(_Section):
    """A run in Weights & Biases. What is None is for wandb's own variables and settings to say."""

    project: str = Field(default="pmpo", min_length=1)
    entity: str | None = None
    mode: Literal["online", "offline", "disabled"] | None = None


class TensorboardConfig(_Section):
    """A run in TensorBoard. `log_dir` None: the folder tensorboard in the run folder."""

    log_dir: str | None = None


class TrackingConfig(_Section):
    """Where a run is shown while it goes on; nowhere by default. `true` stands for a section of defaults."""

    mlflow: MlflowConfig | None = None
    wandb: WandbConfig | None = None
    tensorboard: TensorboardConfig | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _on_or_off(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value


class RunConfig(_Section):
    """One run: which tasks, which models, how to search, where to keep the result. With a `grid` every task
    is optimised once for each of its entries, which change `search`, over the same pools."""

    tasks: tuple[TaskConfig, ...] = Field(default=(TaskConfig(name="tickets"),), min_length=1)
    data_dir: str | None = None
    model: str = DEFAULT_MODEL
    scorer: ScorerConfig = ScorerConfig()
    rewriter: RewriterConfig = RewriterConfig()
    search: SearchConfig = SearchConfig()
    grid: dict[str, dict[str, Any]] = {}
    split: SplitConfig = SplitConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ray: RayConfig = RayConfig()
    tracking: TrackingConfig = TrackingConfig()
    run_dir: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _distinct_tasks(self) -> RunConfig:
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"task {twice[0]!r} is named more than once; give each task its own name")
        return self

    @model_validator(mode="after")
    def _grid_of_searches(self) -> RunConfig:
        for name, changes in self.grid.items():
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
                raise ValueError(f"grid: {name!r} should be a name of small letters, digits and hyphens")
            unknown = sorted(changes.keys() - SearchConfig.model_fields.keys())
            if unknown:
                raise ValueError(f"grid.{name}.{unknown[0]}: search has no such key")
            try:
                self.searches()
            except ValidationError as error:
                detail = error.errors(include_url=False)[0]
                key = ".".join(map(str, detail["loc"]))
                raise ValueError(f"grid.{name}.{key}: {detail['msg']}") from None
        return self

    def searches(self) -> dict[str, SearchConfig]:
        """How each task is searched, by the name of the grid's entry; "" where there is no grid."""
        plain = self.search.model_dump()
        changed = {
            name: SearchConfig.model_validate(plain | changes, strict=True)
            for name, changes in self.grid.items()
        }
        return changed or {"": self.search}

    @model_validator(mode="after")
    def _one_model_in_both_roles(self) -> RunConfig:
        changed = self.rewriter.beyond_sampling()
        if self.scorer.role == "both" and changed:
            raise ValueError(
                f"rewriter.{changed[0]} has no effect with scorer.role=both, where the scorer's replicas "
                "rewrite; leave it out"
            )
        if self.scorer.role == "both" and self.scorer.own_engine:
            raise ValueError("scorer.role=both: an engine of your own has one role; leave out the role")
        if self.scorer.role == "both" and not self.scorer.serves_both_roles:
            raise ValueError(
                "scorer.role=both: an endpoint is no replica of this run; give scorer and rewriter the same "
                "endpoint.url instead"
            )
        return self
