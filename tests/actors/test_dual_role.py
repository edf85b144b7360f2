"""One replica in both roles: the model is held once, and each role answers as it does alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from pmpo_ray.actors.dual_role import BothActor
from pmpo_ray.actors.packing import check_fits
from pmpo_ray.actors.planning import plan
from pmpo_ray.actors.resources import ClusterResources, NodeResources
from pmpo_ray.config.engines import DEFAULT_MODEL, RewriterConfig, ScorerConfig
from pmpo_ray.config.loading import config_from_mapping
from pmpo_ray.config.run import RunConfig
from pmpo_ray.engines.factory import create_generator, create_scorer
from pmpo_ray.errors import ConfigError
from pmpo_ray.types import Example, GenerateRequest, ScoreRequest

EXAMPLES = tuple(Example(str(n), f"Order {n} never came.", "shipping", ("billing",)) for n in range(3))
WRITING = GenerateRequest("Name a fruit.", n=2, max_tokens=6, temperature=0.0)


@pytest.mark.slow
async def test_a_transformers_replica_scores_and_writes_in_turns_as_two_would() -> None:
    settings = ScorerConfig(engine="transformers", role="both", dtype="float32", device="cpu")
    actor = BothActor(settings, RewriterConfig(), DEFAULT_MODEL)
    info = await actor.start()
    assert info.engine == "transformers"
    results = await asyncio.gather(
        actor.score("Name the kind of ticket.", EXAMPLES, 0, 2, ()),
        actor.generate(WRITING),
        actor.score("Name the kind of ticket.", EXAMPLES, 2, 3, ()),
        actor.generate(WRITING),
    )
    alone = create_scorer(settings, DEFAULT_MODEL)
    wanted = alone.score(ScoreRequest("Name the kind of ticket.", EXAMPLES)).scores
    found = (*results[0].scores, *results[2].scores)
    assert [score.target.logprob for score in found] == pytest.approx(
        [score.target.logprob for score in wanted], abs=1e-3
    )
    writer = create_generator(RewriterConfig(engine="transformers", dtype="float32"), DEFAULT_MODEL)
    for written in (results[1], results[3]):
        assert written.samples == writer.generate([WRITING])[0].samples


async def test_a_replica_that_was_not_started_says_so() -> None:
    actor = BothActor(ScorerConfig(role="both"), RewriterConfig(), DEFAULT_MODEL)
    with pytest.raises(RuntimeError, match="before start"):
        await actor.generate(WRITING)


def test_no_separate_rewriters_are_planned() -> None:
    there = ClusterResources((NodeResources(cpus=2, gpus=1, memory_bytes=10**9),))
    planned = plan(ScorerConfig(role="both"), RewriterConfig(), there)
    assert planned.rewriter is None
    assert planned.scorer.num_gpus == 1
    check_fits(planned.roles, there)


def test_the_rewriting_model_is_the_scorers() -> None:
    assert RunConfig(scorer=ScorerConfig(role="both", model="big")).rewriter_model == "big"


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"scorer": {"role": "both"}, "rewriter": {"replicas": 2}}, "rewriter.replicas has no effect"),
        ({"scorer": {"role": "both"}, "rewriter": {"model": "big"}}, "rewriter.model has no effect"),
        ({"scorer": {"role": "both", "engine": "openai"}}, "give scorer and rewriter the same endpoint.url"),
    ],
)
def test_settings_that_contradict_it_are_named(sections: Mapping[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config_from_mapping(sections, "here")
    config_from_mapping({"scorer": {"role": "both"}, "rewriter": {"temperature": 0.5, "batch": 4}}, "here")
