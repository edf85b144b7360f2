"""An evaluation as tables: on a terminal, as Markdown and as LaTeX.

Invariants: every gain is shown with its interval and p-value, and with the word "NOT" if it is not
significant; names are data and never interpreted as markup.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from pmpo_ray.display.accuracies import BALANCED, corrected_words, interval_words
from pmpo_ray.display.numbers import p_value_text
from pmpo_ray.evaluation.conditions import BEST, names_a_start
from pmpo_ray.evaluation.labels import UNEVEN
from pmpo_ray.evaluation.paired_tests import Comparison
from pmpo_ray.evaluation.summary import Against, Gain, Overall, Row, Summary
from pmpo_ray.outcomes import Interval, Method
from pmpo_ray.text import in_line

_MANNER: Mapping[Method, str] = {
    "likelihood": "chosen by likelihood",
    "generation": "generated",
    "judged": "generated and judged",
}
_AGAINST: tuple[Against, ...] = ("start", "free")
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
    }
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of plain cells with `notes` below; all columns except the first are right-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = field(default=())


def tables(summary: Summary) -> list[Table]:
    """A table for every model and number of shots: a row per instruction for one task, a row per task for
    several."""
    shown = []
    for overall in summary.overall:
        rows = [row for row in summary.rows if (row.model, row.shots) == (overall.model, overall.shots)]
        gains = [gain for gain in summary.gains if (gain.model, gain.shots) == (overall.model, overall.shots)]
        tasks = list(dict.fromkeys(row.task for row in rows))
        single = len(tasks) == 1
        shown.append(_one_task(rows, gains) if single else _many_tasks(tasks, rows, gains, overall))
        uneven = [row for row in _shown(rows) if row.by_label is not None]
        if uneven:
            shown.append(_labels(uneven) if single else _balanced(uneven))
    if summary.predictions:
        shown.append(_predictions(summary))
    return shown


def _heading(row: Row) -> str:
    return f"{row.model}, {row.shots} shots, {_MANNER[row.method]}"


def _one_task(rows: Sequence[Row], gains: Sequence[Gain]) -> Table:
    losses = any(row.loss is not None for row in rows)
    steps = any(row.score is not None for row in rows)
    written = any(row.method != "likelihood" for row in rows)
    judged = rows[0].method == "judged"
    uneven = any(row.by_label is not None for row in rows)
    columns = ["instruction", "win rate % [95%]" if judged else "accuracy % [95%]"]
    columns += ["balanced % [95%]"] if uneven else []
    columns += ["unread %"] if written else []
    columns += ["loss"] if losses else []
    columns += ["step score [95%]"] if steps else []
    cells = []
    for row in _shown(rows):
        line = [row.name, _percent(row.accuracy)]
        line += [_interval(None if row.by_label is None else row.by_label.balanced, 100, 1)] if uneven else []
        line += [f"{row.unread * 100:.1f}"] if written else []
        line += [_number(row.loss)] if losses else []
        line += [_interval(row.score, 1, 3)] if steps else []
        cells.append(tuple(line))
    first = rows[0]
    notes = [f"{first.accuracy.n} test examples; 95% intervals: {interval_words(_accuracies(rows))}"]
    notes += [BALANCED] if uneven else []
    notes += map(_gain_note, gains)
    if gains:
        notes.append(
            f"gains: {interval_words(gain.accuracy.difference for gain in gains)}; {_families(gains)}"
        )
    return Table(f"{first.task}: {_heading(first)}", tuple(columns), tuple(cells), tuple(notes))


def _accuracies(rows: Sequence[Row]) -> list[Interval]:
    return [row.accuracy for row in rows] + [
        row.by_label.balanced for row in rows if row.by_label is not None
    ]


def _families(gains: Sequence[Gain]) -> str:
    """The tests for which the p-values of gains are corrected, in words."""
    counts = dict.fromkeys(gain.tests for gain in gains)
    words = " and ".join(corrected_words(tests) for tests in counts)
    return words if max(counts) == 1 else f"{words}: over tasks, models and shots"


def _labels(rows: Sequence[Row]) -> Table:
    """The accuracies by label of one task, a row per label."""
    first = next(row.by_label for row in rows if row.by_label is not None)
    by_name = [{one.label: one.accuracy for one in row.by_label.labels} for row in rows if row.by_label]
    cells = [
        (one.label, str(one.accuracy.n), *(_percent(accuracies[one.label]) for accuracies in by_name))
        for one in first.labels
    ]
    title = f"{rows[0].task}: accuracy % by label [95%]"
    return Table(
        title, ("label", "examples", *(row.name for row in rows)), tuple(cells), (_uneven_note(rows),)
    )


def _balanced(rows: Sequence[Row]) -> Table:
    """The balanced accuracies, a row per task with uneven labels."""
    names = tuple(dict.fromkeys(row.name for row in rows))
    cells = []
    for task in dict.fromkeys(row.task for row in rows):
        own = {row.name: row.by_label for row in rows if row.task == task}
        balanced = (one.balanced if (one := own.get(name)) is not None else None for name in names)
        cells.append((task, *(_interval(interval, 100, 1) for interval in balanced)))
    title = f"{rows[0].model}, {rows[0].shots} shots: balanced accuracy % [95%]"
    return Table(title, ("task", *names), tuple(cells), (BALANCED, _uneven_note(rows)))


def _uneven_note(rows: Sequence[Row]) -> str:
    shown = [row.by_label for row in rows if row.by_label is not None]
    intervals = [one.balanced for one in shown] + [part.accuracy for one in shown for part in one.labels]
    return f"uneven: {UNEVEN}; 95% intervals: {interval_words(intervals)}"


def _shown(rows: Sequence[Row]) -> list[Row]:
    """The starts, the best and what they are compared with, without the other candidates of the run."""
    named = [row for row in rows if row.train_loss is None or row.name == BEST or names_a_start(row.name)]
    return named or list(rows)


def _many_tasks(tasks: Sequence[str], rows: Sequence[Row], gains: Sequence[Gain], overall: Overall) -> Table:
    names = list(dict.fromkeys(row.name for row in _shown(rows)))
    against = {(gain.task, gain.against): gain for gain in gains}
    compared = bool(gains)
    written = any(row.method != "likelihood" for row in rows)
    columns = ["task", *names]
    columns += ["unread %"] if written else []
    columns += ["gain over start", "p (Holm)", "over the best free", "p (Holm)"] if compared else []
    cells = []
    for task in tasks:
        own = {row.name: row for row in rows if row.task == task}
        line = [task, *(f"{own[name].accuracy.value * 100:.1f}" if name in own else "–" for name in names)]
        last = own.get(BEST) or next(iter(own.values()))
        line += [f"{last.unread * 100:.1f}"] if written else []
        if compared:
            for kind in _AGAINST:
                gain = against.get((task, kind))
                line += ["–", "–"] if gain is None else [_points(gain.accuracy), _p(gain.p_adjusted)]
        cells.append(tuple(line))
    mean = ["mean"]
    mean += [
        f"{overall.accuracies[name].value * 100:.1f}" if name in overall.accuracies else "–" for name in names
    ]
    mean += [""] if written else []
    if compared:
        for kind in _AGAINST:
            pooled = overall.gains.get(kind)
            mean += ["–", "–"] if pooled is None else [_points(pooled), _p(overall.p_adjusted[kind])]
    cells.append(tuple(mean))
    title = f"{len(tasks)} tasks: {overall.model}, {overall.shots} shots"
    return Table(title, tuple(columns), tuple(cells), tuple(_many_notes(rows, gains)))


def _many_notes(rows: Sequence[Row], gains: Sequence[Gain]) -> Iterator[str]:
    yield f"accuracy in %; gains in points with their 95% interval; {_range([r.accuracy.n for r in rows])}"
    if gains:
        words = interval_words(gain.accuracy.difference for gain in gains)
        yield f"intervals of gains: {words}; of their mean: permutation test; p: {_families(gains)}"
    over_start = [gain for gain in gains if gain.against == "start"]
    if over_start:
        better = sum(gain.significant and gain.accuracy.difference.value > 0 for gain in over_start)
        worse = sum(gain.significant and gain.accuracy.difference.value < 0 for gain in over_start)
        rest = len(over_start) - better - worse
        yield (
            f"over the start: {better} tasks significantly better, {worse} significantly worse, {rest} not "
            "significantly different"
        )


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low} test examples per task" if low == high else f"{low} to {high} test examples per task"


def _gain_note(gain: Gain) -> str:
    other = "the start" if gain.against == "start" else f"the strongest free instruction ({gain.other})"
    verdict = "significant" if gain.significant else "NOT significant"
    return (
        f"best against {other}: {_points(gain.accuracy)} points, {p_value_text(gain.p_adjusted)}, {verdict}"
    )


def _predictions(summary: Summary) -> Table:
    rows = tuple(
        (one.task, one.model, str(one.candidates), f"{one.correlation:+.2f}", _p(one.p_adjusted))
        for one in summary.predictions
    )
    return Table(
        "How training loss predicts held-out accuracy",
        ("task", "model", "candidates", "rank correlation", "p (Holm)"),
        rows,
        ("Spearman's rank correlation: -1 if a lower loss always goes with a higher accuracy",),
    )


def _percent(interval: Interval) -> str:
    return _interval(interval, 100, 1)


def _interval(interval: Interval | None, factor: float, places: int) -> str:
    if interval is None:
        return "–"
    value, low, high = (
        f"{part * factor:.{places}f}" for part in (interval.value, interval.low, interval.high)
    )
    return f"{value} [{low}, {high}]"


def _points(comparison: Comparison) -> str:
    points = comparison.difference
    return f"{points.value * 100:+.1f} [{points.low * 100:+.1f}, {points.high * 100:+.1f}]"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def show(shown: Sequence[Table], console: Console) -> None:
    """Print tables on a terminal."""
    for number, table in enumerate(shown):
        if number:
            console.print()
        console.print(Text(in_line(table.title), style="bold"))
        rich = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        for index, name in enumerate(table.columns):
            # A name is cut nowhere: on a narrow terminal it goes on in the next line.
            rich.add_column(Text(in_line(name)), justify="right" if index else "left", overflow="fold")
        for row in table.rows:
            rich.add_row(*(Text(in_line(cell)) for cell in row))
        console.print(rich)
        for note in table.notes:
            console.print(Text(in_line(note), style="dim"))


def markdown(shown: Sequence[Table]) -> str:
    """Tables as Markdown."""
    parts = []
    for table in shown:
        lines = [
            f"**{_escaped(table.title)}**",
            "",
            _markdown_row(table.columns),
            "|" + "|".join(" --- " if not index else " ---: " for index in range(len(table.columns))) + "|",
            *map(_markdown_row, table.rows),
            "",
            *(f"{_escaped(note)}  " for note in table.notes),
        ]
        parts.append("\n".join(lines).rstrip())
    return "\n\n".join(parts)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """A text as one line of Markdown that is shown literally."""
    plain = in_line(text)
    for character in "\\`*_<>|[]":
        plain = plain.replace(character, "\\" + character)
    return plain


def latex(shown: Sequence[Table]) -> str:
    """Tables as LaTeX (booktabs)."""
    parts = []
    for table in shown:
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\toprule",
            _tex_row(table.columns),
            r"\midrule",
            *map(_tex_row, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip {{\footnotesize {_tex(note)}}}" for note in table.notes),
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_tex, cells)) + r" \\"


def _tex(text: str) -> str:
    return in_line(text).translate(_LATEX).replace("<", r"$<$").replace(">", r"$>$")
