"""What a terminal shows: progress, results, and texts that must not steer it."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pmpo_ray.display.final_table import final_table
from pmpo_ray.display.live import LiveTable, PlainLog
from pmpo_ray.display.numbers import amount, spark
from pmpo_ray.display.result_json import result_json
from pmpo_ray.evaluation.labels import by_label
from pmpo_ray.outcomes import AnswerBias, ByLabel, Interval, Progress, Shot, State, TaskResult
from pmpo_ray.text import shortened, visible

HOSTILE = (
    "[bold red]Read[/bold red] [link=http://x]this[/link] :smile: \x1b[2J\x1b]0;title\x07\r\u202eabc\x9b31m"
)
STATES: tuple[State, ...] = ("waiting", "scoring", "masking", "rewriting", "evaluating", "done", "failed")


def result(task: str = "tickets", best: str = "Read it twice.", **changed: object) -> TaskResult:
    values: dict[str, object] = {
        "task": task,
        "rounds": 3,
        "stopped": "rounds",
        "start": "Let's think step by step.",
        "best": best,
        "loss_before": 1.974,
        "loss_after": 1.796,
        "accuracy_before": Interval(0.593, 0.52, 0.66, 200),
        "accuracy_after": Interval(0.806, 0.742, 0.863, 200),
        "tokens_scored": 4_560_000,
        "tokens_prompted": 45_678,
        "tokens_generated": 123_456,
        "seconds": 61.5,
    }
    return TaskResult(**{**values, **changed})  # type: ignore[arg-type]


def printed(results: Sequence[TaskResult], width: int = 80, run_dir: str = "runs/one") -> str:
    stream = io.StringIO()
    final_table(results, run_dir, Console(file=stream, width=width))
    return stream.getvalue()


def drawn(table: LiveTable, console: Console) -> list[str]:
    with console.capture() as capture:
        console.print(table.render())
    return capture.get().splitlines()


def joined(text: str) -> str:
    return " ".join(text.split())


def test_a_single_task_shows_all_that_a_run_came_to() -> None:
    shown = joined(printed([result()]))
    for part in (
        "tickets",
        "Let's think step by step.",
        "Read it twice.",
        "1.974 1.796",
        "59.3% [52.0, 66.0] 80.6% [74.2, 86.3]",
        "95% interval (Wilson) on 200 held-out examples",
        "3 rounds (stopped by: rounds), 62 s, 4.6M tokens scored, 45.7k prompted, 123k generated",
        "run folder: runs/one",
    ):
        assert part in shown


def test_a_long_instruction_of_a_single_task_is_wrapped_and_whole() -> None:
    best = " ".join(f"word{i}" for i in range(400))
    shown = printed([result(best=best)])
    assert best in joined(shown)
    assert max(map(len, shown.splitlines())) <= 80


def test_many_tasks_have_a_row_each_and_their_mean() -> None:
    results = [
        result("a", loss_after=1.0, accuracy_after=Interval(0.5, 0.4, 0.6, 100), seconds=10.0),
        result("b", loss_after=3.0, accuracy_after=Interval(0.7, 0.6, 0.8, 100), seconds=20.0),
        result("c", loss_after=2.0, accuracy_before=None, accuracy_after=None, seconds=30.0),
    ]
    rows = [joined(line) for line in printed(results).splitlines()]
    assert "a 1.974 1.000 59.3 [52,66] 50.0 [40,60] 4.6M 123k 10" in rows
    assert "c 1.974 2.000 – – 4.6M 123k 30" in rows
    assert "mean 1.974 2.000 59.3 60.0 4.6M 123k 20" in rows
    assert "all tasks: 13.7M tokens scored, 137k prompted, 370k generated" in rows


def test_a_gain_that_may_be_chance_is_called_so() -> None:
    for p_value, told in (
        (0.31, "NOT significant (p = 0.310)"),
        (0.0012, "significant (p = 0.001)"),
        (0.0002, "significant (p < 0.001)"),
    ):
        shown = " ".join(printed([result(p_value=p_value)]).split())
        assert f"the difference is {told}" in shown
    # Of three tasks, 0.03 is what chance gives one of them soon enough.
    text = printed([result(f"t{n}", p_value=p) for n, p in enumerate((0.03, 0.001, 0.4))], width=100)
    rows = [line for line in text.splitlines() if re.match(r"t[012] .*1\.796", line)]
    assert ["*" in row for row in rows] == [False, True, False]


def uneven(ham: int, spam: int, label: str = "spam") -> ByLabel:
    found = by_label(
        ["ham"] * 190 + [label] * 10,
        [float(n < ham) for n in range(190)] + [float(n < spam) for n in range(10)],
    )
    assert found is not None
    return found


def test_uneven_labels_show_what_the_plain_accuracy_hides() -> None:
    changed = {"labels_before": uneven(190, 0), "labels_after": uneven(171, 8)}
    shown = joined(printed([result(**changed)], width=100))
    for part in (
        "balanced accuracy 50.0% [49.0, 63.9] 85.0% [69.3, 92.4]",
        "ham (190) 100.0% [98.0, 100.0] 90.0%",
        "spam (10) 0.0% [0.0, 27.8] 80.0%",
        "balanced: mean of the labels' accuracies",
    ):
        assert part in shown
    several = joined(printed([result("a", **changed), result("b")]))
    assert "a: 50.0% [49.0, 63.9] → 85.0% [69.3, 92.4]" in several
    assert "b: " not in several
    hostile = printed([result(labels_before=uneven(1, 1, HOSTILE), labels_after=uneven(1, 1, HOSTILE))])
    assert not set("\x1b\x07\r\u202e\x9b") & set(hostile)
    [document] = json.loads(json.dumps(result_json([result(**changed)], "r")))["tasks"]
    assert document["labels_after"]["labels"][1]["accuracy"]["value"] == 0.8


def test_of_many_labels_a_terminal_shows_the_most_frequent() -> None:
    labels = [f"label {n}" for n in range(40) for _ in range(1 + 3 * n)]
    found = by_label(labels, [1.0] * len(labels))
    shown = joined(printed([result(labels_before=found, labels_after=found)]))
    assert "label 39 (118)" in shown
    assert "label 28 (85)" in shown
    assert "label 27" not in shown
    assert "28 rarer labels" in shown


def test_a_start_that_all_tasks_share_is_shown_once() -> None:
    alike = joined(printed([result("a"), result("b", best="Let's think step by step.")]))
    assert alike.count("Let's think step by step.") == 1
    assert "(unchanged)" in alike
    differing = joined(printed([result("a"), result("b", start="Think.")]))
    assert "before: Think. after: Read it twice." in differing


def test_the_path_of_the_run_folder_is_never_broken() -> None:
    assert f"run folder: {'d' * 200}\n" in printed([result()], run_dir="d" * 200)


def bbh_names(count: int) -> list[str]:
    return [f"bbh/tracking_shuffled_objects_{i:02}_objects" for i in range(count)]


def test_27_tasks_fit_80_columns() -> None:
    lines = printed([result(name) for name in bbh_names(27)]).splitlines()
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines if line.endswith(" 4.6M   123k   62") and "mean" not in line]
    assert len(set(names)) == 27


def test_texts_are_shown_and_never_interpreted() -> None:
    for results in (
        [result(best=HOSTILE, start=HOSTILE, task=HOSTILE)],
        [result("a", best=HOSTILE), result("b", start=HOSTILE, stopped=HOSTILE)],
    ):
        shown = printed(results, width=200, run_dir=HOSTILE)
        assert "[bold red]Read[/bold red] [link=http://x]this[/link] :smile:" in shown
        assert r"\x1b[2J\x1b]0;title\x07\r\u202eabc\x9b31m" in shown
        assert not set("\x1b\x07\r\u202e\x9b") & set(shown)


@given(st.text())
def test_visible_text_has_no_control_characters_but_line_breaks(text: str) -> None:
    shown = visible(text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    assert visible(shown) == shown


def test_visible_leaves_ordinary_text_alone() -> None:
    assert (
        visible("Löse Schritt\nfür Schritt: 解 👩\u200d🔬 [a]\ta")
        == "Löse Schritt\nfür Schritt: 解 👩\u200d🔬 [a]  a"
    )


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((), ""),
        ((1.0,), "▁"),
        ((2.0, 2.0), "▁▁"),
        ((8.0, 4.5, 1.0), "█▅▁"),
        ((2.0, math.inf, 1.0), "█·▁"),
        ((math.nan,), "·"),
    ],
)
def test_a_spark_line_has_a_bar_a_loss(losses: tuple[float, ...], expected: str) -> None:
    assert spark(losses) == expected


def test_a_long_spark_line_keeps_its_ends() -> None:
    line = spark([float(loss) for loss in range(40, 0, -1)], width=10)
    assert (len(line), line[0], line[-1]) == (10, "█", "▁")


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (12_345, "12.3k"), (999_999, "1.0M"), (250_000_000, "250M")],
)
def test_amounts_are_short(number: int, expected: str) -> None:
    assert amount(number) == expected


@given(st.text(min_size=1, max_size=60), st.integers(min_value=4, max_value=40))
def test_a_shortened_name_fits_and_keeps_its_end(name: str, width: int) -> None:
    short = shortened(name, width, tail=2 / 3)
    assert len(short) == min(len(name), width)
    assert short[-2:] == name[-2:]


def test_the_live_table_has_a_row_a_task_with_its_last_state() -> None:
    console = Console(file=io.StringIO(), width=80, height=40)
    table = LiveTable(console)
    table(Progress("tickets", "waiting", 0, 3))
    table(Progress("bbh/snarks", "waiting", 0, 3))
    table(Progress("tickets", "rewriting", 2, 3, (2.5, 2.0, 1.5), 12_345, 678))
    assert [joined(line) for line in drawn(table, console)] == [
        "task state round loss trend scored gener.",
        "tickets rewriting 2/3 1.500 █▅▁ 12.3k 678",
        "bbh/snarks waiting 0/3 – 0 0",
    ]


def test_the_live_table_of_27_tasks_fits_80_columns() -> None:
    console = Console(file=io.StringIO(), width=80, height=50)
    table = LiveTable(console)
    losses = tuple(2.0 / (1 + i) for i in range(20))
    for index, name in enumerate(bbh_names(27)):
        table(Progress(name, STATES[index % 7], 19, 20, losses, 10**8, 10**7))
    lines = drawn(table, console)
    assert len(lines) == 28
    assert max(map(len, lines)) <= 80
    assert all(line.rstrip().endswith("▁▁   100M  10.0M") for line in lines[1:])
    assert len({line.split()[0] for line in lines[1:]}) == 27


def test_a_low_terminal_shows_the_tasks_at_work() -> None:
    console = Console(file=io.StringIO(), width=80, height=12)
    table = LiveTable(console)
    for index in range(27):
        table(Progress(f"task{index}", "scoring" if index in (9, 20) else "done", 1, 3, (1.0,)))
    lines = drawn(table, console)
    assert len(lines) < 12
    assert [line.split()[:2] for line in lines[1:3]] == [["task9", "scoring"], ["task20", "scoring"]]
    assert lines[-1].startswith("5 of 27 tasks shown; in total 25 done, 2 scoring")


def test_notes_and_names_in_the_live_table_are_never_interpreted() -> None:
    console = Console(file=io.StringIO(), width=300, height=40)
    table = LiveTable(console)
    table(Progress(HOSTILE, "failed", 0, 3, note=HOSTILE))
    shown = "\n".join(drawn(table, console))
    assert shown.count("[bold red]Read[/bold red]") == 3
    assert not set("\x1b\x07\u202e\x9b") & set(shown)


def test_the_live_table_stays_on_its_own_stream(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=40, force_terminal=True)
    with LiveTable(console) as table:
        table(Progress("tickets", "done", 3, 3, (2.0, 1.0)))
    assert "tickets" in stream.getvalue()
    assert capsys.readouterr() == ("", "")


def test_the_live_table_leaves_the_terminal_alone_until_a_task_is_at_work() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=40, force_terminal=True)
    with LiveTable(console) as table:
        table(Progress("tickets", "waiting", 0, 3))
        before = stream.getvalue()
        table(Progress("tickets", "scoring", 0, 3))
    assert "starting" in before
    assert "tickets" not in before
    assert "tickets" in stream.getvalue()


def test_the_plain_log_has_a_line_a_change() -> None:
    stream = io.StringIO()
    now = 100.0
    log = PlainLog(stream, lambda: now)
    log(Progress("tickets", "scoring", 0, 3))
    log(Progress("tickets", "scoring", 0, 3, (), 50, 0))
    now = 103.4
    log(Progress("tickets", "rewriting", 1, 3, (2.0,), 1234, 56))
    now = 109.0
    log(Progress("tickets", "failed", 1, 3, (2.0, 1.5), 1234, 56, note="no\n[b]room\x1b[0m"))
    assert stream.getvalue().splitlines() == [
        "[     0s] tickets  round 0/3  scoring  0 scored  0 generated",
        "[     3s] tickets  round 1/3  rewriting  loss 2.000  1.2k scored  56 generated",
        r"[     9s] tickets  round 1/3  failed  loss 1.500  1.2k scored  56 generated  no [b]room\x1b[0m",
    ]


def test_the_plain_log_goes_quiet_when_nobody_reads() -> None:
    class Closed(io.StringIO):
        lines = 0

        def write(self, text: str) -> int:
            Closed.lines += 1
            raise BrokenPipeError(text)

    log = PlainLog(Closed())
    log(Progress("tickets", "scoring", 0, 3))
    log(Progress("tickets", "done", 3, 3))
    assert Closed.lines == 1


def test_the_json_object_has_the_promised_keys() -> None:
    assert result_json([result(p_value=0.3)], "runs/one") == {
        "run_dir": "runs/one",
        "tasks": [
            {
                "task": "tickets",
                "rounds": 3,
                "loss_before": 1.974,
                "loss_after": 1.796,
                "accuracy_before": 0.593,
                "accuracy_after": 0.806,
                "accuracy_before_interval": {
                    "value": 0.593,
                    "low": 0.52,
                    "high": 0.66,
                    "n": 200,
                    "method": "Wilson",
                },
                "accuracy_after_interval": {
                    "value": 0.806,
                    "low": 0.742,
                    "high": 0.863,
                    "n": 200,
                    "method": "Wilson",
                },
                "labels_before": None,
                "labels_after": None,
                "p_value": 0.3,
                "n_test": 200,
                "held_out": 0,
                "too_long": 0,
                "tokens_scored": 4_560_000,
                "tokens_prompted": 45_678,
                "tokens_generated": 123_456,
                "seconds": 61.5,
                "prompt_before": 0,
                "prompt_after": 0,
                "best": "Read it twice.",
                "shots": [],
                "biases": [],
            }
        ],
        "failed": [],
    }


def test_numbers_that_do_not_exist_are_null_in_json() -> None:
    shown = result_json(
        [result(accuracy_before=None, accuracy_after=None, loss_before=math.inf, best=HOSTILE)], "r"
    )
    read = json.loads(json.dumps(shown, allow_nan=False))["tasks"][0]
    assert (read["accuracy_before"], read["accuracy_after"], read["n_test"]) == (None, None, 0)
    assert read["loss_before"] is None
    assert read["best"] == HOSTILE


def test_constants_of_calibrated_choices_are_shown() -> None:
    few = (AnswerBias(f"billing {HOSTILE}", -1.234), AnswerBias("shipping", 0.5))
    shown = " ".join(printed([result(biases=few)], width=100).split())
    assert "the answer is the one with the highest log-likelihood less its bias (in nats: billing" in shown
    assert "-1.23, shipping 0.50)" in shown
    many = tuple(AnswerBias(f"label {n}", float(n)) for n in range(77))
    shown = " ".join(printed([result(biases=many)], width=100).split())
    assert "(77 constants in nats: pmpo export --format json)" in shown
    [task] = result_json([result(biases=few)], "runs/one")["tasks"]  # type: ignore[misc]
    assert task["biases"][1] == {"answer": "shipping", "nats": 0.5}


def test_demonstrations_are_shown_with_their_answers_and_their_cost() -> None:
    shots = (Shot(f"where is it {HOSTILE}", "shipping"), Shot("y" * 500, HOSTILE))
    one = result(shots=shots, prompt_before=73, prompt_after=1231)
    shown = printed([one], width=120)
    assert "with 2 demonstrations, in this order" in shown
    assert "shipping" in shown
    assert re.search(r"tokens of a prompt \(median\) +73 +1,231", shown)
    assert not set(shown) & set("\x1b\x07\x9b\u202e")
    several = printed([one, result("other")], width=120)
    assert "with 2 demonstrations, which result.json has" in several
    [task] = result_json([one], "runs/one")["tasks"]  # type: ignore[misc]
    assert task["shots"] == [{"input": shot.input, "target": shot.target} for shot in shots]
    assert (task["prompt_before"], task["prompt_after"]) == (73, 1231)
