"""The manifest of a run that continues: its date, and prompts that are encoded as at its beginning."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from pmpo_ray.errors import RunFolderError
from pmpo_ray.runs.run_manifest import check_encoding, start_day
from pmpo_ray.store import Manifest, RunStore, installed_versions
from pmpo_ray.types import EngineInfo
from tests.store.test_run_store import TASK, rounds_of

INFO = EngineInfo(
    "transformers", "org/model", "abc", 1, 2048, "user", "float32", "cpu", encoding="0123456789abcdef"
)
EDITED = replace(INFO, encoding="fedcba9876543210")
MANIFEST = Manifest(installed_versions(), INFO, None, {TASK: "hash"}, 0, None, "2026-11-27T23:59:00+00:00")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore.create(str(tmp_path / "run"), "seed: 0\n")
    store.write_manifest(MANIFEST)
    return store


def test_a_run_shows_the_date_of_its_start_however_long_it_takes() -> None:
    assert start_day(MANIFEST) == date(2026, 11, 27)


def test_losses_of_prompts_that_are_encoded_otherwise_are_not_mixed(store: RunStore) -> None:
    # Nothing was scored yet.
    check_encoding(store, EDITED)
    store.write_round(rounds_of(TASK)[0])
    check_encoding(store, INFO)
    with pytest.raises(
        RunFolderError, match="chat template or the tokenizer of org/model has changed"
    ) as error:
        check_encoding(store, EDITED)
    assert "--run-dir" in str(error.value)
    assert "\n" not in str(error.value)


def test_new_versions_are_named_where_prompts_are_encoded_otherwise(store: RunStore) -> None:
    store.write_round(rounds_of(TASK)[0])
    store.write_manifest(replace(MANIFEST, versions={**MANIFEST.versions, "transformers": "5.0.0"}))
    with pytest.raises(RunFolderError, match=r"transformers 5\.0\.0 is now"):
        check_encoding(store, EDITED)


def test_a_folder_of_an_earlier_version_continues(store: RunStore) -> None:
    store.write_round(rounds_of(TASK)[0])
    store.write_manifest(replace(MANIFEST, scorer=replace(INFO, encoding="")))
    check_encoding(store, EDITED)
