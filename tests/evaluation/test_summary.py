"""What an evaluation comes to, and how it is printed."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace

import pytest
from rich.console import Console

from pmpo_ray.display.evaluation_tables import Table, latex, markdown, show, tables
from pmpo_ray.display.summary_json import summary_json
from pmpo_ray.evaluation.paired_tests import compare
from pmpo_ray.evaluation.statistics import holm, wilson_interval
from pmpo_ray.evaluation.summary import Summary, summarise
from pmpo_ray.outcomes import Condition, ConditionResult, Outcome
from pmpo_ray.store.evaluations import (
    EVALUATION_SCHEMA,
    decode_evaluation,
    decode_outcomes,
    encode_evaluation,
    encode_outcomes,
)
from pmpo_ray.store.tables import from_parquet, to_parquet

FREE = {"start", "description"}


def evaluated(
    task: str, name: str, right: list[bool], *, repetition: int = 0, train_loss: float | None = None
) -> ConditionResult:
    condition = Condition(task, "m", name, f"Do {name}.", 0, repetition, "likelihood", train_loss)
    outcomes = tuple(
        Outcome(str(n), value, "a" if value else None, loss=0.5 if value else 1.5)
        for n, value in enumerate(right)
    )
    return ConditionResult(condition, outcomes)


def draw(seed: int, share: float, n: int = 200) -> list[bool]:
    rng = random.Random(seed)
    return [rng.random() < share for _ in range(n)]


def three_tasks() -> Summary:
    found = []
    for number, (before, after, free) in enumerate([(0.3, 0.7, 0.4), (0.5, 0.52, 0.8), (0.6, 0.3, 0.2)]):
        found += [
            evaluated(f"t{number}", "start", draw(number, before), train_loss=2.0),
            evaluated(f"t{number}", "best", draw(10 + number, after), train_loss=1.0),
            evaluated(f"t{number}", "description", draw(20 + number, free)),
        ]
    return summarise(found, FREE)


def test_the_best_is_compared_with_the_start_and_with_the_strongest_of_what_was_free() -> None:
    summary = three_tasks()
    assert [(gain.task, gain.against, gain.other) for gain in summary.gains] == [
        ("t0", "start", "start"),
        ("t1", "start", "start"),
        ("t2", "start", "start"),
        ("t0", "free", "description"),
        ("t1", "free", "description"),
        ("t2", "free", "start"),
    ]
    over_start = summary.gains[:3]
    assert [gain.significant for gain in over_start] == [True, False, True]
    assert over_start[2].accuracy.difference.value < 0
    for gain in over_start:
        assert gain.p_adjusted >= gain.accuracy.p_value
    smallest = min(gain.accuracy.p_value for gain in over_start)
    assert min(gain.p_adjusted for gain in over_start) == pytest.approx(3 * smallest)


def test_losses_are_compared_as_well() -> None:
    gain = three_tasks().gains[0]
    assert gain.loss is not None
    assert gain.loss.difference.high < 0
    assert gain.loss.p_value < 0.05


@pytest.mark.slow
def test_all_tasks_together_weigh_the_same() -> None:
    [overall] = three_tasks().overall
    assert set(overall.accuracies) == {"start", "best", "description"}
    rows = [row for row in three_tasks().rows if row.name == "best"]
    assert overall.accuracies["best"].value == pytest.approx(sum(row.accuracy.value for row in rows) / 3)
    assert overall.gains["start"].difference.n == 600


def test_repetitions_are_averaged_by_example() -> None:
    runs = [draw(1, 0.5), draw(2, 0.5)]
    found = [evaluated("t", "start", right, repetition=n) for n, right in enumerate(runs)]
    found += [
        evaluated("t", "best", right, repetition=n) for n, right in enumerate([draw(3, 0.6), draw(4, 0.6)])
    ]
    summary = summarise(found, FREE)
    [row, _] = summary.rows
    assert row.accuracy.n == 200
    assert row.accuracy.value == pytest.approx(sum(map(sum, runs)) / 400)
    before = [(a + b) / 2 for a, b in zip(*runs, strict=True)]
    after = [(a + b) / 2 for a, b in zip(draw(3, 0.6), draw(4, 0.6), strict=True)]
    assert summary.gains[0].accuracy == compare(before, after)


def test_a_table_has_every_start_and_no_candidate_but_the_best() -> None:
    names = ("start", "best", "start_2", "r0001-0003")
    found = [evaluated("t", name, draw(n, 0.5), train_loss=float(n)) for n, name in enumerate(names)]
    table = tables(summarise(found, {"start", "start_2"}))[0]
    assert [row[0] for row in table.rows] == ["start", "best", "start_2"]


def test_a_candidate_with_two_names_predicts_once() -> None:
    found = [evaluated("t", f"c{n}", draw(n, 0.5), train_loss=float(n)) for n in range(3)]
    twice = replace(found[2].condition, name="best")
    [prediction] = summarise([*found, replace(found[2], condition=twice)], FREE).predictions
    assert prediction.candidates == 3


def test_how_well_training_loss_predicts_accuracy_is_told() -> None:
    found = [evaluated("t", f"c{n}", draw(n, 0.2 + n / 20), train_loss=5.0 - n / 4) for n in range(12)]
    [prediction] = summarise(found, FREE).predictions
    assert prediction.candidates == 12
    assert prediction.correlation < -0.8
    assert prediction.p_value < 0.01


def test_replies_without_an_answer_are_counted() -> None:
    summary = summarise([evaluated("t", "start", [True, False, False, False])], FREE)
    assert summary.rows[0].unread == 0.75


def test_tables_say_what_is_not_significant() -> None:
    right = draw(5, 0.5)
    summary = summarise([evaluated("t", "start", right), evaluated("t", "best", right)], FREE)
    [table] = tables(summary)
    assert "95% intervals: Wilson" in table.notes[0]
    assert "NOT significant" in table.notes[1]
    assert "Tango; p of the same test" in table.notes[-1]
    text = io.StringIO()
    show([table], Console(file=text, width=120))
    assert "NOT significant" in text.getvalue()
    [many] = tables(three_tasks())
    assert "1 tasks significantly better, 1 significantly worse, 1 not" in many.notes[2]
    assert many.rows[-1][0] == "mean"
    assert {len(row) for row in many.rows} == {len(many.columns)}


def test_a_narrow_terminal_cuts_no_name() -> None:
    name = "mine.with_demonstrations_and_calibration"
    table = Table("t", ("task", *(f"instruction_{n}_of_the_paper" for n in range(6))), ((name, *"abcdef"),))
    text = io.StringIO()
    show([table], Console(file=text, width=80))
    assert "…" not in text.getvalue()
    assert name in "".join(line[:14].strip() for line in text.getvalue().splitlines()[1:])


def test_p_values_are_corrected_over_models_and_shots_too() -> None:
    found = [
        replace(one, condition=replace(one.condition, model=model, shots=shots))
        for model in ("m", "n")
        for shots in (0, 5)
        for task in ("a", "b")
        for one in (
            evaluated(task, "start", draw(1, 0.5)),
            evaluated(task, "best", draw(2 + shots, 0.6 if model == "m" else 0.5)),
        )
    ]
    summary = summarise(found, {"start"})
    for against in ("start", "free"):
        gains = [gain for gain in summary.gains if gain.against == against]
        assert [gain.tests for gain in gains] == [8] * 8
        plain = [gain.accuracy.p_value for gain in gains]
        assert [gain.p_adjusted for gain in gains] == list(holm(plain))
        together = [overall.gains[against].p_value for overall in summary.overall]
        assert [overall.p_adjusted[against] for overall in summary.overall] == list(holm(together))
    assert all("corrected for 8 tests (Holm)" in " ".join(table.notes) for table in tables(summary))


def labelled(name: str, right: list[bool], labels: list[str]) -> ConditionResult:
    return replace(evaluated("spam", name, right), labels=tuple(labels))


def test_uneven_labels_have_accuracies_of_their_own() -> None:
    labels = ["ham"] * 90 + ["spam"] * 10
    always_ham = labelled("start", [True] * 90 + [False] * 10, labels)
    better = labelled("best", [True] * 72 + [False] * 18 + [True] * 8 + [False] * 2, labels)
    summary = summarise([always_ham, better], {"start"})
    [start, best] = summary.rows
    assert start.by_label is not None
    assert best.by_label is not None
    assert [part.label for part in best.by_label.labels] == ["ham", "spam"]
    assert [part.accuracy for part in best.by_label.labels] == [
        wilson_interval(72, 90),
        wilson_interval(8, 10),
    ]
    assert (start.accuracy.value, start.by_label.balanced.value) == (0.9, 0.5)
    assert (best.accuracy.value, best.by_label.balanced.value) == (0.8, 0.8)
    [main, parts] = tables(summary)
    assert main.columns[:3] == ("instruction", "accuracy % [95%]", "balanced % [95%]")
    assert parts.rows[1][0] == "spam"
    assert parts.rows[1][1] == "10"
    document = json.loads(json.dumps(summary_json(summary, "r"), allow_nan=False))
    assert document["rows"][1]["by_label"]["balanced"]["method"] == "Wilson by label"
    several = summarise(
        [one for task in ("a", "b") for one in (in_task(always_ham, task), in_task(better, task))], {"start"}
    )
    [_, balanced] = tables(several)
    assert balanced.title == "m, 0 shots: balanced accuracy % [95%]"
    assert [row[0] for row in balanced.rows] == ["a", "b"]


def in_task(result: ConditionResult, task: str) -> ConditionResult:
    return replace(result, condition=replace(result.condition, task=task))


def test_even_labels_have_none() -> None:
    found = labelled("start", draw(1, 0.5, 100), ["ham", "spam"] * 50)
    assert summarise([found], {"start"}).rows[0].by_label is None
    assert summarise([evaluated("t", "start", draw(1, 0.5))], {"start"}).rows[0].by_label is None


def test_texts_cannot_break_out_of_a_table() -> None:
    name = "a|b*<b>\n\x1b[31m&%$#_{}~^\\"
    found = tables(summarise([evaluated("t", name, [True, False])], FREE))
    text = markdown(found)
    assert text.count("\n") == markdown(tables(summarise([evaluated("t", "x", [True, False])], FREE))).count(
        "\n"
    )
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "\x1b" not in text + latex(found)
    row = next(line for line in latex(found).splitlines() if line.startswith("a|b"))
    assert r"\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in row


def test_json_holds_the_numbers() -> None:
    document = json.loads(json.dumps(summary_json(three_tasks(), "runs/x"), allow_nan=False))
    assert document["run_dir"] == "runs/x"
    assert document["gains"][0]["significant"] is True
    assert document["rows"][0]["accuracy"]["n"] == 200


def test_outcomes_survive_their_files() -> None:
    outcomes = (
        Outcome("1", True, "a", "reply \ud800 <b>", loss=0.1, score=0.9, tokens=4),
        Outcome("2", False, None),
    )
    assert decode_outcomes(encode_outcomes(outcomes)) == outcomes
    found = (
        ConditionResult(Condition("t", "m", "start", "Do \x1a.", 0, 0, "generation"), outcomes),
        ConditionResult(
            Condition("t", "m", "best", "Do.", 2, 1, "likelihood", 0.5, ("\x1ab", "c")),
            outcomes[:1],
            ("\x1aa",),
        ),
    )
    assert decode_evaluation(encode_evaluation(found)) == found


def test_an_evaluation_of_an_earlier_version_has_no_labels() -> None:
    found = (
        ConditionResult(Condition("t", "m", "best", "Do.", 2, 1, "likelihood"), (Outcome("1", True, "a"),)),
    )
    table = from_parquet(encode_evaluation(found), EVALUATION_SCHEMA)
    assert decode_evaluation(to_parquet(table.drop_columns(["label", "own_shots"]))) == found
