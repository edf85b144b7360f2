"""pmpo_ray, with its defaults for an application that generates answers, through its public interface.

It scores with its own engine in its own process, and rewrites with the shared server. `pmpo` shows no
demonstrations, as none of the peers does; `pmpo_demos` has them, as its default is.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.peers.job import Job
from pmpo_ray import optimize

_ENOUGH_ROUNDS = 100_000
"""The budget ends the search, not the number of rounds."""


def run(name: str, job: Job) -> dict[str, Any]:
    """The outcome of one search."""
    demonstrations = {"demonstrations": 0} if name == "pmpo" else {}
    result = optimize(
        pd.DataFrame([asdict(row) for row in job.train]),
        name=job.task,
        labels=job.labels,
        instruction=job.start,
        description=job.description,
        max_tokens=job.budget,
        rounds=_ENOUGH_ROUNDS,
        run_dir=Path(job.folder) / "run",
        model=job.weights,
        use="generate",
        seed=job.seed,
        # What `auto` means for a model of this size; the server does not tell it.
        search={**demonstrations, "operators": ["compose"], "meta_prompt": "short"},
        scorer={"layout": "system"},
        rewriter={
            "engine": "openai",
            "model": job.model,
            "endpoint": {"url": job.rewriter_url, "api_key_env": None},
            "top_p": 1.0,
            **job.rewriting,
        },
        split={"train_fraction": 1, "train_max": len(job.train)},
        evaluation={"enabled": False},
    )
    [found] = result.tasks
    return {
        "instruction": found.best,
        "shots": [asdict(shot) for shot in found.shots],
        # The proxy counts what the rewriter reads and writes.
        "own_tokens": found.tokens_scored,
        "own_score": -found.loss_after,
        "stopped": found.stopped,
        "rounds": found.rounds,
        "rewriter_tokens": found.tokens_prompted + found.tokens_generated,
        "search_seconds": round(found.seconds, 1),
        "candidates": len(result.candidates()),
    }
