"""gepa: reflective mutation with feedback in words, and a Pareto front of candidates."""

from __future__ import annotations

import os
from typing import Any

# Without it litellm fetches a list of prices when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

from gepa.adapters.default_adapter.default_adapter import DefaultAdapter, EvaluationResult
from gepa.api import optimize

from benchmarks.peers.job import CONCURRENCY, Job, LabelledRow, first_label


def run(_: str, job: Job) -> dict[str, Any]:
    """The outcome of one search. It reflects on one half of the rows and selects on the other."""
    reflected, selected = job.halves()
    errors: Any = _Errors(job)

    def rated(data: Any, response: str) -> EvaluationResult:
        return _rated(job, data["answer"], response)

    adapter = DefaultAdapter(
        model=f"openai/{job.model}",
        evaluator=rated,
        max_litellm_workers=CONCURRENCY,
        litellm_batch_completion_kwargs={**job.answering, "api_base": job.task_url, "api_key": "none"},
    )
    try:
        result: Any = optimize(  # type: ignore[misc, unused-ignore]
            seed_candidate={"instruction": job.start},
            trainset=_rows(reflected),
            valset=_rows(selected),
            adapter=adapter,
            reflection_lm=f"openai/{job.model}",
            reflection_lm_kwargs={**job.rewriting, "api_base": job.rewriter_url, "api_key": "none"},
            # It counts calls itself, not tokens, so that the proxy tells when to stop.
            stop_callbacks=lambda _: errors.other is not None or job.spent(),
            callbacks=[errors],
            # A refused request must not end the search with an error: what was found until then counts.
            raise_on_exception=False,
            # Answers at temperature 0 need no second asking; the other libraries keep them by default.
            cache_evaluation=True,
            seed=job.seed,
            run_dir=f"{job.folder}/gepa",
        )
    except Exception:
        # The rows under the start instruction are scored outside of what raise_on_exception covers.
        if not job.spent():
            raise
        return {"instruction": job.start}
    if errors.other is not None:
        raise errors.other
    return {
        "instruction": result.best_candidate["instruction"],
        "own_score": result.val_aggregate_scores[result.best_idx],
        "candidates": result.num_candidates,
    }


class _Errors:
    """The first error that is not a refusal: it ends the search, and is raised after it."""

    def __init__(self, job: Job) -> None:
        self.other: Exception | None = None
        self._job = job

    def on_error(self, event: Any) -> None:
        if self.other is None and not self._job.spent():
            self.other = event["exception"]


def _rows(rows: list[LabelledRow]) -> list[dict[str, Any]]:
    return [{"input": row.input, "answer": row.target, "additional_context": {}} for row in rows]


def _rated(job: Job, target: str, reply: str) -> EvaluationResult:
    """1 or 0 by the answer rule, with feedback that tells the rule."""
    found = first_label(reply, job.labels)
    if found == target:
        return EvaluationResult(1.0, f"Right: {target}.")
    read = "no label was read" if found is None else f"{found} was read"
    return EvaluationResult(
        0.0,
        f"Wrong: {target} is right, and {read}. The answer is the first of the labels "
        f"{', '.join(job.labels)} in the first {job.answering['max_tokens']:g} tokens of the response.",
    )
