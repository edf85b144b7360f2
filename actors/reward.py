"""The process-reward actor: a plain async class around one process-reward model.

Invariants: the constructor cannot fail; `ping` answers while the model works.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from pmpo_ray.actors.process import where
from pmpo_ray.config.evaluation import ProcessRewardConfig
from pmpo_ray.engines.hf.process_reward import ProcessRewardModel, StepScores
from pmpo_ray.types import EngineInfo


class RewardActor:
    """One replica that rates the steps of solutions."""

    def __init__(self, config: ProcessRewardConfig, device: Literal["cpu", "cuda"]) -> None:
        self._config = config
        self._device = device
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reward")
        self._model: ProcessRewardModel | None = None

    async def start(self) -> EngineInfo:
        """Load the model. Raises ModelError if it cannot be loaded."""
        self._model = await self._in_thread_load()
        return self._model.info()

    async def rate(self, problem: str, solution: str) -> StepScores:
        """The scores of the solution's steps. Errors as in `ProcessRewardModel.score`."""
        model = self._model
        if model is None:
            raise RuntimeError("rate was called before start")
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: model.score(problem, solution)
        )

    async def ping(self) -> str:
        """The address of this replica, as "host:pid"."""
        return where()

    async def _in_thread_load(self) -> ProcessRewardModel:
        config = self._config
        return await asyncio.get_running_loop().run_in_executor(
            self._thread,
            lambda: ProcessRewardModel.load(
                config.model or "",
                separator=config.separator,
                device=self._device,
                revision=config.revision,
                trust_remote_code=config.trust_remote_code,
            ),
        )
