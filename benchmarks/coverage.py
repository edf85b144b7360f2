"""The share of 95% intervals that contain the truth, and of false alarms, by simulation.

    python -m benchmarks.coverage [--draws 500] [--part pairs labels means searches] [--json FILE]

pairs: two instructions on the same examples, right or wrong, with the chances of a gained and a lost example.
labels: the balanced accuracy of labels with these counts, each with its chance of a right answer.
means: paired values that are not right or wrong.
searches: the gain of several searches whose true gains spread around a mean (standard deviation `spread`) on
examples that respond to any instruction differently (`response`); "own" has other examples in every search,
"shared" the same ones.

Beside each interval of the project stands the one that a bootstrap gives. `coverage` should be 0.95; `width`
is the mean width; `alarms` is the share of intervals without 0, so where the truth is 0 it should be 0.05.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt

from pmpo_ray.evaluation.paired_tests import compare
from pmpo_ray.evaluation.searches import over_searches
from pmpo_ray.evaluation.statistics import bootstrap_interval, label_interval, stratified_interval
from pmpo_ray.outcomes import Interval

_RESAMPLES = 300
_CHANGED = 0.3
"""The share of examples whose answer changes in a search without a gain."""

Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator], Mapping[str, Interval]]
"""Draws one data set, and gives the intervals of each method."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A simulated experiment: its description, the true value, and how it is drawn."""

    part: str
    words: str
    truth: float
    draw: Draw


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    print("| part | setting | method | coverage | width | alarms |\n|---|---|---|---|---|---|")
    for setting in (setting for part in arguments.part for setting in PARTS[part]()):
        for row in measured(setting, arguments.draws):
            print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
            rows.append(row)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measured(setting: Setting, draws: int) -> Iterator[dict[str, object]]:
    """A row for each method."""
    rng = np.random.default_rng(7)
    drawn = [setting.draw(rng) for _ in range(draws)]
    for method in drawn[0]:
        intervals = [one[method] for one in drawn]
        # The truth can be a bound, as 0 is if nothing was lost: rounding must not count.
        inside = [i.low - 1e-12 <= setting.truth <= i.high + 1e-12 for i in intervals]
        yield {
            "part": setting.part,
            "setting": setting.words,
            "method": method,
            "coverage": round(fmean(inside), 3),
            "width": round(fmean(i.high - i.low for i in intervals), 3),
            "alarms": round(fmean(i.low > 0 or i.high < 0 for i in intervals), 3),
        }


def pairs() -> Iterator[Setting]:
    """Right and wrong answers of two instructions."""
    for n in (20, 50, 200, 500):
        for gained, lost in ((0.05, 0.05), (0.15, 0.15), (0.1, 0.02), (0.2, 0.1), (0.05, 0.0), (0.4, 0.1)):

            def draw(
                rng: np.random.Generator, n: int = n, gained: float = gained, lost: float = lost
            ) -> Mapping[str, Interval]:
                changes = rng.choice([1.0, -1.0, 0.0], size=n, p=[gained, lost, 1 - gained - lost])
                before, after = (changes < 0).astype(float), (changes > 0).astype(float)
                return {
                    "Tango": compare(before.tolist(), after.tolist()).difference,
                    "bootstrap": bootstrap_interval(changes.tolist()),
                }

            yield Setting("pairs", f"n {n}, gained {gained}, lost {lost}", gained - lost, draw)


def labels() -> Iterator[Setting]:
    """Balanced accuracies of uneven labels."""
    for counts, chances in (
        ((190, 10), (0.9, 0.3)),
        ((198, 2), (0.95, 0.5)),
        ((150, 40, 10), (0.8, 0.5, 0.1)),
        ((138, 113, 94, 81, 65, 9), (0.6, 0.2, 0.3, 0.8, 0.1, 0.05)),
    ):

        def draw(
            rng: np.random.Generator,
            counts: Sequence[int] = counts,
            chances: Sequence[float] = chances,
        ) -> Mapping[str, Interval]:
            groups = [
                (rng.random(count) < chance).astype(float).tolist()
                for count, chance in zip(counts, chances, strict=True)
            ]
            return {"Wilson by label": label_interval(groups), "bootstrap": stratified_interval(groups)}

        yield Setting("labels", f"counts {counts}, right {chances}", fmean(chances), draw)


def means() -> Iterator[Setting]:
    """Differences that are not right or wrong: skewed losses, and means of three repetitions."""
    for n in (10, 30, 200):

        def losses(rng: np.random.Generator, n: int = n) -> Mapping[str, Interval]:
            return _of_differences(rng.exponential(1.0, n) - 1.0)

        def repeated(rng: np.random.Generator, n: int = n) -> Mapping[str, Interval]:
            chances = rng.beta(0.5, 0.5, n)
            return _of_differences((rng.binomial(3, chances) - rng.binomial(3, chances)) / 3)

        yield Setting("means", f"n {n}, exponential", 0.0, losses)
        yield Setting("means", f"n {n}, three repetitions", 0.0, repeated)


def _of_differences(values: Array) -> Mapping[str, Interval]:
    before = np.full(len(values), 0.25)
    return {
        "permutation": compare(before.tolist(), (before + values).tolist()).difference,
        "bootstrap": bootstrap_interval(values.tolist()),
    }


def searches() -> Iterator[Setting]:
    """Gains of several searches."""
    for spread, response in ((0.0, 0.2), (0.03, 0.2), (0.1, 0.2), (0.1, 0.4), (0.03, 0.4)):
        for count in (3, 5, 10):
            for shared in (True, False):

                def draw(
                    rng: np.random.Generator,
                    spread: float = spread,
                    response: float = response,
                    count: int = count,
                    shared: bool = shared,
                ) -> Mapping[str, Interval]:
                    gains = _search_gains(rng, count, spread, response, shared=shared)
                    return _of_searches(gains, rng, shared=shared)

                words = f"{count} searches, {'shared' if shared else 'own'}, spread {spread}"
                yield Setting("searches", f"{words}, response {response}", 0.0, draw)


def _search_gains(
    rng: np.random.Generator, count: int, spread: float, response: float, *, shared: bool, n: int = 400
) -> Array:
    """The gains (searches x examples), each 1, 0 or -1, with a mean of 0 over all searches and examples."""
    examples = rng.normal(0.0, response, n if shared else (count, n))
    shift = np.clip(rng.normal(0.0, spread, (count, 1)) + examples, -1, 1)
    changed = np.maximum(_CHANGED, np.abs(shift))
    drawn = rng.random((count, n))
    return (drawn < (changed + shift) / 2).astype(float) - (drawn > 1 - (changed - shift) / 2)


def _of_searches(gains: Array, rng: np.random.Generator, *, shared: bool) -> Mapping[str, Interval]:
    count, n = gains.shape
    named = [
        {f"{'' if shared else row}-{column}": float(gain) for column, gain in enumerate(own)}
        for row, own in enumerate(gains)
    ]
    resampled = np.empty(_RESAMPLES)
    for number in range(_RESAMPLES):
        chosen = rng.integers(count, size=count)
        resampled[number] = gains[chosen[:, None], rng.integers(n, size=(count, n))].mean()
    low, high = np.quantile(resampled, (0.025, 0.975))
    own = gains.mean(axis=0) if shared else gains.ravel()
    return {
        "searches": over_searches(named).difference,
        "hierarchical bootstrap": Interval(gains.mean(), float(low), float(high), n, "bootstrap"),
        "examples alone": compare([0.0] * len(own), own.tolist()).difference,
    }


PARTS: Mapping[str, Callable[[], Iterator[Setting]]] = {
    "pairs": pairs,
    "labels": labels,
    "means": means,
    "searches": searches,
}


if __name__ == "__main__":
    main()
