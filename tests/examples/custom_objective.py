"""An objective of your own: a function from the scores of one example to its loss, lower for better.

optimize(data, objective=hinge)
search: {objective: "custom_objective:hinge"}      in a configuration
"""

from __future__ import annotations

from pmpo_ray import AnswerScore, ExampleScore


def hinge(score: ExampleScore) -> float:
    """How far the target is from leading the likeliest wrong answer by half a nat a token."""
    rivals = [per_token(answer) for answer in score.negatives]
    return max(0.0, 0.5 - per_token(score.target) + max(rivals, default=0.0))


def per_token(answer: AnswerScore) -> float:
    """The answer's log-likelihood in nats a token."""
    return answer.logprob / answer.tokens
