"""The connection to Ray and the resources of the connected cluster.

Invariants: an existing cluster is left running, and a Ray started by this process is ended, whatever signals
come meanwhile; a cluster that does not answer raises an error within seconds; when a process of a Ray started
here dies, the work on it ends with an error before Ray ends this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import ray
import ray._private.worker
from ray.exceptions import RayError

from pmpo_ray.actors.auth_token import provide_token
from pmpo_ray.actors.process import descendants
from pmpo_ray.actors.ray_thread import RayThread
from pmpo_ray.actors.resources import ClusterResources
from pmpo_ray.config.run import RayConfig
from pmpo_ray.errors import ResourceError
from pmpo_ray.signals import abandon_exit_handlers, deferred, handling
from pmpo_ray.text import error_line

_VITAL = ("raylet", "gcs_server")
"""The processes that Ray cannot do without."""
_FAILURES = (OSError, RuntimeError, ValueError, RayError)
"""The errors of a Ray that cannot be started or reached."""
_WATCH_SECONDS = 0.05
LOCAL = "local"
"""The address of a Ray that this process starts."""
_LOCAL_SYSTEM = {"prestart_worker_first_driver": False}
"""Ray would start a process for every CPU ahead of time. No replica, with an environment of its own, uses
them."""
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
    connect = partial(
        ray.init,
        address=address,
        num_cpus=settings.num_cpus if local else None,
        num_gpus=settings.num_gpus if local else None,
        include_dashboard=False if local else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _system_config=_LOCAL_SYSTEM if local else None,
    )
    # Outside of the main thread, Ray leaves the handlers of signals alone, and says so as a warning.
    logging.getLogger("ray").setLevel(logging.ERROR)
    thread = RayThread()
    try:
        try:
            thread.start(connect)
        except Exception as error:
            # A node that starts too slowly raises Exception itself, and no class of it.
            if type(error) is not Exception and not isinstance(error, _FAILURES):
                raise
            raise _not_connected(address, error, token=chosen is None) from None
        _note_auth_mode(chosen)
        yield address
    except BaseException:
        with handling(lambda *_: None):
            _disconnect(thread)
        raise
    with deferred():
        _disconnect(thread)


def lost_process() -> str | None:
    """The name of a process that died of the Ray that this process started; None if all live, and for a
    cluster that was there."""
    node: Any = ray._private.worker._global_node
    dead: list[str] = [] if node is None else [name for name, _ in node.dead_processes()]
    return next((name for name in _VITAL if name in dead), None)


@asynccontextmanager
async def watched_ray() -> AsyncIterator[None]:
    """End the block with a ResourceError if Ray dies. Ray itself would end this process, without a word that
    helps, at its next message to a dead raylet; so a thread looks often, however busy the event loop is."""
    work, loop = asyncio.current_task(), asyncio.get_running_loop()
    lost = list[str]()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_WATCH_SECONDS):
            name = lost_process()
            if name is not None and work is not None:
                lost.append(name)
                with contextlib.suppress(RuntimeError):  # the loop has just ended
                    loop.call_soon_threadsafe(work.cancel)
                return

    threading.Thread(target=watch, name="watch of Ray", daemon=True).start()
    try:
        yield
    except asyncio.CancelledError:
        if lost and work is not None:
            work.uncancel()
            raise _lost(lost[0]) from None
        raise
    finally:
        ended.set()


def put(value: object) -> object:
    """The reference of `value` in Ray's object store. Raises ResourceError if Ray has died: its store would
    end this process at once."""
    if (name := lost_process()) is not None:
        raise _lost(name)
    return ray.put(value)


def _lost(name: str) -> ResourceError:
    return ResourceError(
        f"the process {name} of Ray on this machine has died, perhaps for want of memory or disk; finished "
        "rounds are kept: continue with the same command, with fewer replicas if it happens again"
    )


def _disconnect(thread: RayThread) -> None:
    """End the connection, and a Ray that this process started. What cannot be ended in the usual way, because
    a part of it is dead or hangs, is left to end with this process."""
    if lost_process() is None and thread.end(ray.shutdown):
        return
    node: Any = ray._private.worker._global_node
    if node is not None:
        # Workers wait for a lost part of Ray for a minute before they end by themselves.
        workers = [worker for _, process in node.live_processes() for worker in descendants(process.pid)]
        node.kill_all_processes(check_alive=False, allow_graceful=False)
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    abandon_exit_handlers()


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


def _not_connected(address: str, error: Exception, *, token: bool) -> ResourceError:
    """The error for a Ray that cannot be started or reached; `token` is true if no token was asked for."""
    why = error_line(str(error).splitlines()[0] if str(error) else type(error).__name__).rstrip(".")
    if address == LOCAL:
        return ResourceError(
            f"Ray cannot be started on this machine ({why}); start again when it is less busy, check its "
            "memory and the disk of /tmp, or name a cluster in ray.address"
        )
    if token:
        why += f"; if it requires a token, set {_AUTH_MODE}=token"
    return _no_cluster(address, why)


def _no_cluster(address: str, why: str) -> ResourceError:
    return ResourceError(
        f"no Ray cluster answers at {address} ({why}); check ray.address, or remove it to use this "
        "machine alone"
    )
