"""A replica's hardware goes to its engine next to the configuration, which stays what the user wrote."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from pmpo_ray.actors.resources import Plan, ReplicaPlan
from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.engines.factory import open_scorer
from pmpo_ray.engines.placement import Placement
from pmpo_ray.engines.simulated.engine import SimulatedScorer

PLAN = ReplicaPlan(1, num_cpus=1, num_gpus=0.5, memory_bytes=None, threads=3, device="cuda")


def test_a_plan_decides_the_placement() -> None:
    assert PLAN.placement == Placement("cuda", threads=3, gpus=0.5)
    day = date(2026, 11, 27)
    assert Plan(PLAN, PLAN).on_day(day).rewriter == replace(PLAN, day=day)
    assert Plan(PLAN, None).on_day(day).scorer.placement.day == day


def test_without_a_plan_the_configuration_decides() -> None:
    config = ScorerConfig(device="cpu", threads=2)
    assert Placement.configured(config) == Placement("cpu", threads=2, gpus=None)


async def test_a_user_defined_engine_finds_its_hardware_in_its_configuration() -> None:
    received: list[ScorerConfig] = []

    def make(config: ScorerConfig, model: str) -> SimulatedScorer:
        received.append(config)
        return SimulatedScorer(model)

    config = ScorerConfig(engine="my_engines:make", chunk_examples=7)
    (await open_scorer(config, "m", PLAN.placement, make)).close()
    assert received == [config.model_copy(update={"device": "cuda", "threads": 3, "gpus": 0.5})]
    assert (config.device, config.threads, config.gpus) == ("auto", None, None)
