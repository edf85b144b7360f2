"""What a user is told when a run or an evaluation starts: where keys go, whose code runs, and which settings
say something else than others.

Invariant: nothing of a key is shown, only the name of its variable.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence

from pmpo_ray.config.endpoints import key_notes
from pmpo_ray.config.import_paths import note_import
from pmpo_ray.config.run import USES, RunConfig
from pmpo_ray.config.search import AUTO_OPERATORS
from pmpo_ray.config.secrets import keys_in_prompts
from pmpo_ray.notes import note
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.runs.run_manifest import engine_text
from pmpo_ray.types import EngineInfo

_log = logging.getLogger(__name__)


def announce_engines(scorer: EngineInfo, rewriter: EngineInfo) -> None:
    """Say which engines were started, and what a user should know about the scorer's."""
    for role, info in {"scorer": scorer, "rewriter": rewriter}.items():
        _log.info("%s", engine_text(role, info))
    if scorer.fallback:
        _log.warning("slow scorer: %s", scorer.fallback)
    if scorer.prompt_note:
        _log.warning("scorer: %s", scorer.prompt_note)


def announce_operators(prepared_tasks: Sequence[PreparedTask], rewriter: EngineInfo) -> None:
    """Say which tasks `search.operators` auto leaves without the operators that write."""
    left = [
        one.task.name
        for one in prepared_tasks
        if one.search.operators == "auto"
        and one.search.rounds
        and one.for_rewriter(rewriter).search.named_operators != AUTO_OPERATORS
    ]
    if left:
        tasks = "" if len(left) == len(prepared_tasks) else f"{', '.join(left)}: "
        note(
            f"{tasks}instructions are put together, not written, since a rewriter of {_size(rewriter)} "
            "writes few usable ones (search.operators: auto; [rewrite, compose] asks it all the same)"
        )


def _size(model: EngineInfo) -> str:
    billions = model.parameters / 1e9
    return f"{billions:.2g} billion parameters" if billions >= 0.001 else f"{model.parameters:,} parameters"


def announce_use(config: RunConfig) -> None:
    """Say which settings do not follow from `use`, because they or the preset were named."""
    other = [
        f"{section}.{key}={json.dumps(found)}, not {json.dumps(value)}"
        for section, settings in USES.get(config.use or "", {}).items()
        for key, value in settings.items()
        if (found := getattr(getattr(config, section), key)) != value
    ]
    if other:
        note(f"use: {config.use} does not decide all: {'; '.join(other)}, as set or by the preset")


def announce(config: RunConfig, environ: Mapping[str, str], *, evaluates: bool, local: bool) -> None:
    """Say which settings do not follow from `use`, which host gets the key of which variable, which modules
    the replicas import, and which prompt texts hold what looks like a key. `evaluates` is true for an
    evaluation, `local` if the replicas run on this machine, with the variables `environ`."""
    announce_use(config)
    for text in key_notes(config, environ, evaluates=evaluates, local=local):
        note(text)
    roles = {"scorer.engine": config.scorer}
    for key, replica in (
        roles if config.scorer.role == "both" else {**roles, "rewriter.engine": config.rewriter}
    ).items():
        if replica.has_custom_engine:
            note_import(replica.engine, key, importer="a replica")
    for key in keys_in_prompts(config):
        _log.warning(
            "%s holds what looks like a key: models, the run folder and reports get this text; if it is a "
            "real key, take it out and change it",
            key,
        )
