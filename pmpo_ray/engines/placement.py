"""The hardware of one replica, as a plan decided it, and the date of its run.

Invariant: an engine takes its device, threads and share of a GPU from here, never from the configuration,
which leaves them open where they are automatic.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal, TypeVar

from pmpo_ray.config.engines import ReplicaConfig

Config = TypeVar("Config", bound=ReplicaConfig)


@dataclass(frozen=True, slots=True)
class Placement:
    """The hardware of one replica. `threads` are those of one forward pass on the CPU (None: the library's
    default), `gpus` is its number of GPUs or its share of one (None: one if it computes on GPUs). `day` is
    the date in the prompts of models whose chat template shows one (None: today's)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    gpus: float | None = None
    day: date | None = None

    @classmethod
    def configured(cls, config: ReplicaConfig) -> Placement:
        """The placement of an engine that is opened without a plan: what its configuration says."""
        return cls(config.device, config.threads, config.gpus)

    def applied(self, config: Config) -> Config:
        """`config` with this hardware, for a user-defined engine, which is made of a configuration alone."""
        return config.model_copy(update={"device": self.device, "threads": self.threads, "gpus": self.gpus})
