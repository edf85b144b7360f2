"""The connection to Ray and the resources of the connected cluster.

Invariants: an existing cluster is left running, and a Ray started by this process is ended; a cluster that
does not answer raises an error within seconds.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from pmpo_ray.actors.auth_token import provide_token
from pmpo_ray.actors.resources import ClusterResources
from pmpo_ray.config.run import RayConfig
from pmpo_ray.errors import ResourceError

LOCAL = "local"
"""The address of a Ray that this process starts."""
_CONNECT_SECONDS = 10.0
_AUTH_MODE = "RAY_AUTH_MODE"
_log = logging.getLogger(__name__)
_turned_on_by_ray = False
"""True once a Ray started by this process has turned token authentication on, until the process ends."""


@contextmanager
def connected(settings: RayConfig) -> Iterator[str]:
    """Connect to Ray and yield the address. Raises ResourceError if no cluster answers."""
    # A worker that reserves no GPU must see none; later Ray versions would show it all of them.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    address = settings.address or os.environ.get("RAY_ADDRESS") or LOCAL
    local = address == LOCAL
    if not local:
        _check_reachable(address)
        if _turned_on_by_ray:
            _log.warning(
                "this process started a Ray before and has sent a token to every cluster since; a cluster "
                "without tokens then starts no replica: use a new process, or set %s=disabled from the start",
                _AUTH_MODE,
            )
    chosen = os.environ.get(_AUTH_MODE)
    if local:
        provide_token()
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
            why += f"; if it requires a token, set {_AUTH_MODE}=token"
        raise _no_cluster(address, why) from None
    _note_auth_mode(chosen)
    try:
        yield address
    finally:
        ray.shutdown()


def _note_auth_mode(chosen: str | None) -> None:
    global _turned_on_by_ray
    _turned_on_by_ray |= chosen is None and os.environ.get(_AUTH_MODE) == "token"


def connected_cluster() -> ClusterResources:
    """The resources of the connected cluster's live nodes."""
    return ClusterResources.of_nodes(ray.nodes())


def _check_reachable(address: str) -> None:
    """Raise ResourceError if nothing listens there: Ray itself would wait for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, why: str) -> ResourceError:
    return ResourceError(
        f"no Ray cluster answers at {address} ({why}); check ray.address, or remove it to use this "
        "machine alone"
    )
