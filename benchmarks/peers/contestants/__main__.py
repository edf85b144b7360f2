"""Run one contestant: `python -m benchmarks.peers.contestants NAME JOB.json OUTCOME.json`.

The outcome has the key `instruction`, and may have `shots` (demonstrations, as rows like those of the job),
`own_tokens` (those that the proxy did not see), `own_score` (what the optimizer believes), `stopped` (its
reason to stop) and any others.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from benchmarks.peers.job import Job

MODULES = {
    "pmpo": "pmpo",
    "pmpo_demos": "pmpo",
    "gepa": "reflective",
    "mipro": "mipro",
    "capo": "evolutionary",
    "evoprompt": "evolutionary",
    "opro": "evolutionary",
}
"""The module of each contestant, whose function `run` gets its name and the job."""


def main() -> None:
    name, job_file, outcome_file = sys.argv[1:]
    # A library is imported only in the process of its own contestant: no environment has all of them.
    module = importlib.import_module(f"benchmarks.peers.contestants.{MODULES[name]}")
    outcome = module.run(name, Job.read(Path(job_file)))
    Path(outcome_file).write_text(json.dumps(outcome, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
