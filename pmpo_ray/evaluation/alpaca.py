"""AlpacaEval 2 with a judge at any OpenAI-compatible endpoint.

Invariants:
- The package alpaca_eval evaluates: its prompts, its order of the two outputs, its parsing of the replies and
  its rates. Only the connection to the judge is this project's.
- A pair is decided, or counted as undecided and marked as such in the annotations; a rate over no pairs is an
  error.
- Nothing is written except the cache file that the caller names and the downloads that the hub's client
  keeps. The only file requested from the hub is the one that length control needs.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pmpo_ray.config.engines import EndpointConfig
from pmpo_ray.errors import ConfigError, DataError, ModelError
from pmpo_ray.evaluation.alpaca_judge import Judge, without_chat_marks
from pmpo_ray.evaluation.alpaca_rows import Pair, Rows, filled, paired
from pmpo_ray.text import error_line

_log = logging.getLogger(__name__)

Method = Literal["weighted", "plain"]
"""The judge's reply: one token, whose probabilities are the preference (AlpacaEval 2), or a ranking in words,
which needs no log-probabilities (AlpacaEval 1)."""

_CONFIGS: Mapping[Method, str] = {
    "weighted": "weighted_alpaca_eval_gpt4_turbo",
    "plain": "alpaca_eval_gpt4",
}
"""The package's annotators, whose templates, parameters and parsers are used."""
_PUBLISHED = 805
"""Number of AlpacaEval's instructions. Length control looks up their difficulties by position."""


@dataclass(frozen=True, slots=True)
class WinRate:
    """The rates at which outputs are preferred to references, in percent. `n` pairs were decided; `undecided`
    pairs count for neither side. `length_controlled` is None if it is not available, `standard_error` for a
    single pair. `annotations` has the package's row for every pair, in the order of the references, with
    "preference" from 1 (for output_1, the reference) to 2 (for output_2), or None if undecided."""

    win_rate: float
    length_controlled: float | None
    standard_error: float | None
    n: int
    undecided: int
    annotations: list[dict[str, Any]]


def win_rates(
    outputs: Rows,
    references: Rows,
    *,
    judge: str,
    endpoint: EndpointConfig,
    method: Method = "weighted",
    length_controlled: bool = True,
    cache: str | Path | None = None,
) -> WinRate:
    """Have the model `judge` compare outputs with references. Both answer the same instructions in the same
    order, and come from `outputs_document`.

    `endpoint.parameters` override those of the package's annotator; null removes one. In the JSON file
    `cache` the package saves annotations as they arrive, undecided ones too, and continues from them. The
    length-controlled rate is defined only for the 805 published instructions in their order. The call blocks;
    from a coroutine, run it in a thread.

    Raises ConfigError if the package or the key is missing, DataError for unusable rows or an unusable cache,
    ModelError if the judge is not served or decides no pair, and EndpointError if the server fails.
    """
    pairs = paired(outputs, references)
    if cache is not None:
        _check_cache(Path(cache))
    with _package_silenced():
        _require_package()
        annotations, rates, refusal = _judged(pairs, judge, endpoint, method, cache)
        controlled, reason = _length_controlled(annotations) if length_controlled else (None, "")
    undecided = sum(row["preference"] is None for row in annotations)
    if undecided:
        _log.warning(
            "judge %r did not decide %d of %d pairs; the win rate is over the others%s",
            judge,
            undecided,
            len(pairs),
            f"; last error: {refusal}" if refusal else "",
        )
    if reason:
        _log.warning("no length-controlled win rate: %s", reason)
    return WinRate(
        win_rate=float(rates["win_rate"]),
        length_controlled=controlled,
        standard_error=filled(float(rates["standard_error"])),
        n=len(pairs) - undecided,
        undecided=undecided,
        annotations=annotations,
    )


def _judged(
    pairs: Sequence[Pair], judge: str, endpoint: EndpointConfig, method: Method, cache: str | Path | None
) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """The annotations of all pairs, the rates, and the error of the last prompt that the judge did not accept
    (empty if it accepted all). Raises ModelError if no pair is decided."""
    with asyncio.Runner() as runner:
        connection = Judge(endpoint, runner)
        try:
            connection.find(judge)
            annotations, rates = _evaluate(pairs, connection, method, cache)
        finally:
            connection.close()
    if all(row["preference"] is None for row in annotations):
        raise ModelError(
            f"{connection.where}: judge {judge!r} decided none of {len(pairs)} pairs ({connection.last}); "
            "use a judge that replies in the requested form"
        )
    return annotations, rates, connection.refusal


def _evaluate(
    pairs: Sequence[Pair], connection: Judge, method: Method, cache: str | Path | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The package's annotations and rates."""
    from alpaca_eval import evaluate
    from alpaca_eval.annotators import PairwiseAnnotator

    def annotator(**settings: Any) -> Any:
        pool = PairwiseAnnotator(**settings)
        (single,) = pool.annotators.values()
        single.prompt_template = without_chat_marks(single.prompt_template)
        single.fn_completions = connection.complete
        # The cache identifies a judge by this name.
        pool.annotators = {f"{_CONFIGS[method]}/{connection.model}": single}
        return pool

    name = "outputs"
    board, annotated = evaluate(
        model_outputs=[output for output, _ in pairs],
        reference_outputs=[reference for _, reference in pairs],
        annotators_config=_CONFIGS[method],
        Annotator=annotator,
        annotation_kwargs={"is_ordered": True},
        caching_path=None if cache is None else str(cache),
        name=name,
        fn_metric=_rates,
        sort_by="win_rate",
        output_path=None,
        precomputed_leaderboard=None,
        is_cache_leaderboard=False,
        is_return_instead_of_print=True,
    )
    annotations = [{key: filled(value) for key, value in row.items()} for row in annotated]
    return annotations, board.loc[name].to_dict()


def _rates(annotations: Rows) -> dict[str, Any]:
    """The package's rates over the decided pairs. Without any, they are None: the package would fail."""
    from alpaca_eval.metrics import get_winrate

    decided = [row for row in annotations if row["preference"] is not None]
    rates: dict[str, Any] = get_winrate(decided) if decided else dict.fromkeys(("win_rate", "standard_error"))
    return rates


def _length_controlled(annotations: Rows) -> tuple[float | None, str]:
    """The package's length-controlled win rate, or None and the reason why it is not available."""
    if len(annotations) != _PUBLISHED:
        return None, f"it is defined for the {_PUBLISHED} published instructions, not for {len(annotations)}"
    import pandas as pd
    import sklearn
    from alpaca_eval.metrics import get_length_controlled_winrate

    frame = pd.DataFrame(annotations)[["preference", "output_1", "output_2"]]
    # The package would treat equal generators (one model with two prompts) as the same system.
    named = frame.assign(generator_1="references", generator_2="outputs")
    try:
        with sklearn.config_context():  # the package changes sklearn's settings permanently
            rates = get_length_controlled_winrate(
                named, save_weights_dir=None, is_add_glm_preference_inplace=False
            )
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors
        return None, f"the difficulties of the instructions cannot be loaded or fitted ({error_line(error)})"
    return float(rates["length_controlled_winrate"]), ""


def _require_package() -> None:
    try:
        import alpaca_eval  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"AlpacaEval needs the package alpaca_eval ({error}): pip install 'pmpo-ray[alpaca]'"
        ) from error


@contextmanager
def _package_silenced() -> Iterator[None]:
    """A context without log messages of the package, at whose end the root logger is as before. The package
    sets that logger's level, adds a handler if it has none, and logs whole replies with tracebacks; this
    module logs what matters instead."""
    root = logging.getLogger()
    level, handler = root.level, logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_from_elsewhere)
    try:
        yield
    finally:
        root.removeFilter(_from_elsewhere)
        root.removeHandler(handler)
        root.setLevel(level)


def _from_elsewhere(record: logging.LogRecord) -> bool:
    return "alpaca_eval" not in Path(record.pathname).parts


def _check_cache(path: Path) -> None:
    """Check that the package can read and write this file. Raises DataError if it cannot."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be used as a cache of annotations ({error}); name another file"
        ) from error
    if not isinstance(kept, list):
        raise DataError(f"{path}: is not a cache of annotations; name another file")
