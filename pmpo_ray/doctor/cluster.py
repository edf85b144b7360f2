"""Check Ray before a run: if it works on this machine, if a cluster answers, and which resources it offers.

Invariants: no Ray is started, and an existing cluster is left as it was; importing this module does not
import ray. Connecting may take long: a caller that needs a time limit has to use another process.
"""

from __future__ import annotations

import importlib

from pmpo_ray.actors.resources import ClusterResources
from pmpo_ray.config.run import RayConfig
from pmpo_ray.errors import ResourceError
from pmpo_ray.text import error_line


def inspect_local_ray() -> str:
    """The reason why Ray cannot be started on this machine; empty if it can."""
    try:
        importlib.import_module("pmpo_ray.actors.cluster")
    except (ImportError, OSError) as error:
        return error_line(error)
    return ""


def inspect_cluster(address: str) -> ClusterResources | str:
    """The resources of the cluster at `address`, or the reason why it cannot be used."""
    try:
        from pmpo_ray.actors.cluster import connected, connected_cluster

        with connected(RayConfig(address=address)):
            return connected_cluster()
    except ResourceError as error:
        return str(error)
    except (ImportError, OSError, RuntimeError) as error:  # such as a cluster of another version of Ray
        return error_line(error)
