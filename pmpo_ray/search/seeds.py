"""Seeds of samples.

Invariant: a seed depends only on its parts.
"""

from __future__ import annotations

import hashlib


def seed_of(*parts: object) -> int:
    """A seed of 48 bits from the hash of `parts`. Two seeds are so far apart that their samples at seed + i
    never coincide."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6])
