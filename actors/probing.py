"""The probe of a replica that failed a call.

Invariant: a probe ends within its timeout.
"""

from __future__ import annotations

import asyncio

from pmpo_ray.actors.handles import ReplicaError, ReplicaHandle, ReplicaLostError, ReplicaUnreachableError

PROBE_INTERVAL = 0.5
"""Seconds between two pings of a replica that is out of reach."""


async def probe(handle: ReplicaHandle, seconds: float) -> ReplicaLostError | None:
    """Ping a replica; None if it answers, else the reason to give it up.

    A replica that is out of reach is pinged again for `seconds`: its node may come back, and Ray takes a
    while to notice that a node is lost.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    await handle.ping()
                except ReplicaUnreachableError:
                    await asyncio.sleep(PROBE_INTERVAL)
                else:
                    return None
    except TimeoutError:
        return ReplicaLostError(f"no answer for {seconds:g} s", blameless=True)
    except ReplicaError as error:
        return error if isinstance(error, ReplicaLostError) else ReplicaLostError(str(error))
