"""The Ray that a run works on: connecting to it, what it offers, and leaving it.

Invariants: a cluster that was there is left running, a Ray of this process's own is ended; a cluster that
does not answer is told within seconds.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from pmpo_ray.actors.resources import ClusterResources, cluster_resources
from pmpo_ray.config.run import RayConfig
from pmpo_ray.errors import ResourceError

LOCAL = "local"
"""The address of a Ray of this process's own."""
_CONNECT_SECONDS = 10.0
_AUTH_MODE = "RAY_AUTH_MODE"
_log = logging.getLogger(__name__)
_turned_on_by_ray = False
"""Whether a Ray of this process's own turned token authentication on, which lasts as long as the process."""


@contextmanager
def connected(settings: RayConfig) -> Iterator[str]:
    """A connection to Ray, and its address. Raises ResourceError where no cluster answers."""
    # A worker that reserves no GPU must see none; later Ray versions would show it all of them.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    address = settings.address or os.environ.get("RAY_ADDRESS") or LOCAL
    local = address == LOCAL
    if not local:
        _check_reachable(address)
        if _turned_on_by_ray:
            _log.warning(
                "this process had a Ray of its own before, and gives every cluster a token since; one that "
                "asks for none starts no replica then: use a new process, or set %s=disabled from the start",
                _AUTH_MODE,
            )
    chosen = os.environ.get(_AUTH_MODE)
    try:
        ray.init(
            address=address,
            num_cpus=settings.num_cpus if local else None,
            num_gpus=settings.num_gpus if local else None,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError) as error:
        why = str(error).splitlines()[0]
        if chosen is None and not local:
            why += f"; if it asks for a token, set {_AUTH_MODE}=token"
        raise _no_cluster(address, why) from None
    _note_auth_mode(chosen)
    try:
        yield address
    finally:
        ray.shutdown()


def _note_auth_mode(chosen: str | None) -> None:
    global _turned_on_by_ray
    _turned_on_by_ray |= chosen is None and os.environ.get(_AUTH_MODE) == "token"


def offered_resources() -> ClusterResources:
    """What the connected cluster's live nodes offer."""
    return cluster_resources(ray.nodes())


def _check_reachable(address: str) -> None:
    """Raise ResourceError where nothing listens: Ray itself would wait for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, why: str) -> ResourceError:
    return ResourceError(
        f"no Ray cluster answers at {address} ({why}); check ray.address, or leave it out to use this "
        "machine alone"
    )
