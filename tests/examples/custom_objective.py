"""A custom objective: a function from the scores of one example to its loss; lower is better.

optimize(data, objective=hinge)
search: {objective: "custom_objective:hinge"}      in a configuration
"""

from __future__ import annotations

from pmpo_ray import AnswerScore, ExampleScore


def hinge(score: ExampleScore) -> float:
    """The margin that the target lacks to lead the likeliest wrong answer by half a nat per token."""
    rivals = [per_token(answer) for answer in score.negatives]
    return max(0.0, 0.5 - per_token(score.target) + max(rivals, default=0.0))


def per_token(answer: AnswerScore) -> float:
    """The log-likelihood of the answer in nats per token."""
    return answer.logprob / answer.tokens
