"""The findings of `pmpo doctor` on a terminal.

Invariants: states are words, not only colours; texts from elsewhere are shown, never interpreted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pmpo_ray.doctor.findings import Finding, State
from pmpo_ray.text import in_line

_STYLES: Mapping[State, str] = {"ok": "green", "warning": "yellow", "missing": "bold red"}


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    """Print a line for each finding, its advice below it, and the number of findings in each state."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        text = Text(in_line(finding.found))
        if finding.advice:
            text.append(f"\n-> {in_line(finding.advice)}", style="bold")
        table.add_row(Text(finding.state, style=_STYLES[finding.state]), Text(in_line(finding.name)), text)
    console.print(table)
    states = [finding.state for finding in findings]
    counts = ", ".join(f"{states.count(state)} {state}" for state in _STYLES if state in states)
    console.print()
    console.print(Text(counts, style="dim"))
