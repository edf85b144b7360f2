"""Reading rows from data sets on the public hub.

Invariants: a hub that cannot be reached is reported within seconds: the client library would retry for almost
half a minute per file, so a request to the hub comes first. In offline mode (HF_HUB_OFFLINE=1) only the local
cache is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.http_status import http_status
from pmpo_ray.tasks.records import Record
from pmpo_ray.tasks.tables import table_records
from pmpo_ray.text import error_line

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


@dataclass(frozen=True, slots=True)
class HubSource:
    """One split of a hub data set. `revision` None means the default branch."""

    repository: str
    split: str
    config: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        middle = f"/{self.config}" if self.config else ""
        return f"{self.repository}{middle}[{self.split}]"


def read_hub(source: HubSource, advice: str) -> tuple[Record, ...]:
    """All rows of a hub split, with class labels as their names.

    Raises DataError, ending in `advice`, if the hub cannot be reached or does not have the data.
    """
    import datasets

    if not datasets.config.HF_HUB_OFFLINE:
        _require_reachable(datasets.config.HF_ENDPOINT, source, advice)
    try:
        table = datasets.load_dataset(
            source.repository, source.config, split=source.split, revision=source.revision
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"hub data set {source}: cannot be loaded ({error_line(error)}); {advice}") from error
    return tuple(data_set_records(table, f"hub data set {source}"))


def data_set_records(table: Dataset, where: str) -> Iterator[Record]:
    """The rows of a data set, with class labels as their names, whatever format its rows are shown in. Raises
    DataError for a class without a name."""
    return table_records(cast("pa.Table", table.with_format("arrow")[:]), where)


def _require_reachable(endpoint: str, source: HubSource, advice: str) -> None:
    try:
        http_status(endpoint)  # any status will do: the hub can be reached
    except OSError as error:
        raise DataError(
            f"hub data set {source}: {endpoint} cannot be reached ({error_line(error)}); {advice}"
        ) from error
