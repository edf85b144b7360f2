"""Records: rows of data as they were read, before their columns are mapped.

Invariants: a record has its place for error texts; no two columns of a record have the same name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pmpo_ray.errors import DataError
from pmpo_ray.text import excerpt


@dataclass(frozen=True, slots=True)
class Record:
    """A row as it was read: its values by column name, and its place for error texts. `header` is the place
    of the column names if they stand once for all rows."""

    values: Mapping[str, object]
    where: str
    header: str | None = None

    def has(self, column: str) -> bool:
        """True if there is a column of this name, as it stands or with blanks around it."""
        return self._name(column) is not None

    def value(self, column: str) -> object:
        """The value of a column that the record has. Raises KeyError for another."""
        name = self._name(column)
        if name is None:
            raise KeyError(column)
        return self.values[name]

    def _name(self, column: str) -> str | None:
        if column in self.values:
            return column
        return next((name for name in self.values if str(name).strip() == column.strip()), None)


def require_distinct(names: Iterable[object], where: str) -> None:
    """Raise DataError if a column name stands twice. Columns without a name may be many: no setting can name
    one, and spreadsheets write them at the end of their rows."""
    counts = Counter(str(name) for name in names)
    twice = next((name for name, count in counts.items() if count > 1 and name.strip()), None)
    if twice is not None:
        raise stands_twice("column", twice, where)


def stands_twice(what: str, name: str, where: str) -> DataError:
    """The error for a column or key that stands twice."""
    return DataError(f"{where}: the {what} {excerpt(name, 40)!r} stands twice; rename or remove one of them")
