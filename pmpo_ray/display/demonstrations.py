"""The demonstrations that belong to an instruction, on a terminal.

Invariant: texts of the data are shown, never interpreted.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pmpo_ray.display.numbers import count_text
from pmpo_ray.outcomes import Shot
from pmpo_ray.text import excerpt
from pmpo_ray.types import Example

_INPUT, _TARGET = 90, 40
"""Characters of an input and of an answer."""


def demonstrations_table(shots: Sequence[Shot | Example]) -> RenderableType:
    """Each demonstration in its order, a line each: its input and its answer, shortened."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for shot in shots:
        table.add_row(Text(excerpt(shot.input, _INPUT)), Text(excerpt(shot.target, _TARGET), style="bold"))
    return Group(Text(f"with {demonstrations_words(len(shots))}, in this order", style="dim"), table)


def demonstrations_words(count: int) -> str:
    """So many demonstrations, in words."""
    return count_text(count, "demonstration")
