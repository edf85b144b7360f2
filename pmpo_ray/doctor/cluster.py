"""What Ray tells before a run: whether it works here, whether a cluster answers, and what that offers.

Invariants: no Ray is started, and a cluster that is there is left as it was; importing this module does not
import ray. Connecting may take long: who needs an answer within a time asks from a process of its own.
"""

from __future__ import annotations

import importlib

from pmpo_ray.actors.resources import ClusterResources
from pmpo_ray.config.run import RayConfig
from pmpo_ray.errors import ResourceError
from pmpo_ray.text import error_line


def inspect_own() -> str:
    """Why no Ray can be started on this machine, empty where one can."""
    try:
        importlib.import_module("pmpo_ray.actors.cluster")
    except (ImportError, OSError) as error:
        return error_line(error)
    return ""


def inspect_cluster(address: str) -> ClusterResources | str:
    """What the cluster at `address` offers, or why it cannot be worked on."""
    try:
        from pmpo_ray.actors.cluster import connected, offered_resources

        with connected(RayConfig(address=address)):
            return offered_resources()
    except ResourceError as error:
        return str(error)
    except (ImportError, OSError, RuntimeError) as error:  # such as a cluster of another version of Ray
        return error_line(error)
