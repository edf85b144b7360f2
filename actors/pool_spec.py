"""The settings of a pool of replicas.

Invariant: all times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from pmpo_ray.actors.autoscaling import Bounds
from pmpo_ray.actors.handles import Launcher


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """The settings of a pool.

    `role` is the configuration section that messages name, `slots` the number of slots that a replica works
    on at a time. Every unit may take `grace` longer than usual; `relaunch_delay` doubles with every failed
    start.
    """

    role: str
    launcher: Launcher
    bounds: Bounds
    slots: int
    start_timeout: float = 300.0
    outage_timeout: float = 600.0
    probe_timeout: float = 20.0
    grace: float = 60.0
    relaunch_delay: float = 1.0
