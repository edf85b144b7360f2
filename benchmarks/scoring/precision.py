"""The cost of bf16: its errors against fp32, and their effect on the ranking of candidates.

Invariant: every side scores the same token ids of all candidates on all examples; losses are those that a
search ranks by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np

from benchmarks.scoring.children import Roster, Setting
from benchmarks.scoring.workloads import Workload
from pmpo_ray.search.objectives import batch_loss, make_objective
from pmpo_ray.types import AnswerScore, ExampleScore

TARGET_RATIO = 1.2
"""The engine's mean error may be that many times the error of scoring one triple at a time."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Mean absolute differences of the triples' sums to fp32, in nats, their ratio, and rank correlations
    of the candidates' losses. `pmpo` and `one_by_one` are in bf16, `fp32` is the engine's."""

    pmpo_error_nats: float
    one_by_one_error_nats: float
    error_ratio: float
    rank_pmpo_fp32: float
    rank_one_by_one_fp32: float
    rank_pmpo_one_by_one: float

    def facts(self) -> dict[str, float]:
        """The figures under their names in the result file."""
        return {f"precision_{name}": value for name, value in asdict(self).items()}

    def table(self) -> str:
        """The figures in Markdown."""
        return (
            "| precision | mean error, nats | rank correlation with fp32 |\n"
            "|---|---|---|\n"
            f"| pmpo, bf16 | {self.pmpo_error_nats:.4f} | {self.rank_pmpo_fp32:.4f} |\n"
            f"| one_by_one, bf16 | {self.one_by_one_error_nats:.4f} | {self.rank_one_by_one_fp32:.4f} |\n"
            f"ratio of the errors {self.error_ratio:.3f} (target: {TARGET_RATIO} at most); "
            f"rank correlation of the two in bf16 {self.rank_pmpo_one_by_one:.4f}\n"
        )


def measure(children: Roster, device: str, workload: Workload) -> Precision:
    """Score the workload by the engine in fp32 and bf16 and one triple at a time in bf16.

    Raises ContestantLostError.
    """
    sides = ("reference", "float32"), ("pmpo", "bfloat16"), ("one_by_one", "bfloat16")
    fp32, pmpo, single = (
        children.child(name, Setting(workload.model, device, dtype)).rate(workload.requests).ratings.logprobs
        for name, dtype in sides
    )
    return compared(workload, fp32=fp32, pmpo=pmpo, one_by_one=single)


def compared(
    workload: Workload, *, fp32: Sequence[float], pmpo: Sequence[float], one_by_one: Sequence[float]
) -> Precision:
    """The comparison of three lists of sums of log p, in the workload's order."""
    errors = [float(np.mean(np.abs(np.subtract(found, fp32)))) for found in (pmpo, one_by_one)]
    exact, packed, single = (candidate_losses(workload, found) for found in (fp32, pmpo, one_by_one))
    return Precision(
        pmpo_error_nats=errors[0],
        one_by_one_error_nats=errors[1],
        error_ratio=errors[0] / errors[1],
        rank_pmpo_fp32=rank_correlation(packed, exact),
        rank_one_by_one_fp32=rank_correlation(single, exact),
        rank_pmpo_one_by_one=rank_correlation(packed, single),
    )


def candidate_losses(workload: Workload, logprobs: Sequence[float]) -> list[float]:
    """The batch loss (Eq. 4) of each request's instruction under the preference loss (Eq. 5, beta 1).
    `logprobs` are the sums in the workload's order; an item's first answer is its target."""
    objective = make_objective("preference", beta=1.0, per_token=False)
    remaining = iter(logprobs)
    losses: list[float] = []
    for request in workload.requests:
        of_examples = []
        for item in request:
            sums = islice(remaining, len(item.answers))
            scores = [AnswerScore(s, len(answer)) for s, answer in zip(sums, item.answers, strict=True)]
            of_examples.append(objective(ExampleScore(scores[0], tuple(scores[1:]), len(item.context))))
        losses.append(batch_loss(of_examples, [1.0] * len(of_examples)))
    return losses


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks, where equal values share their mean rank. NaN where all
    values of a side are equal."""
    one, other = (_ranks(values) - (len(values) + 1) / 2 for values in (first, second))
    spread = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / spread if spread else float("nan")


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1."""
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts - 1) / 2
    ranks: np.ndarray = means[places]
    return ranks
