"""The page: the template filled with the view, the style and the script.

Invariant: the template escapes every text; only the project's style and script, and the pictures, are
inserted as markup.
"""

from __future__ import annotations

import base64
import hashlib
import math
from functools import cache
from importlib import resources
from pathlib import Path

import jinja2

from pmpo_ray.display.accuracies import corrected_words, interval_words
from pmpo_ray.display.numbers import accuracy_text, loss_text, p_value_text
from pmpo_ray.errors import RunFolderError
from pmpo_ray.evaluation.labels import UNEVEN
from pmpo_ray.history.run_history import RunHistory, read_history
from pmpo_ray.report.script_data import OPERATORS
from pmpo_ray.report.view import duration, page_view
from pmpo_ray.store import RunStore, write_document
from pmpo_ray.text import visible

REPORT = "report.html"


def write_report(location: str, output: str | None = None) -> str:
    """Write the report of the run in the folder `location` (a path or s3://...) to the file `output` (None:
    report.html in the run folder), and return its address.

    Raises RunFolderError if there is nothing to report on or the file cannot be written, and ConfigError if
    the library that draws is not installed.
    """
    store = RunStore.open(location)
    page = render(read_history(store)).encode()
    if output is None:
        return store.write_file(REPORT, page)
    path = Path(output)
    try:
        write_document(location, path, page)
    except OSError as error:
        raise RunFolderError(
            f"{output} cannot be written: {error.strerror or error}; name another file"
        ) from None
    return str(path)


def render(history: RunHistory) -> str:
    """The whole page. Raises ConfigError if the library that draws is not installed."""
    script = _file("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        page=page_view(history), style=_file("style.css"), script=script, script_hash=digest
    )


def _file(name: str) -> str:
    return resources.files("pmpo_ray.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pmpo_ray.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": visible,
        "loss": loss_text,
        "signed": _signed,
        "points": _points,
        "p": p_value_text,
        "percent": accuracy_text,
        "methods": interval_words,
        "corrected": corrected_words,
        "duration": duration,
        "operator": _operator,
    }
    environment.globals["uneven"] = UNEVEN
    return environment.get_template("page.html")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−") if math.isfinite(value) else "–"


def _points(difference: float) -> str:
    return f"{difference * 100:+.1f}".replace("-", "−")


def _operator(name: str) -> str:
    return OPERATORS.get(name, visible(name))
