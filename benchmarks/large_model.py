"""Time all scoring of one paper-sized optimisation with a model of a large model's shape.

    python -m benchmarks.large_model [--shape qwen2.5-14b|tiny] [--rounds 20] [--device cpu|cuda]
                                     [--data-dir FOLDER] [--json FILE]

A round scores 13 instructions on 50 examples of six BIG-Bench Hard tasks, and then five variants of the first
one with a segment masked. The weights are random, made on the device in bf16: what is computed, and for how
long, depends on shapes and token counts alone. Token ids are those of the default model's tokenizer.

Invariant: no instruction occurs twice, so that only what a search would reuse is reused; every scoring call
counts, tokenising does not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from benchmarks.scoring import processes
from benchmarks.scoring.instructions import INSTRUCTIONS, sentences
from benchmarks.scoring.results import machine
from benchmarks.scoring.work import LeastWork, ModelShape, finish, least_work, matmul_rates, model_shape
from benchmarks.scoring.workloads import Request, default_data_dir, encode, workload_texts
from pmpo_ray.engines.hf.devices import choose_device
from pmpo_ray.engines.hf.likelihood import LikelihoodEngine
from pmpo_ray.engines.hf.tree_attention import Kernel
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.engines.weights.loading import load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import PmpoError, ResourceError
from pmpo_ray.search.masking import rule_segments, without

Device = Literal["cpu", "cuda"]

SHAPES: Mapping[str, Callable[[], Qwen2Config]] = {
    "qwen2.5-14b": lambda: Qwen2Config(
        vocab_size=152064,
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=48,
        num_attention_heads=40,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    ),
    "tiny": lambda: Qwen2Config(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    ),
}

KERNELS: Mapping[Device, tuple[Kernel, ...]] = {"cpu": ("matmul",), "cuda": ("sdpa", "matmul")}
"""Attention kernels of a device: the engine's default first, then others to compare."""

MASKED = 5
"""Segments of the parent that a round's mask analysis removes, one at a time."""


@dataclass(frozen=True, slots=True)
class Round:
    """The cost of one round: seconds over its scoring calls, and its least work."""

    seconds: float
    median_call_seconds: float
    tokens_computed: int
    unique_tokens: int
    gflop: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The scoring of a whole optimisation. `useful_mfu` is its least work, divided by the work that the
    device could do in `seconds` at the model's shapes; `first_round_seconds` is by kernel; `fallback` is the
    engine's, empty for none."""

    shape: str
    parameters: int
    dtype: str
    kernel: Kernel
    fallback: str
    calls: int
    seconds: float
    median_call_seconds: float
    triples: int
    tokens_computed: int
    unique_tokens: int
    gflop: float
    matmul_gflops: float
    useful_mfu: float
    peak_memory_mb: float | None
    first_round_seconds: Mapping[Kernel, float]
    rounds: tuple[Round, ...]

    def summary(self) -> str:
        """The outcome as text of a few lines."""
        peak = "unknown" if self.peak_memory_mb is None else f"{self.peak_memory_mb:,.0f} MB"
        lines = [
            f"{self.shape}: {self.parameters / 1e9:.2f} billion random parameters, {self.dtype}, "
            f"kernel {self.kernel}{self.fallback and f'; {self.fallback}'}",
            f"{len(self.rounds)} rounds: {self.calls} scoring calls, {self.triples:,} triples in "
            f"{self.seconds:.2f} s; median {self.median_call_seconds:.3f} s a call",
            f"{self.tokens_computed:,} tokens computed, at least {self.unique_tokens:,} and "
            f"{self.gflop:,.0f} GFLOP needed; useful MFU {self.useful_mfu:.1%} of "
            f"{self.matmul_gflops:,.0f} GFLOP/s at the model's shapes; peak memory {peak}",
        ]
        by_kernel = (f"{kernel} {seconds:.2f} s" for kernel, seconds in self.first_round_seconds.items())
        lines.append(f"the first round by kernel: {', '.join(by_kernel)}")
        return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parsed(argv)
    try:
        outcome = measured(arguments.shape, arguments.rounds, arguments.device, arguments.data_dir)
    except PmpoError as error:
        print(f"benchmarks.large_model: {error}", file=sys.stderr)
        sys.exit(2)
    print(outcome.summary())
    if arguments.json is not None:
        content = {"machine": machine(arguments.device, torch.get_num_threads()), **asdict(outcome)}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), default="qwen2.5-14b")
    parser.add_argument("--rounds", type=_positive, default=20)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data-dir", type=Path, default=default_data_dir(), help="folder with bbh/")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def measured(
    shape: str, rounds: int, device: Device, data_dir: Path, *, examples: int | None = None
) -> Outcome:
    """Score `rounds` rounds on the first `examples` examples, by default on all 50.

    Raises PmpoError if the device, its memory, the tokenizer or the data is not available.
    """
    choose_device(device)
    torch.set_num_threads(os.cpu_count() or 1)
    config = SHAPES[shape]()
    sizes = model_shape(config)
    _check_room(shape, sizes, device)
    requests_by_round = _requests(rounds, data_dir, examples)
    works = [least_work(requests, sizes) for requests in requests_by_round]
    needed = _summed(works)
    rate = matmul_rates(sizes, torch.bfloat16, device).at_own_shapes(sizes, needed)
    model = random_model(config, device)
    kernel, *others = KERNELS[device]
    engine = _warmed(model, kernel, requests_by_round[0])
    calls = [_timed(engine, requests, device) for requests in requests_by_round]
    peak, fallback = _peak_mb(device), engine.fallback
    del engine  # and free its memory for the next one
    warm = requests_by_round[0]
    first = {other: _timed(_warmed(model, other, warm), warm, device).total for other in others}
    seconds = sum(timed.total for timed in calls)
    return Outcome(
        shape=shape,
        parameters=model.num_parameters(),
        dtype=str(model.dtype).removeprefix("torch."),
        kernel=kernel,
        fallback=fallback,
        calls=sum(len(timed.seconds) for timed in calls),
        seconds=seconds,
        median_call_seconds=statistics.median(each for timed in calls for each in timed.seconds),
        triples=sum(map(_triples, requests_by_round)),
        tokens_computed=sum(timed.tokens for timed in calls),
        unique_tokens=needed.unique_tokens,
        gflop=needed.total / 1e9,
        matmul_gflops=rate / 1e9,
        useful_mfu=needed.total / (seconds * rate),
        peak_memory_mb=peak,
        first_round_seconds={kernel: calls[0].total, **first},
        rounds=tuple(map(_round, calls, works)),
    )


def optimisation(rounds: int) -> tuple[tuple[str, ...], ...]:
    """The instructions that each round scores: a parent and its twelve rewrites, then the parent without each
    of five segments. The first round's are those of the workload `round`; in later ones, each has as many
    sentences, drawn from all of them. No text occurs twice."""
    draw = random.Random(0)
    pool = [sentence for text in INSTRUCTIONS for sentence in sentences(text)]
    seen: set[str] = set()
    texts: list[tuple[str, ...]] = []
    for number in range(rounds):
        made: list[str] = []
        for text in INSTRUCTIONS:
            new = text if number == 0 else ""
            while not new or new in seen:
                new = " ".join(draw.sample(pool, len(sentences(text))))
            seen.add(new)
            made.append(new)
        made += (
            without(made[0], segment, mode="drop", mask_token="")
            for segment in rule_segments(made[0], MASKED)
        )
        texts.append(tuple(made))
    return tuple(texts)


def random_model(config: Qwen2Config, device: Device) -> PreTrainedModel:
    """A model of that configuration in bf16, its weights drawn on the device from N(0, 0.02^2)."""
    torch.manual_seed(0)
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model.train(False)
    model.requires_grad_(False)
    return model


def _check_room(shape: str, sizes: ModelShape, device: Device) -> None:
    """Raises ResourceError if the weights alone don't fit, before the system kills the process."""
    needed = 2 * (sizes.body_weights + 2 * sizes.hidden * sizes.vocabulary)
    available = torch.cuda.mem_get_info()[0] if device == "cuda" else processes.total_bytes()
    if needed >= available:
        raise ResourceError(
            f"--shape {shape}: its weights take {needed / 1e9:.1f} GB, but device {device} has "
            f"{available / 1e9:.1f} GB; use a larger device (--device cuda) or --shape tiny"
        )


def _requests(rounds: int, data_dir: Path, examples: int | None) -> list[tuple[Request, ...]]:
    """The token ids that each round scores."""
    texts = workload_texts("round", data_dir)
    texts = replace(texts, examples=texts.examples[:examples])
    tokenizer = load_tokenizer(resolve_model(texts.model), trust_remote_code=False)
    encoder = PromptEncoder(tokenizer, texts.layout)
    return [
        encode("round", replace(texts, instructions=instructions), encoder).requests
        for instructions in optimisation(rounds)
    ]


@dataclass(frozen=True, slots=True)
class _Timed:
    """Seconds of a round's calls, and the tokens that went through the model."""

    seconds: tuple[float, ...]
    tokens: int

    @property
    def total(self) -> float:
        return sum(self.seconds)


def _warmed(model: PreTrainedModel, kernel: Kernel, requests: Sequence[Request]) -> LikelihoodEngine:
    """An engine that has run once and caches nothing."""
    # An engine plans with the free memory, which excludes memory that torch keeps for reuse.
    torch.cuda.empty_cache()
    engine = LikelihoodEngine(model, kernel=kernel)
    engine.score(requests[-1])
    engine.forget()
    return engine


def _timed(engine: LikelihoodEngine, requests: Sequence[Request], device: Device) -> _Timed:
    seconds: list[float] = []
    tokens = 0
    for request in requests:
        finish(device)
        began = time.perf_counter()
        tokens += engine.score(request).tokens_computed
        finish(device)
        seconds.append(time.perf_counter() - began)
    return _Timed(tuple(seconds), tokens)


def _round(timed: _Timed, work: LeastWork) -> Round:
    return Round(
        seconds=timed.total,
        median_call_seconds=statistics.median(timed.seconds),
        tokens_computed=timed.tokens,
        unique_tokens=work.unique_tokens,
        gflop=work.total / 1e9,
    )


def _summed(works: Sequence[LeastWork]) -> LeastWork:
    return LeastWork(
        unique_tokens=sum(work.unique_tokens for work in works),
        scored_rows=sum(work.scored_rows for work in works),
        body=sum(work.body for work in works),
        attention=sum(work.attention for work in works),
        head=sum(work.head for work in works),
    )


def _triples(requests: Sequence[Request]) -> int:
    return sum(len(item.answers) for request in requests for item in request)


def _peak_mb(device: Device) -> float | None:
    """The most memory that torch held on the GPU, or the process on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else processes.peak_mb(os.getpid())


if __name__ == "__main__":
    main()
