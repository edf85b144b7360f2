"""The content of the page, computed from a run's history: numbers as text, charts, and the data of the dots.

Invariant: only the charts are markup; hidden characters of texts are written out here, and the template
escapes the texts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from pmpo_ray.config.loading import dump_config
from pmpo_ray.display.accuracies import interval_words
from pmpo_ray.display.calibration import calibration_words
from pmpo_ray.display.numbers import amount, p_value_text, tokens_words
from pmpo_ray.display.task_overview import overview_line, remarks
from pmpo_ray.history.held_out import NOTHING, EvaluatedTask, HeldOut, evaluated_tasks, held_out_results
from pmpo_ray.history.run_history import RunHistory, TaskHistory
from pmpo_ray.history.task_facts import (
    HardExample,
    Piece,
    TaskState,
    analysed,
    cost_of,
    hard_examples,
    state_of,
    word_diff,
)
from pmpo_ray.redaction import Redaction
from pmpo_ray.report import charts
from pmpo_ray.report.lineage import Node, lineage_tree
from pmpo_ray.report.script_data import packed
from pmpo_ray.text import visible
from pmpo_ray.types import Example, ExampleScore, ScoredCandidate

HARD_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A part of an instruction. `importance` is None between units; `share` (0 to 1) is its size relative to
    the largest of the instruction."""

    text: str
    importance: float | None
    share: float


@dataclass(frozen=True, slots=True)
class ExampleView:
    """A training example before and after; `chosen` are the answers with the highest log-likelihood."""

    example: Example
    loss_before: float
    loss_after: float
    chosen_before: str
    chosen_after: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart in two widths; the page shows the one that fits."""

    wide: str
    narrow: str


@dataclass(frozen=True, slots=True)
class TaskView:
    """The section of one task. `overview` tells how it was taken, `remarks` what was odd about its data; both
    are empty for a run of an earlier version. `calibration` tells how an answer is chosen, if calibrated."""

    anchor: str
    name: str
    state: TaskState
    overview: str
    remarks: tuple[str, ...]
    stopped: str
    rounds: int
    scored: int
    refused: int
    tokens: str
    seconds: float
    start: ScoredCandidate
    best: ScoredCandidate
    demonstrations: tuple[Example, ...]
    calibration: str
    held: HeldOut
    evaluated: EvaluatedTask | None
    spark: str
    strip: str
    loss_chart: Picture
    beyond: bool
    operators: tuple[str, ...]
    diff: tuple[Piece, ...]
    analysed: ScoredCandidate | None
    segments: tuple[SegmentView, ...]
    tree: tuple[Node, ...]
    examples: tuple[ExampleView, ...]
    example_chart: str
    held_chart: Picture | None
    data: str


@dataclass(frozen=True, slots=True)
class Fact:
    """A number of the run, with its label."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class PageView:
    """The whole page. `methods` are those of the intervals of accuracies, in words; verdicts are corrected
    for `tests` tests."""

    title: str
    location: str
    headline: str
    facts: tuple[Fact, ...]
    tasks: tuple[TaskView, ...]
    methods: str
    tests: int
    waiting: tuple[str, ...]
    costs: tuple[tuple[str, ...], ...]
    replica_charts: tuple[Picture, ...]
    made_with: tuple[tuple[str, str], ...]
    config: str


def page_view(history: RunHistory) -> PageView:
    """The page of a run."""
    held, evaluated = held_out_results(history), evaluated_tasks(history)
    tasks = tuple(
        _task_view(history, number, task, held.get(task.task, NOTHING), evaluated.get(task.task))
        for number, task in enumerate(history.tasks)
    )
    redact = Redaction(os.environ)
    location = redact(history.location)
    name = location.partition("?")[0].rstrip("/").rpartition("/")[2] or location
    return PageView(
        title=visible(name),
        location=visible(location),
        headline=_headline(tasks),
        facts=_facts(history, tasks),
        tasks=tasks,
        methods=interval_words(one for task in tasks for one in (task.held.before, task.held.after)),
        tests=max((task.held.tests for task in tasks), default=0),
        waiting=tuple(map(visible, history.waiting)),
        costs=_costs(history),
        replica_charts=tuple(
            _picture(partial(charts.replica_chart, counts)) for counts in history.replicas if len(counts) > 1
        ),
        made_with=_made_with(history),
        config=visible(redact(dump_config(history.config))),
    )


def _headline(tasks: Sequence[TaskView]) -> str:
    """The result in one sentence."""
    tested = [task for task in tasks if task.held.before is not None and task.held.after is not None]
    if not tested:
        fell = sum(task.best.loss < task.start.loss for task in tasks)
        what = (
            "The training loss fell"
            if len(tasks) == 1
            else f"The training loss fell on {fell} of {len(tasks)} tasks"
        )
        if len(tasks) == 1 and not fell:
            what = "The training loss did not fall"
        return f"{what}; nothing was measured on held-out examples yet."
    before = fmean(task.held.before.value for task in tested if task.held.before)
    after = fmean(task.held.after.value for task in tested if task.held.after)
    counts = [task.held.verdict for task in tested]
    if len(tested) == 1:
        words = {
            "better": "a significant gain",
            "worse": "a significant loss",
            "not significant": "a difference that is NOT significant",
            "not evaluated": "not compared",
        }
        p_value = tested[0].held.p_value
        tested_with = "" if p_value is None else f" ({p_value_text(p_value)})"
        return f"Held-out accuracy {before:.1%} → {after:.1%}, {words[counts[0]]}{tested_with}."
    better, worse = counts.count("better"), counts.count("worse")
    return (
        f"Mean held-out accuracy {before:.1%} → {after:.1%} over {len(tested)} tasks: {better} significantly "
        f"better, {worse} significantly worse, {len(tested) - better - worse} not significantly different."
    )


def _facts(history: RunHistory, tasks: Sequence[TaskView]) -> tuple[Fact, ...]:
    manifest = history.manifest
    costs = [cost_of(task) for task in history.tasks]
    facts = [
        Fact(str(len(tasks)), "task" if len(tasks) == 1 else "tasks"),
        Fact(str(sum(task.scored for task in tasks)), "instructions scored"),
        Fact(str(sum(task.refused for task in tasks)), "refused or failed"),
        Fact(amount(sum(cost.tokens_scored for cost in costs)), "tokens scored"),
        Fact(amount(sum(cost.tokens_prompted for cost in costs)), "tokens prompted"),
        Fact(amount(sum(cost.tokens_generated for cost in costs)), "tokens generated"),
    ]
    if manifest is not None and manifest.seconds:
        facts.append(Fact(duration(manifest.seconds), "wall-clock time"))
    return tuple(facts)


def _costs(history: RunHistory) -> tuple[tuple[str, ...], ...]:
    """A row per pool: the work of its replicas."""
    if history.manifest is None:
        return ()
    return tuple(
        (
            role,
            f"{use.answered:,}",
            amount(use.tokens),
            duration(use.busy_seconds),
            "–" if not use.ready_seconds else f"{1 - min(1.0, use.busy_seconds / use.ready_seconds):.0%}",
            str(use.retries),
            str(use.lost),
        )
        for role, use in history.manifest.pools.items()
    )


def _made_with(history: RunHistory) -> tuple[tuple[str, str], ...]:
    manifest = history.manifest
    if manifest is None:
        return ()
    rows = [
        ("started", manifest.started),
        ("ended", manifest.ended or "not finished"),
        ("seed", str(manifest.seed)),
    ]
    for role, info in (("scorer", manifest.scorer), ("rewriter", manifest.rewriter)):
        if info is not None:
            reason = f" ({info.dtype_reason})" if info.dtype_reason else ""
            place = f"{info.model} on {info.engine}, {info.dtype}{reason}, {info.device}"
            rows.append((role, f"{place}; weights {info.revision or 'unknown'}"))
    if manifest.cluster is not None:
        cluster = manifest.cluster
        size = f"{cluster.nodes} nodes, {cluster.cpus:g} CPUs, {cluster.gpus:g} GPUs"
        rows.append(("cluster", f"{cluster.address}: {size}"))
    rows += list(manifest.versions.items())
    return tuple((visible(label), visible(value)) for label, value in rows)


def _task_view(
    history: RunHistory, number: int, task: TaskHistory, held: HeldOut, evaluated: EvaluatedTask | None
) -> TaskView:
    dots = _dots(task)
    limit = charts.loss_limit(dots, task.losses)
    lineage = [scored.candidate.id for scored in task.lineage(task.best_id)]
    analysed_one, segments = _segments(task)
    cost = cost_of(task)
    rows = evaluated.rows if evaluated is not None else ()
    overview = history.overview(task.task)
    main = [row for row in rows if (row.model, row.shots) == (rows[0].model, rows[0].shots)]
    bars = [charts.Bar(visible(row.name), row.accuracy, row.name == "best") for row in main]
    return TaskView(
        anchor=f"task-{number}",
        name=visible(task.task),
        state=state_of(history, task),
        overview=visible(overview_line(overview)) if overview is not None else "",
        remarks=remarks(overview) if overview is not None else (),
        stopped=visible(task.result.stopped) if task.result else "",
        rounds=len(task.records) - 1,
        scored=len(task.candidates),
        refused=len(task.refusals),
        tokens=tokens_words(cost.tokens_scored, cost.tokens_prompted, cost.tokens_generated),
        seconds=cost.seconds,
        start=task.start,
        best=task.best,
        demonstrations=task.demonstrations,
        calibration=calibration_words(task.biases) if task.biases else "",
        held=held,
        evaluated=evaluated,
        spark=charts.spark_line(task.losses),
        strip=charts.interval_strip(held.before, held.after),
        loss_chart=_picture(partial(charts.loss_chart, dots, task.losses, lineage)),
        beyond=any(dot.loss is not None and dot.loss > limit for dot in dots),
        operators=tuple(dict.fromkeys(dot.operator for dot in dots)),
        diff=word_diff(task.start.candidate.text, task.best.candidate.text),
        analysed=analysed_one,
        segments=segments,
        tree=lineage_tree(task),
        examples=tuple(_example(task, hard) for hard in hard_examples(task, HARD_EXAMPLES)),
        example_chart=charts.example_chart(task.start.losses, task.best.losses),
        held_chart=_picture(partial(charts.held_out_chart, bars)) if len(bars) > 1 else None,
        data=packed(task),
    )


def _picture(draw: Callable[..., str]) -> Picture:
    return Picture(draw(width=charts.WIDE), draw(width=charts.NARROW))


def _dots(task: TaskHistory) -> list[charts.Dot]:
    survived = task.survived
    dots = [
        charts.Dot(name, found.candidate.round, found.candidate.operator, name in survived, found.loss)
        for name, found in task.candidates.items()
    ]
    dots += [
        charts.Dot(refusal.id, number, refusal.operator, False, None) for number, refusal in task.refusals
    ]
    return sorted(dots, key=lambda dot: dot.id)


def _segments(task: TaskHistory) -> tuple[ScoredCandidate | None, tuple[SegmentView, ...]]:
    """The best instruction, or its nearest analysed ancestor, split into its units and the text between."""
    found = analysed(task)
    if found is None:
        return None, ()
    scored, rows = found
    text, place = scored.candidate.text, 0
    largest = max((abs(row.importance) for row in rows if math.isfinite(row.importance)), default=0.0) or 1.0
    views: list[SegmentView] = []
    for row in sorted(rows, key=lambda row: row.segment.start):
        if row.segment.start > place:
            views.append(SegmentView(visible(text[place : row.segment.start]), None, 0.0))
        share = min(1.0, abs(row.importance) / largest)
        views.append(SegmentView(visible(row.segment.text), row.importance, share))
        place = row.segment.end
    if place < len(text):
        views.append(SegmentView(visible(text[place:]), None, 0.0))
    return scored, tuple(views)


def _example(task: TaskHistory, hard: HardExample) -> ExampleView:
    index = task.examples.index(hard.example)
    return ExampleView(
        hard.example,
        hard.loss_before,
        hard.loss_after,
        _chosen(hard.example, task.start.scores[index]),
        _chosen(hard.example, task.best.scores[index]),
    )


def _chosen(example: Example, score: ExampleScore) -> str:
    """The most likely answer of those that were scored."""
    answers = [(score.target.logprob, example.target)]
    answers += [
        (negative.logprob, text) for negative, text in zip(score.negatives, example.negatives, strict=True)
    ]
    return max(answers, key=lambda answer: answer[0])[1]


def duration(seconds: float) -> str:
    """Seconds in a readable unit: 45 s, 12 min, 3.4 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
