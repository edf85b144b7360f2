"""Keys of the conditions of an evaluation, and the names of a run's own instructions.

Invariant: two conditions have the same key exactly if the same requests go to the same model, so that no
condition is measured twice, and no outcome is reused for a different condition.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

from pmpo_ray.config.base import Calibrate
from pmpo_ray.config.evaluation import EvaluationConfig
from pmpo_ray.outcomes import Condition
from pmpo_ray.types import EngineInfo, Example, LayoutSetting

START, BEST = "start", "best"
"""The names of a run's first and best instruction."""
_A_START = re.compile(rf"{START}(?:_\d+)?")


def start_name(number: int) -> str:
    """The name of a run's start instruction with this number, from 1: start, start_2, start_3 and so on."""
    return START if number == 1 else f"{START}_{number}"


def names_a_start(name: str) -> bool:
    """True if `name` is that of a start instruction, or reserved for one."""
    return _A_START.fullmatch(name) is not None


def condition_key(
    condition: Condition,
    info: EngineInfo,
    examples: Sequence[Example],
    shots: Sequence[Example],
    settings: EvaluationConfig,
    *,
    layout: LayoutSetting,
    start: str,
    objective: str,
    calibrate: Calibrate,
    trained: Sequence[Example] = (),
    per_token: bool = False,
    seed: int,
) -> str:
    """A hash of everything that the outcomes depend on: 32 hexadecimal digits. `layout` is that of the
    scorer, in which a generator writes too; `start` is the instruction whose answers are a judge's
    references; `per_token`: answers are chosen by log-likelihood per token; `trained` is the training part,
    whose inputs may calibrate."""
    inputs: dict[str, object] = {
        "engine": [info.engine, info.model, info.revision, info.layout, info.dtype, info.encoding],
        "instruction": condition.instruction,
        "examples": [[e.id, e.input, e.target, *e.negatives] for e in examples],
        "shots": [[e.input, e.target] for e in shots],
    }
    if also_right := {e.id: e.also_right for e in examples if e.also_right}:
        inputs["also_right"] = also_right
    if condition.method == "likelihood":
        inputs |= {"objective": objective, "calibrate": calibrate}
        if calibrate == "inputs":
            inputs["trained"] = [[e.input, e.target, *e.negatives] for e in trained]
        if per_token:  # outcomes that were measured before this setting existed keep their keys
            inputs["per_token"] = True
    else:
        reward, judge = settings.process_reward, settings.judge
        inputs |= {
            "layout": layout,
            "sampling": [settings.max_tokens, settings.temperature, settings.top_p, settings.follow_up],
            "evaluator": [settings.evaluator.model, settings.evaluator.engine],
            "reward": [reward.model, reward.revision, reward.separator],
            "judge": [judge.model, judge.annotator, judge.references],
            "start": start if condition.method == "judged" else "",
            "seed": [condition.task, seed, condition.repetition] if settings.temperature else [],
        }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]
