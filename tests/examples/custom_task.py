"""A custom task: a function that yields rows.

optimize("parity")      after this module has been imported, or optimize(parity)
tasks: [{name: parity, function: "custom_task:parity"}]      in a configuration
"""

from __future__ import annotations

from collections.abc import Iterator

import pmpo_ray


@pmpo_ray.task("parity")
def parity() -> Iterator[dict[str, str]]:
    """Even and odd numbers. A function may also return a list, a DataFrame, or a whole Task."""
    for number in range(60):
        yield {"input": f"the number {number}", "target": "odd" if number % 2 else "even"}
