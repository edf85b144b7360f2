"""Measure the speed of rewriting: vLLM and transformers.

    python -m benchmarks.rewriting [--json FILE] [--repetitions 3]

12 variants of about 200 tokens for 3 hard examples, from the project's own rewriting requests: `vllm`, the
project's vLLM generator, which gets the three requests at once; `transformers`, the library's own
`generate` with the three prompts in one padded batch; `pmpo`, the project's transformers generator. Texts end
where the model ends them, or at 200 tokens. Every measurement runs in a separate process, after a warm-up;
the contestants take turns; the rows are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from pmpo_ray.config.engines import DEFAULT_MODEL, RewriterConfig
from pmpo_ray.config.tasks import SplitConfig, TaskConfig
from pmpo_ray.search.writers.rewrite import rewrite_prompt
from pmpo_ray.types import GenerateRequest

EXAMPLES, VARIANTS, TOKENS = 3, 4, 200
WARM_UP = 8


def rewrite_requests(tokens: int) -> list[GenerateRequest]:
    """The rewriting requests of a round of the built-in task."""
    from pmpo_ray.tasks import load_task, split_task

    task = load_task(TaskConfig(name="tickets"), None, 0)
    hard = split_task(task, SplitConfig(), 0).train[:EXAMPLES]
    return [
        GenerateRequest(
            rewrite_prompt(
                "long",
                description=task.description,
                instruction=task.instruction,
                example=example,
                importances=(),
                max_chars=4000,
            ),
            n=VARIANTS,
            max_tokens=tokens,
            temperature=0.9,
            top_p=0.95,
            seed=100 * number,
        )
        for number, example in enumerate(hard)
    ]


def measure(contestant: str, dtype: str, threads: int) -> dict[str, float]:
    """Tokens and seconds of one contestant in this process."""
    write = {"vllm": _vllm, "transformers": _transformers, "pmpo": _pmpo}[contestant](dtype, threads)
    write(rewrite_requests(WARM_UP))
    began = time.perf_counter()
    tokens = write(rewrite_requests(TOKENS))
    return {"tokens": tokens, "seconds": time.perf_counter() - began}


Writer = Callable[[Sequence[GenerateRequest]], int]
"""Answers requests and returns the number of tokens written."""


def _vllm(dtype: str, threads: int) -> Writer:
    from pmpo_ray.engines.vllm.engine import VllmEngine
    from pmpo_ray.engines.vllm.generator import VllmGenerator

    loop = asyncio.new_event_loop()
    config = RewriterConfig.model_validate({"engine": "vllm", "dtype": dtype, "threads": threads})
    generator = VllmGenerator(loop.run_until_complete(VllmEngine.start(config, DEFAULT_MODEL)))
    # Otherwise its processes would outlive this one.
    atexit.register(generator.close)

    async def write(requests: Sequence[GenerateRequest]) -> int:
        return sum(result.tokens for result in await asyncio.gather(*map(generator.generate, requests)))

    return lambda requests: loop.run_until_complete(write(requests))


def _pmpo(dtype: str, threads: int) -> Writer:
    from pmpo_ray.engines.factory import create_generator

    config = RewriterConfig.model_validate({"engine": "transformers", "dtype": dtype, "threads": threads})
    generator = create_generator(config, DEFAULT_MODEL)
    return lambda requests: sum(result.tokens for result in generator.generate(requests))


def _transformers(dtype: str, threads: int) -> Writer:
    import torch

    from pmpo_ray.engines.generation_prompt import RequestEncoder
    from pmpo_ray.engines.hf.loading import load_replica

    config = RewriterConfig.model_validate({"dtype": dtype, "threads": threads})
    loaded = load_replica(DEFAULT_MODEL, config)
    encoder, tokenizer = RequestEncoder(loaded.tokenizer, 8192), loaded.tokenizer
    end = encoder.own.end_of_turn[-1]

    def write(requests: Sequence[GenerateRequest]) -> int:
        prompts = [list(encoder.prompt(request)) for request in requests]
        batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        torch.manual_seed(0)
        written = loaded.model.generate(
            **batch,
            do_sample=True,
            temperature=requests[0].temperature,
            top_p=requests[0].top_p,
            top_k=0,
            num_return_sequences=requests[0].n,
            max_new_tokens=requests[0].max_tokens,
            eos_token_id=end,
            pad_token_id=end,
        )[:, batch["input_ids"].shape[1] :]
        # Tokens up to each row's first end, inclusive; the rest is padding.
        ended = (written == end).long().cumsum(dim=1)
        return int(((ended - (written == end).long()) == 0).sum())

    return write


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rewriting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to write the rows to")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    if options.contestant:
        print(json.dumps(measure(options.contestant, options.dtype, threads)), flush=True)
        return
    names = ("vllm", "transformers", "pmpo")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.repetitions):
        for name in names:
            runs[name].append(_in_child(name, options.dtype, threads))
    rows = [
        {
            "contestant": name,
            "tokens_per_s": round(median(run["tokens"] / run["seconds"] for run in results), 1),
            "seconds": round(median(run["seconds"] for run in results), 2),
            "tokens": median(run["tokens"] for run in results),
            "dtype": options.dtype,
            "threads": threads,
            "runs": len(results),
        }
        for name, results in runs.items()
    ]
    slowest = next(row["tokens_per_s"] for row in rows if row["contestant"] == "transformers")
    print(f"{'contestant':>14}  {'tokens/s':>9}  {'seconds':>8}  {'tokens':>7}  over transformers")
    for row in rows:
        ratio = float(str(row["tokens_per_s"])) / float(str(slowest))
        print(
            f"{row['contestant']!s:>14}  {row['tokens_per_s']!s:>9}  {row['seconds']!s:>8}  "
            f"{row['tokens']!s:>7}  {ratio:.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _in_child(contestant: str, dtype: str, threads: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rewriting", "--contestant", contestant, "--dtype", dtype],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{contestant} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
