"""MIPROv2 of dspy: instructions proposed from a summary of the task, chosen by Bayesian optimisation."""

from __future__ import annotations

import os
from typing import Any

# Without it litellm fetches a list of prices when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import dspy
from dspy.adapters.base import Adapter
from dspy.adapters.chat_adapter import ChatAdapter
from dspy.propose import GroundedProposer
from dspy.teleprompt import mipro_optimizer_v2
from dspy.utils.exceptions import AdapterParseError

from benchmarks.peers.job import CONCURRENCY, Job, LabelledRow, account, first_label

_TOKENS_PER_CANDIDATE = 6000
"""A proposal by a small model (four calls) and one and a half trials on 20 rows, roughly."""
_TRIALS_PER_CANDIDATE = 1.5
"""What the library recommends for one predictor."""
_TRIES = 5


class _SpentError(BaseException):
    """The budget is spent. No Exception: the library takes every one of these for a score of 0."""


def run(_: str, job: Job) -> dict[str, Any]:
    """The outcome of one search. It proposes from one half of the rows and selects on the other."""
    # A cache on the disk would let one run pay for another.
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    task_model = _model(job, job.task_url, job.answering)
    rewriter = _model(job, job.rewriter_url, job.rewriting)
    dspy.configure(lm=task_model, adapter=_PlainAnswers(job))
    mipro_optimizer_v2.GroundedProposer = _Patient
    trials: list[tuple[float, str]] = []
    candidates = max(3, job.budget // _TOKENS_PER_CANDIDATE)
    optimizer = _Recording(
        job,
        trials,
        metric=_is_right,
        prompt_model=rewriter,
        task_model=task_model,
        auto=None,
        num_candidates=candidates,
        max_bootstrapped_demos=0,
        max_labeled_demos=0,
        num_threads=CONCURRENCY,
        # Refused requests must not end an evaluation before it is known that they were refused.
        max_errors=10**9,
        # The library takes a seed of 0 for none.
        seed=job.seed + 1,
    )
    proposed, selected = (list(map(_example, half)) for half in job.halves())
    planned = int(_TRIALS_PER_CANDIDATE * candidates)
    try:
        optimizer.compile(
            Classifier(job.start), trainset=proposed, valset=selected, num_trials=planned, minibatch=False
        )
    except _SpentError:
        pass
    except Exception:
        # Proposals are refused with an error of the library's.
        if not job.spent():
            raise
    # The first of equals, as in the library.
    score, instruction = max(trials, key=lambda trial: trial[0], default=(0.0, job.start))
    return {
        "instruction": instruction,
        "own_score": score / 100,
        "candidates": candidates,
        "trials": len(trials),
        "trials_planned": planned,
    }


def _is_right(row: Any, prediction: Any, *_: object) -> bool:
    """The metric, which dspy calls with a trace, too."""
    return bool(prediction.label == row.label)


class Classifier(dspy.Module):  # type: ignore[misc, unused-ignore]
    """The program: one prediction. Its source is shown to the rewriter."""

    def __init__(self, instruction: str) -> None:
        super().__init__()
        self.classify = dspy.Predict(dspy.Signature("input -> label", instruction))

    def forward(self, input: str) -> Any:  # noqa: A002 - the name of the field
        return self.classify(input=input)


class _Recording(mipro_optimizer_v2.MIPROv2):  # type: ignore[misc, unused-ignore]
    """MIPROv2 whose finished trials are known, and which ends once its budget is spent."""

    def __init__(self, job: Job, trials: list[tuple[float, str]], **settings: Any) -> None:
        super().__init__(**settings)
        self._job = job
        self._trials = trials

    def _optimize_prompt_parameters(
        self, program: Any, instructions: Any, demos: Any, evaluate: Any, *rest: Any
    ) -> Any:
        def recorded(candidate: Any, **settings: Any) -> Any:
            result = evaluate(candidate, **settings)
            counted = account(self._job.account_url)
            # A refused row counts as wrong, so that the score is too low.
            if not counted["refused"]:
                self._trials.append((result.score, candidate.classify.signature.instructions))
            if counted["spent"]:
                raise _SpentError
            return result

        return super()._optimize_prompt_parameters(program, instructions, demos, recorded, *rest)


class _Patient(GroundedProposer):  # type: ignore[misc, unused-ignore]
    """The proposer, which asks again for a proposal that the rewriter wrote in a form that can't be read, and
    proposes the start instruction if it never can: such a proposal would end the search with an error."""

    def propose_instruction_for_predictor(self, **settings: Any) -> str:
        for _ in range(_TRIES):
            try:
                return str(super().propose_instruction_for_predictor(**settings))
            except AdapterParseError:
                continue
        return str(settings["predictor"].signature.instructions)


class _PlainAnswers(ChatAdapter):  # type: ignore[misc, unused-ignore]
    """Rows are answered in the plain form of the evaluation, since dspy's own form takes more tokens than an
    answer has; the rewriter is asked in dspy's."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._labels = job.labels

    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        # Without the second try in JSON that the chat adapter makes.
        call = Adapter.__call__ if _is_row(signature) else ChatAdapter.__call__
        return call(self, lm, lm_kwargs, signature, demos, inputs)

    def format(self, signature: Any, demos: Any, inputs: Any) -> Any:
        if not _is_row(signature):
            return super().format(signature, demos, inputs)
        return [
            {"role": "system", "content": signature.instructions},
            {"role": "user", "content": inputs["input"]},
        ]

    def parse(self, signature: Any, completion: str) -> Any:
        if not _is_row(signature):
            return super().parse(signature, completion)
        return {"label": first_label(completion, self._labels) or ""}


def _is_row(signature: Any) -> bool:
    return set(signature.output_fields) == {"label"}


def _model(job: Job, url: str, sampling: Any) -> Any:
    # A refusal is not worth another try.
    return dspy.LM(f"openai/{job.model}", api_base=url, api_key="none", num_retries=0, **sampling)


def _example(row: LabelledRow) -> Any:
    return dspy.Example(input=row.input, label=row.target).with_inputs("input")
