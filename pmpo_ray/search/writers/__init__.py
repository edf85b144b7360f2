"""The operators that ask a model to write, each with its meta-prompts in a long and a short form.

`writer` has the protocol, and each other file one writer; `pmpo_ray.search.writing` asks for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pmpo_ray.search.meta_prompts import Style
from pmpo_ray.search.writers.contrast import Contrast
from pmpo_ray.search.writers.induce import Induce
from pmpo_ray.search.writers.repair import Repair
from pmpo_ray.search.writers.rewrite import Rewrite
from pmpo_ray.search.writers.shorten import Shorten
from pmpo_ray.search.writers.writer import Writer
from pmpo_ray.types import Example

WRITERS: Mapping[str, Writer] = {
    "rewrite": Rewrite(),
    "induce": Induce(),
    "contrast": Contrast(),
    "shorten": Shorten(),
    "repair": Repair(),
}
"""The writers by the name of their operator, in the order in which a round admits their texts."""


def shots_of(operators: Sequence[str], style: Style) -> tuple[Example, ...]:
    """The turns that the requests of these operators show, in one list."""
    return tuple(
        shot for name, writer in WRITERS.items() if name in operators for shot in writer.shots(style)
    )
