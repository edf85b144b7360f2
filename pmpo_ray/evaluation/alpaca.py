"""AlpacaEval 2 with a judge at any OpenAI-compatible endpoint, and training pairs from its annotations.

Invariants:
- The package alpaca_eval evaluates: its prompts, its order of the two outputs, its reading of the replies and
  its rates. Only the way to the judge is this project's, so that the key goes to the endpoint alone.
- A pair is decided, or counted as undecided and shown as such in the annotations; no rate is over nothing.
- Nothing is written but the cache file that the caller names, and what the hub's client keeps of its own
  downloads. The hub is asked for one file, which length control needs, and for nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import EndpointConfig, ReplicaConfig
from pmpo_ray.engines.openai.client import Endpoint
from pmpo_ray.errors import ConfigError, DataError, EngineError, ModelError

_log = logging.getLogger(__name__)

Method = Literal["weighted", "plain"]
"""How a judge is asked: for one token, whose probabilities are the preference (AlpacaEval 2), or for a
ranking in words, which takes no log-probabilities (AlpacaEval 1)."""

_CONFIGS: Mapping[Method, str] = {
    "weighted": "weighted_alpaca_eval_gpt4_turbo",
    "plain": "alpaca_eval_gpt4",
}
"""The annotators of the package whose templates, parameters and parsers are taken."""
_PUBLISHED = 805
"""Instructions of AlpacaEval; the difficulties that length control uses are known by their numbers."""
_TIE = 1.5
_UNREAD = -1
"""How the package's cache files spell an undecided pair."""
_MARGIN_DIGITS = 4
_LONGEST_REPLY = 80
_TURN, _END = "\ue0f0turn\ue0f0", "\ue0f0end\ue0f0"
"""What stands for ChatML's marks in the templates: models' outputs may well hold the real ones."""

Rows = Sequence[Mapping[str, Any]]
Pair = tuple[dict[str, str], dict[str, str]]
"""An output and its reference."""


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often outputs are preferred to references, in percent. `n` pairs were decided, `undecided` ones
    count for neither side. `length_controlled` is None where it cannot be had, `standard_error` for a single
    pair. `annotations` has the package's row for every pair, in the order of the references: "preference" is
    1 (for output_1, the reference) to 2 (for output_2), None where it is undecided."""

    win_rate: float
    length_controlled: float | None
    standard_error: float | None
    n: int
    undecided: int
    annotations: list[dict[str, Any]]


def outputs_document(
    instructions: Sequence[str],
    outputs: Sequence[str],
    *,
    generator: str,
    datasets: Sequence[str] | None = None,
) -> list[dict[str, str]]:
    """What a model, called `generator`, made of the instructions, as the package reads it from a JSON file.
    `datasets` says where each instruction is from. Raises ValueError for lengths that differ."""
    origins = ["alpaca_eval"] * len(instructions) if datasets is None else datasets
    return [
        {"instruction": instruction, "output": output, "generator": generator, "dataset": dataset}
        for instruction, output, dataset in zip(instructions, outputs, origins, strict=True)
    ]


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
    """Have the model `judge` compare outputs with references, which answer the same instructions in the same
    order, both as from `outputs_document`. `endpoint.parameters` replace those of the package's annotator;
    null leaves one out. In `cache`, a JSON file, the package keeps annotations as they come, undecided ones
    too, and goes on from them. The length-controlled rate is for the 805 published instructions in their
    order alone. Blocks: from a coroutine, call it in a thread.

    Raises ConfigError where the package or the key is missing, DataError for rows or a cache that cannot be
    used, ModelError where the judge is not served or decides nothing, EndpointError where the server fails.
    """
    pairs = _pairs(outputs, references)
    if cache is not None:
        _check_cache(Path(cache))
    with _package_in_silence():
        _require_package()
        annotations, rates, refusal = _judged(pairs, judge, endpoint, method, cache)
        controlled, reason = _length_controlled(annotations) if length_controlled else (None, "")
    undecided = sum(row["preference"] is None for row in annotations)
    if undecided:
        _log.warning(
            "judge %r did not decide %d of %d pairs; the win rate is that of the others%s",
            judge,
            undecided,
            len(pairs),
            f"; the last refusal: {refusal}" if refusal else "",
        )
    if reason:
        _log.warning("no length-controlled win rate: %s", reason)
    return WinRate(
        win_rate=float(rates["win_rate"]),
        length_controlled=controlled,
        standard_error=_filled(float(rates["standard_error"])),
        n=len(pairs) - undecided,
        undecided=undecided,
        annotations=annotations,
    )


def preference_rows(annotations: Rows) -> list[dict[str, Any]]:
    """Training pairs as the task alpaca_eval reads them (alpaca_eval/pairs.jsonl): "instruction", "dataset",
    "chosen", "rejected", and "margin", how far the mean preference of all annotations of the pair is from a
    tie (0) towards certainty (1). Ties and undecided pairs are left out. Raises DataError for a row that is
    no annotation."""
    shares: dict[tuple[str, str, str], list[float]] = {}
    datasets: dict[tuple[str, str, str], str] = {}
    for number, row in enumerate(annotations, start=1):
        where = f"annotation {number}"
        instruction, *both = (_text(row, name, where) for name in ("instruction", "output_1", "output_2"))
        preference = _preference(row, where)
        if preference is None:
            continue
        # The same pair may have been judged in either order.
        first, second = sorted(both)
        key = (instruction, first, second)
        shares.setdefault(key, []).append(preference - 1 if both == [first, second] else 2 - preference)
        datasets.setdefault(key, str(row.get("dataset") or ""))
    rows = []
    for (instruction, first, second), judged in shares.items():
        share = fmean(judged)
        margin = round(abs(share - 0.5) * 2, _MARGIN_DIGITS)
        if margin == 0 or first == second:
            continue
        chosen, rejected = (second, first) if share > 0.5 else (first, second)
        rows.append(
            {
                "instruction": instruction,
                "dataset": datasets[instruction, first, second],
                "chosen": chosen,
                "rejected": rejected,
                "margin": margin,
            }
        )
    return rows


class _Judge:
    """The model that the package's prompts go to. `last` is what came last of it, in words, and `refusal` why
    it last took no prompt, empty where it took all."""

    def __init__(self, settings: EndpointConfig, runner: asyncio.Runner) -> None:
        # To the endpoint a role is a name in its messages.
        self._endpoint = Endpoint("judge", ReplicaConfig(endpoint=settings))
        self._runner = runner
        self.where = self._endpoint.where
        self.model = ""
        self.last = "it was not asked"
        self.refusal = ""

    def find(self, model: str) -> None:
        """Take `model`. Raises ModelError where the server has none of that name."""
        self.model = self._runner.run(self._endpoint.find_model(model, named=True)).name

    def complete(self, prompts: Sequence[str], **fields: Any) -> dict[str, list[Any]]:
        """The replies, as the package's parsers take them: the text alone, and with its log-probabilities.
        `fields` are the parameters of the published annotator, its judge among them."""
        wanted = {"top_p": 1.0, **fields, **self._endpoint.parameters, "model_name": None}
        sent = {name: value for name, value in wanted.items() if value is not None}
        replies = self._runner.run(gather_or_cancel(self._reply(prompt, sent) for prompt in prompts))
        return {"completions": [reply["text"] for reply in replies], "completions_all": replies}

    def close(self) -> None:
        self._runner.run(self._close())

    async def _close(self) -> None:
        self._endpoint.close()
        # Also requests that were cancelled because another one failed.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _reply(self, prompt: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        messages: Any = _turns(prompt)
        try:
            async with self._endpoint.request() as client:
                # In the body, as a user's parameters may be none that the client knows.
                completion: Any = await client.chat.completions.create(
                    model=self.model, messages=messages, extra_body=dict(fields)
                )
        except EngineError as error:
            # A pair that does not fit into the judge's context, say, is undecided; others may be decided.
            self.last = self.refusal = str(error)
            return {"text": "", "logprobs": None}
        # The client gives the bare text of an answer that is not JSON, and None for what an answer lacks.
        if isinstance(completion, str) or not completion.choices:
            raise self._endpoint.no_answer("without any choice")
        text = completion.choices[0].message.content or ""
        logprobs = _first_token(completion.choices[0])
        self.last = f"its last reply is {text[:_LONGEST_REPLY]!r}"
        if fields.get("logprobs") and logprobs is None:
            self.last += ", without log-probabilities, which method 'plain' does without"
        return {"text": text, "logprobs": logprobs}


def _turns(prompt: str) -> list[dict[str, str]]:
    """The messages of a filled template."""
    turns = (turn.partition("\n") for turn in prompt.split(_TURN)[1:])
    return [{"role": role.strip(), "content": text.partition(_END)[0].strip()} for role, _, text in turns]


def _first_token(choice: Any) -> dict[str, Any] | None:
    """The log-probabilities of a reply's first token, as the package's parser takes them."""
    content = choice.logprobs.content if choice.logprobs is not None else None
    return {"content": [content[0].model_dump()]} if content else None


def _judged(
    pairs: Sequence[Pair], judge: str, endpoint: EndpointConfig, method: Method, cache: str | Path | None
) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """The annotations of all pairs, the rates, and why the judge last took no prompt (empty: it took all).
    Raises ModelError where no pair is decided."""
    with asyncio.Runner() as runner:
        judging = _Judge(endpoint, runner)
        try:
            judging.find(judge)
            annotations, rates = _evaluate(pairs, judging, method, cache)
        finally:
            judging.close()
    if all(row["preference"] is None for row in annotations):
        raise ModelError(
            f"{judging.where}: judge {judge!r} decided none of {len(pairs)} pairs ({judging.last}); take a "
            "judge that keeps to the form that it is asked for"
        )
    return annotations, rates, judging.refusal


def _evaluate(
    pairs: Sequence[Pair], judging: _Judge, method: Method, cache: str | Path | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The package's annotations and rates."""
    from alpaca_eval import evaluate
    from alpaca_eval.annotators import PairwiseAnnotator

    def annotator(**settings: Any) -> Any:
        pool = PairwiseAnnotator(**settings)
        (single,) = pool.annotators.values()
        template = single.prompt_template
        single.prompt_template = template.replace("<|im_start|>", _TURN).replace("<|im_end|>", _END)
        single.fn_completions = judging.complete
        # By this name the cache tells judges apart.
        pool.annotators = {f"{_CONFIGS[method]}/{judging.model}": single}
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
    annotations = [{key: _filled(value) for key, value in row.items()} for row in annotated]
    return annotations, board.loc[name].to_dict()


def _rates(annotations: Rows) -> dict[str, Any]:
    """The package's rates of what was decided: with nothing decided, it fails."""
    from alpaca_eval.metrics import get_winrate

    decided = [row for row in annotations if row["preference"] is not None]
    rates: dict[str, Any] = get_winrate(decided) if decided else dict.fromkeys(("win_rate", "standard_error"))
    return rates


def _length_controlled(annotations: Rows) -> tuple[float | None, str]:
    """The package's length-controlled win rate, or None and the reason."""
    if len(annotations) != _PUBLISHED:
        return None, f"it is defined for the {_PUBLISHED} published instructions, not for {len(annotations)}"
    import pandas as pd
    import sklearn
    from alpaca_eval.metrics import get_length_controlled_winrate

    frame = pd.DataFrame(annotations)[["preference", "output_1", "output_2"]]
    # Equal generators (one model with two prompts) would be taken for a comparison with itself.
    named = frame.assign(generator_1="references", generator_2="outputs")
    try:
        with sklearn.config_context():  # the package changes sklearn's settings for good
            rates = get_length_controlled_winrate(
                named, save_weights_dir=None, is_add_glm_preference_inplace=False
            )
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return None, f"the difficulties of the instructions cannot be had or fitted ({lines[0]})"
    return float(rates["length_controlled_winrate"]), ""


def _require_package() -> None:
    try:
        import alpaca_eval  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"AlpacaEval needs the package alpaca_eval ({error}): pip install 'pmpo-ray[alpaca]'"
        ) from error


@contextmanager
def _package_in_silence() -> Iterator[None]:
    """While the context lasts, nothing of the package's log is heard; the root logger is left as it was. The
    package sets that logger's level, adds a handler to a bare one, and reports whole replies with
    tracebacks; what matters of it is said here."""
    root = logging.getLogger()
    level, heard, handler = root.level, _from_elsewhere, logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(heard)
    try:
        yield
    finally:
        root.removeFilter(heard)
        root.removeHandler(handler)
        root.setLevel(level)


def _from_elsewhere(record: logging.LogRecord) -> bool:
    return "alpaca_eval" not in Path(record.pathname).parts


def _pairs(outputs: Rows, references: Rows) -> list[Pair]:
    """Outputs and references with what the package needs of them. Raises DataError."""
    if len(outputs) != len(references) or not outputs:
        raise DataError(
            f"{len(outputs)} outputs and {len(references)} references: give one of each per instruction"
        )
    pairs = []
    for number, (output, reference) in enumerate(zip(outputs, references, strict=True), start=1):
        ours, theirs = _side(output, f"output {number}"), _side(reference, f"reference {number}")
        if ours["instruction"] != theirs["instruction"]:
            raise DataError(
                f"output {number} and reference {number} answer different instructions; put both in one order"
            )
        theirs["dataset"] = str(reference.get("dataset") or output.get("dataset") or "")
        pairs.append((ours, theirs))
    return pairs


def _side(row: Mapping[str, Any], where: str) -> dict[str, str]:
    texts = {name: _text(row, name, where) for name in ("instruction", "output")}
    return {**texts, "generator": str(row.get("generator") or "")}


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise DataError(f'{where}: needs a text "{name}"; give rows in the format of AlpacaEval')
    return value


def _preference(row: Mapping[str, Any], where: str) -> float | None:
    """The preference, 1 to 2; None where it is undecided."""
    value = _filled(row.get("preference"))
    if value is None or value == _UNREAD:
        return None
    if value == 0:  # older files have it for a tie
        return _TIE
    if not isinstance(value, int | float) or not 1 <= value <= 2:
        raise DataError(f'{where}: "preference" should be a number from 1 to 2, not {value!r}')
    return float(value)


def _filled(value: Any) -> Any:
    """`value`, None where pandas has a hole."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _check_cache(path: Path) -> None:
    """Raises DataError where the package could not go on from this file, or not write it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be used as a cache of annotations ({error}); name another"
        ) from error
    if not isinstance(kept, list):
        raise DataError(f"{path}: is no cache of annotations; name another file")
