"""Measure how much a scorer and a rewriter slow each other on the CPU cores of one node.

    python -m benchmarks.sharing_cores [--seconds 12] [--threads 2] [--json FILE]

Each replica is a separate process, as under Ray. They are measured alone and together, for several settings
of the time that an idle OpenMP thread spins before it sleeps; actors/resources.py sets the one that loses
least.
Rows: {"waiting", "together", "scored_tokens_per_s", "generated_tokens_per_s"}.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pmpo_ray.types import Task

WAITING = {
    "default": {},
    "GOMP_SPINCOUNT=2000": {"GOMP_SPINCOUNT": "2000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
ROLES = ("scorer", "rewriter")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role is not None:
        replica(arguments.role, arguments.threads, arguments.seconds)
        return
    rows = []
    for name, environment in WAITING.items():
        for roles in (("scorer",), ("rewriter",), ROLES):
            rates = token_rates(roles, environment, arguments.threads, arguments.seconds)
            row = {
                "waiting": name,
                "together": len(roles) > 1,
                "scored_tokens_per_s": rates.get("scorer"),
                "generated_tokens_per_s": rates.get("rewriter"),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def token_rates(
    roles: tuple[str, ...], environment: dict[str, str], threads: int, seconds: float
) -> dict[str, float]:
    """Tokens per second of each role, all working at the same time."""
    env = {**os.environ, **environment, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.sharing_cores", "--seconds", str(seconds)]
    command += ["--threads", str(threads), "--role"]
    workers = [
        subprocess.Popen([*command, role], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for role in roles
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return {role: float(worker.communicate()[0]) for role, worker in zip(roles, workers, strict=True)}


def replica(role: str, threads: int, seconds: float) -> None:
    """Work for `seconds` after a line on standard input; print the tokens per second."""
    from pmpo_ray.config.tasks import TaskConfig
    from pmpo_ray.tasks import load_task

    task = load_task(TaskConfig(name="tickets"), None, 0)
    work = scoring(task, threads) if role == "scorer" else rewriting(task, threads)
    work(0)
    print("ready", flush=True)
    sys.stdin.readline()
    began, tokens, times = time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds:
        times += 1
        tokens += work(times)
    print(tokens / (time.perf_counter() - began))


def scoring(task: Task, threads: int) -> Callable[[int], int]:
    """Work of a scorer: score an instruction that no earlier call had; return the tokens computed."""
    from pmpo_ray.config.engines import DEFAULT_MODEL, ScorerConfig
    from pmpo_ray.engines.factory import create_scorer
    from pmpo_ray.types import ScoreRequest

    scorer = create_scorer(ScorerConfig(threads=threads), DEFAULT_MODEL)
    examples = task.examples[:24]
    return lambda n: scorer.score(ScoreRequest(f"{n}. {task.instruction}", examples)).tokens_computed


def rewriting(task: Task, threads: int) -> Callable[[int], int]:
    """Work of a rewriter: answer three requests; return the tokens written."""
    from pmpo_ray.config.engines import DEFAULT_MODEL, RewriterConfig
    from pmpo_ray.engines.factory import create_generator
    from pmpo_ray.search.writers.rewrite import rewrite_prompt, rewrite_shots
    from pmpo_ray.types import GenerateRequest

    generator = create_generator(RewriterConfig(threads=threads), DEFAULT_MODEL)
    prompts = [
        rewrite_prompt(
            "short",
            description=task.description,
            instruction=task.instruction,
            example=example,
            importances=(),
            max_chars=4000,
        )
        for example in task.examples[:3]
    ]

    def work(n: int) -> int:
        requests = [
            GenerateRequest(prompt, n=4, max_tokens=30, seed=100 * n, shots=rewrite_shots("short"))
            for prompt in prompts
        ]
        return sum(result.tokens for result in generator.generate(requests))

    return work


if __name__ == "__main__":
    main()
