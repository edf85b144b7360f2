"""The data of a task for the script of the page: every candidate and every training example.

Invariant: hidden characters of texts are written out.
"""

from __future__ import annotations

import base64
import gzip
import json
import math

from pmpo_ray.history.run_history import TaskHistory
from pmpo_ray.history.task_facts import race_note
from pmpo_ray.text import visible
from pmpo_ray.types import Candidate, Refusal

OPERATORS = {
    "seed": "start",
    "rewrite": "rewrite",
    "induce": "from examples",
    "contrast": "right against wrong",
    "shorten": "shortened",
    "repair": "repaired",
    "mask_drop": "part left out",
    "compose": "put together",
    "demonstrate": "demonstrations",
}
"""Names of the built-in operators on the page."""


def packed(task: TaskHistory) -> str:
    """JSON, gzip, base64. As the texts of a task resemble each other, this is a tenth of their size."""
    survived = task.survived
    rows = [
        _row(
            found.candidate,
            found.candidate.round,
            "survivor" if name in survived else "dropped",
            found.loss if math.isfinite(found.loss) else None,
            race_note(found),
        )
        for name, found in task.candidates.items()
    ]
    rows += [_row(refusal, number, refusal.status, None, refusal.reason) for number, refusal in task.refusals]
    rows.sort(key=lambda row: str(row[0]))
    examples = [[visible(example.input), visible(example.target)] for example in task.examples]
    document = {"candidates": rows, "examples": examples, "operators": OPERATORS}
    content = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _row(one: Candidate | Refusal, born: int, status: str, loss: float | None, reason: str) -> list[object]:
    """The values of a candidate that was made in the round `born`, in the order of the names in report.js."""
    texts = visible(one.text), visible(reason), [visible(name) for name in one.shots]
    return [one.id, born, one.parent, one.operator, status, loss, *texts]
