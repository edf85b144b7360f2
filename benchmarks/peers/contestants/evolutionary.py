"""CAPO, EvoPrompt (its genetic algorithm) and OPRO, as promptolution has them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from promptolution.llms import APILLM
from promptolution.optimizers import CAPO, OPRO, EvoPromptGA
from promptolution.predictors.base_predictor import BasePredictor
from promptolution.tasks import ClassificationTask
from promptolution.utils.callbacks import BaseCallback
from promptolution.utils.prompt_creation import create_prompt_variation
from promptolution.utils.templates import OPRO_TEMPLATE_TD

from benchmarks.peers.job import CONCURRENCY, Job, first_label

_VARIATIONS = 5
"""Texts beside the start instruction in a population that is crossed."""
_BLOCK = 10
"""Rows on which CAPO's candidates race at a time."""
_ENOUGH_STEPS = 100_000
"""The budget ends the search, not the number of steps."""


def run(name: str, job: Job) -> dict[str, Any]:
    """The outcome of one search; all of them use all rows for both purposes."""
    random.seed(job.seed)
    np.random.seed(job.seed)
    rewriter = _model(job, job.rewriter_url, job.rewriting)
    steps = _Steps(job)
    try:
        optimizer = _optimizer(name, job, rewriter, steps)
        optimizer.optimize(n_steps=_ENOUGH_STEPS)
    except Exception:
        # Refused in the first evaluation or before it. What a later step raises the library catches itself.
        if not job.spent():
            raise
        return {"instruction": job.start}
    if not job.spent():
        raise RuntimeError(f"{name} stopped before its budget was spent; the error is above")
    if len(optimizer.scores) == 0:
        return _still_racing(optimizer.task, job)
    best = int(np.argmax(optimizer.scores))
    return {
        "instruction": optimizer.prompts[best].construct_prompt(),
        "own_score": float(optimizer.scores[best]),
        "steps": steps.finished,
    }


def _still_racing(task: ClassificationTask, job: Job) -> dict[str, Any]:
    """The best of the texts that were scored on most rows. CAPO has no result before its first step ends, and
    a small budget ends within that step, when some of its texts have already lost the race."""
    scores: dict[str, list[float]] = {}
    for (text, _, _), score in task.eval_cache.items():
        scores.setdefault(text, []).append(score)
    most = max(map(len, scores.values()), default=0)
    means = {text: float(np.mean(own)) for text, own in scores.items() if len(own) == most}
    best = max(means, key=lambda text: means[text], default=job.start)
    return {"instruction": best, "own_score": means.get(best), "steps": 0}


def _optimizer(name: str, job: Job, rewriter: Any, steps: _Steps) -> Any:
    rows = pd.DataFrame([asdict(row) for row in job.train])
    task = ClassificationTask(
        rows,
        task_description=job.description,
        x_column="input",
        y_column="target",
        n_subsamples=_BLOCK,
        eval_strategy="sequential_block" if name == "capo" else "full",
        seed=job.seed,
    )
    shared: dict[str, Any] = {
        "predictor": _PlainAnswers(job),
        "task": task,
        "meta_llm": rewriter,
        "callbacks": [steps],
    }
    if name == "opro":
        # Of its two templates, the one with a place for the description.
        return OPRO(initial_prompts=[job.start], prompt_template=OPRO_TEMPLATE_TD, **shared)
    # These two cross texts with each other. Their first ones are paid for from the budget.
    population = [job.start, *create_prompt_variation([job.start] * _VARIATIONS, rewriter)]
    if name == "evoprompt":
        return EvoPromptGA(initial_prompts=population, **shared)
    return CAPO(
        initial_prompts=population,
        upper_shots=0,
        # Without demonstrations it needs no rows set apart for them.
        df_few_shots=rows.iloc[:0],
        max_n_blocks_eval=len(rows) // _BLOCK,
        **shared,
    )


class _Steps(BaseCallback):  # type: ignore[misc, unused-ignore]
    """Counts steps, and ends the search once its budget is spent."""

    def __init__(self, job: Job) -> None:
        self.finished = 0
        self._job = job

    def on_step_end(self, optimizer: Any) -> bool:
        self.finished += 1
        return not self._job.spent()


class _PlainAnswers(BasePredictor):  # type: ignore[misc, unused-ignore]
    """Answers in the form of the evaluation. The library's own predictors put instruction and input into one
    turn, and take a reply without a label for the first class."""

    def __init__(self, job: Job) -> None:
        super().__init__(_model(job, job.task_url, job.answering))
        self.extraction_description = (
            f"The answer is the first of these labels that occurs in the output: {', '.join(job.labels)}."
        )
        self._labels = job.labels

    def predict(self, prompts: Any, xs: list[str], system_prompts: Any = None) -> tuple[list[str], list[str]]:
        replies = self.llm.get_response(list(xs), system_prompts=[str(prompt) for prompt in prompts])
        return self._extract_preds(replies), [f"{x}\n{reply}" for x, reply in zip(xs, replies, strict=True)]

    def _extract_preds(self, preds: list[str]) -> list[str]:
        return [first_label(reply, self._labels) or "" for reply in preds]


def _model(job: Job, url: str, sampling: Mapping[str, float]) -> Any:
    return APILLM(
        model_id=job.model,
        api_url=url,
        api_key="none",
        max_concurrent_calls=CONCURRENCY,
        max_tokens=int(sampling["max_tokens"]),
        call_kwargs={"temperature": sampling["temperature"]},
        # It would wait half a minute for a refusal to pass. Its client repeats what is worth it.
        max_retries=0,
    )
