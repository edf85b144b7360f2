"""Standard error of the command: single lines, and the output of a process that logs, prints and fails.
The command itself is tested in test_main.py."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.cli.log_lines import LIMIT, json_line, one_line, text_line
from pmpo_ray.cli.progress_log import JsonProgress
from pmpo_ray.outcomes import Progress
from pmpo_ray.redaction import Redaction

ROOT = Path(__file__).parents[2]
HOSTILE = "no\nroom\x1b[2J\u2028\u202e\x00 sur\udc80"
nothing_hidden = Redaction({})


def record(
    message: str = "replica lost", level: int = logging.WARNING, **fields: object
) -> logging.LogRecord:
    made = logging.LogRecord("pmpo_ray.actors.pool", level, "", 0, message, None, None)
    if fields:
        made.fields = fields
    return made


def read(line: str) -> dict[str, object]:
    assert line.isascii()
    assert len(line.splitlines()) == 1
    parsed = json.loads(line)
    assert isinstance(parsed, dict)
    return parsed


def test_a_json_line_has_the_four_keys_and_the_fields() -> None:
    made = record(pool="scorer", replica=3, share=0.5, gone=True, where=None)
    made.created = 0.0015
    assert read(json_line(made, nothing_hidden)) == {
        "time": "1970-01-01T00:00:00.001Z",
        "level": "warning",
        "logger": "pmpo_ray.actors.pool",
        "event": "replica lost",
        "pool": "scorer",
        "replica": 3,
        "share": 0.5,
        "gone": True,
        "where": None,
    }


def test_fields_cannot_hide_the_four_keys_and_numbers_that_json_lacks_are_null() -> None:
    made = record()
    made.fields = {"level": 3, "event": "x", "loss": math.nan, "most": math.inf}
    shown = read(json_line(made, nothing_hidden))
    assert (shown["level"], shown["event"]) == ("warning", "replica lost")
    assert (shown["level_"], shown["event_"]) == (3, "x")
    assert (shown["loss"], shown["most"]) == (None, None)


def test_a_field_that_is_no_scalar_is_shown_as_text_and_fields_that_are_no_mapping_are_left_out() -> None:
    assert read(json_line(record(states=["ready"]), nothing_hidden))["states"] == "['ready']"
    made = record()
    made.fields = ["not", "ours"]
    assert set(read(json_line(made, nothing_hidden))) == {"time", "level", "logger", "event"}
    assert text_line(made, nothing_hidden) == "replica lost"


@given(st.text(st.characters()))
def test_no_text_breaks_a_line(text: str) -> None:
    made = record(text, reason=text)
    shown = read(json_line(made, nothing_hidden))
    assert all(isinstance(shown[key], str) and len(str(shown[key])) <= LIMIT for key in ("event", "reason"))
    json.dumps(shown, ensure_ascii=False).encode()  # no half of a surrogate pair is left
    line = text_line(made, nothing_hidden)
    assert len(line.splitlines()) <= 1
    assert not any(ord(character) < 32 for character in line)


def test_ordinary_text_arrives_as_it_was() -> None:
    text = '日本 \N{GRINNING FACE}\n\ttab "quoted" back\\slash'
    assert read(json_line(record(reason=text), nothing_hidden))["reason"] == text


def test_long_texts_keep_their_beginning_and_their_end() -> None:
    long = "begin " + "x" * 10_000 + " end"
    short = one_line(long, nothing_hidden)
    assert len(short) <= LIMIT
    assert (short[:6], short[-4:]) == ("begin ", " end")
    assert one_line("x" * LIMIT, nothing_hidden) == "x" * LIMIT


def test_text_shows_a_record_on_one_line() -> None:
    made = record(pool="scorer", replica=3, reason=HOSTILE)
    assert text_line(made, nothing_hidden) == (
        r"replica lost  pool=scorer  replica=3  reason=no room\x1b[2J\u2028\u202e\x00 sur\udc80"
    )


def test_a_traceback_follows_indented_in_text_and_is_a_field_in_json() -> None:
    try:
        raise ValueError("bad\nERROR forged line")
    except ValueError:
        made = logging.LogRecord("x", logging.ERROR, "", 0, "failed", None, sys.exc_info())
    first, *rest = text_line(made, nothing_hidden).splitlines()
    assert first == "failed"
    assert rest[-1] == "  ERROR forged line"
    assert all(line.startswith("  ") for line in rest)
    exception = str(read(json_line(made, nothing_hidden))["exception"])
    assert exception.startswith("Traceback")
    assert exception.endswith("ValueError: bad\nERROR forged line")


def test_a_message_whose_arguments_do_not_fit_is_shown_without_them() -> None:
    made = logging.LogRecord("x", logging.ERROR, "", 0, "%d of %d", ("many",), None)
    assert read(json_line(made, nothing_hidden))["event"] == "%d of %d"


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("HF_TOKEN", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("api_key", True),
        ("CLIENT_SECRET", True),
        ("DB_PASSWORD", True),
        ("CLOUD_CREDENTIALS", True),
        ("HF_TOKEN_PATH", False),
        ("HOME", False),
    ],
)
def test_values_of_variables_named_like_secrets_are_hidden(name: str, hidden: bool) -> None:
    shown = Redaction({name: "s3cr3t/+value"})("a s3cr3t/+value b s3cr3t%2F%2Bvalue")
    assert shown == ("a *** b ***" if hidden else "a s3cr3t/+value b s3cr3t%2F%2Bvalue")


def test_short_values_are_no_secrets_and_overlapping_ones_go_whole() -> None:
    redact = Redaction({"A_KEY": "1234567", "B_KEY": "12345678", "C_KEY": "123456789", "D_KEY": ""})
    assert redact("1234567 12345678 123456789") == "1234567 *** ***"


def test_a_secret_of_several_lines_is_hidden_line_by_line_too() -> None:
    redact = Redaction({"SSH_KEY": "-----BEGIN KEY-----\nMIIEvQIBADAN\n-----END KEY-----\n"})
    assert redact("-----BEGIN KEY-----\nMIIEvQIBADAN\n-----END KEY-----") == "***"
    assert redact("the line MIIEvQIBADAN alone") == "the line *** alone"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AKIA:abc@bucket/x", "s3://***@bucket/x"),
        ("no https://ghp_abc@github.com/x, sorry", "no https://***@github.com/x, sorry"),
        ("s3://AKIA:a/b+c@bucket/x", "s3://***@bucket/x"),
        ("redis://:pa@ss@host:6379/0", "redis://***@host:6379/0"),
        ("at http://127.0.0.1:8265/api?user=me@x", "at http://127.0.0.1:8265/api?user=me@x"),
        ("http://host/path@v1 and me@example.org", "http://host/path@v1 and me@example.org"),
    ],
)
def test_credentials_in_urls_are_hidden(text: str, shown: str) -> None:
    assert nothing_hidden(text) == shown


@given(st.text(st.characters(), min_size=8), st.text(st.characters()), st.integers(0, 3 * LIMIT))
def test_no_secret_shows_in_any_line(secret: str, around: str, padding: int) -> None:
    """Not even a part of it, if the text is cut there."""
    redact = Redaction({"SOME_TOKEN": f"\n{secret}marker4711{secret}"})
    text = f"{'x' * padding}{around}{secret}marker4711{secret}{around}"
    made = record(text, reason=text)
    assert "marker4711" not in json_line(made, redact)
    assert "marker4711" not in text_line(made, redact)
    assert "marker4711" not in one_line(text, redact)


def test_progress_is_logged_at_every_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pmpo_ray")
    observe = JsonProgress()
    observe(Progress("tickets", "scoring", 0, 3))
    observe(Progress("tickets", "scoring", 0, 3, (), 50, 0))
    observe(Progress("tickets", "failed", 1, 3, (2.0, 1.5), 1234, 56, note="no room"))
    assert [(r.name, r.levelname, r.getMessage(), r.__dict__["fields"]) for r in caplog.records] == [
        (
            "pmpo_ray.progress",
            "INFO",
            "progress",
            {
                "task": "tickets",
                "state": "scoring",
                "round": 0,
                "rounds": 3,
                "loss": None,
                "tokens_scored": 0,
                "tokens_prompted": 0,
                "tokens_generated": 0,
            },
        ),
        (
            "pmpo_ray.progress",
            "ERROR",
            "progress",
            {
                "task": "tickets",
                "state": "failed",
                "round": 1,
                "rounds": 3,
                "loss": 1.5,
                "tokens_scored": 1234,
                "tokens_prompted": 0,
                "tokens_generated": 56,
                "note": "no room",
            },
        ),
    ]


PROGRAM = r"""
import logging, os, subprocess, sys, warnings
from pmpo_ray.cli.standard_error import standard_error

with standard_error(sys.argv[1], os.environ):
    pool = logging.getLogger("pmpo_ray.actors.pool")
    pool.info("replica started", extra={"fields": {"pool": "scorer", "replica": 3}})
    pool.warning("replica lost", extra={"fields": {"pool": "scorer", "reason": "hunter2hunter2\nat s3://a:b@c"}})
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("slow %s", "path")
    if sys.argv[1] == "json":
        warnings.warn("old thing")
        print("printed", file=sys.stderr)
        print("10%\r50%\r100%", file=sys.stderr)
        subprocess.run(["sh", "-c", "echo from a child, token hunter2hunter2 >&2"])
        os.write(2, b"\xff no line end")
    if sys.argv[2] == "fail":
        raise RuntimeError("hunter2hunter2")
print("after", file=sys.stderr)
"""


def program(log_format: str, ending: str = "end") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, log_format, ending],
        cwd=ROOT,
        env={**os.environ, "MY_PASSWORD": "hunter2hunter2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_in_json_all_that_anyone_writes_to_standard_error_is_an_object() -> None:
    done = program("json")
    assert (done.returncode, done.stdout) == (0, "")
    *lines, after = done.stderr.splitlines()
    assert after == "after"
    shown = [read(line) for line in lines]
    for entry in shown:
        moment = datetime.fromisoformat(str(entry["time"]))
        assert moment.utcoffset() is not None
    # Those that come through the pipe may arrive later than those that are logged, but in their order.
    logged = [(e["level"], e["logger"], e["event"]) for e in shown if e["logger"] != "stderr"]
    assert logged[:3] == [
        ("info", "pmpo_ray.actors.pool", "replica started"),
        ("warning", "pmpo_ray.actors.pool", "replica lost"),
        ("warning", "library", "slow path"),
    ]
    [warned] = [entry for entry in shown if entry["logger"] == "py.warnings"]
    assert "UserWarning: old thing" in str(warned["event"])
    assert [entry["event"] for entry in shown if entry["logger"] == "stderr"] == [
        "printed",
        "100%",
        "from a child, token ***",
        r"\xff no line end",
    ]
    [lost] = [entry for entry in shown if entry["event"] == "replica lost"]
    assert (lost["pool"], lost["reason"]) == ("scorer", "***\nat s3://***@c")


def test_in_json_an_exception_that_ends_the_process_is_an_object_too() -> None:
    done = program("json", "fail")
    assert done.returncode == 1
    last = [read(line) for line in done.stderr.splitlines()][-1]
    assert (last["level"], last["event"]) == ("critical", "internal error")
    assert str(last["exception"]).endswith("RuntimeError: ***")


def test_in_text_warnings_are_lines_and_information_is_not_shown() -> None:
    assert program("text").stderr.splitlines() == [
        "replica lost  pool=scorer  reason=*** at s3://***@c",
        "slow path",
        "after",
    ]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_log_that_nobody_reads_does_not_end_the_process(log_format: str) -> None:
    script = (
        "import logging, os, sys\n"
        "from pmpo_ray.cli.standard_error import standard_error\n"
        "sys.stdin.read()\n"  # until the reader of standard error has gone
        "with standard_error(sys.argv[1], os.environ):\n"
        "    for _ in range(3):\n"
        "        logging.getLogger('pmpo_ray.actors.pool').warning('lost')\n"
        "        print('printed', file=sys.stderr) if sys.argv[1] == 'json' else None\n"
        "print('finished')\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", script, log_format],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    running.stderr.close()
    running.stderr = None
    stdout, _ = running.communicate(timeout=60)
    assert stdout == "finished\n"
