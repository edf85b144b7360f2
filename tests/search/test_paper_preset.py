"""`search.preset: paper` is Algorithm 1: replayed on a table of losses, with every decision made by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from pmpo_ray.search.loop import search_task
from pmpo_ray.search.objectives import make_objective
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.types import (
    AnswerScore,
    Example,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    Generation,
    ScoreRequest,
)
from tests.search.test_loop import setup_of

START = "Sort it. Be brief."
EXAMPLES = tuple(Example(f"e{n}", f"input number {n}", "yes") for n in range(5))
LOSSES = {
    # The losses of e0 to e4, in nats. Their means are the losses of the texts.
    START: (1.0, 3.0, 2.0, 5.0, 4.0),  # 3.0; the hardest are e3, e4, e1
    "Sort it.": (2.0, 3.0, 2.0, 4.0, 3.5),  # 2.9: a masked text
    "Be brief.": (4.0, 4.0, 4.0, 4.0, 4.0),  # 4.0: a masked text
    "Name the topic of e4.": (2.0, 2.0, 1.0, 3.0, 2.0),  # 2.0: the best of round 1; the hardest e3, e0, e1
    "Sort by e0.": (2.0, 2.0, 2.0, 2.0, 2.0),  # 2.0 in round 2: no strict improvement
    "Read e1 twice.": (1.0, 1.0, 1.0, 1.0, 1.0),  # 1.0 in round 3
}
WRITTEN = (
    {"e3": ["Think of e3."], "e4": ["Name the topic of e4.", "Name e4."], "e1": []},
    {"e3": ["Think of e3 again."], "e0": ["Sort by e0."], "e1": []},
    {"e3": [], "e0": [], "e1": ["Read e1 twice."]},
)
"""What the rewriter answers for each hard example, round by round; the rest of its replies is cut off."""


@dataclass
class Table:
    """A scorer that reads the table; any other text has a loss of 9 on every example."""

    seen: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        self.seen.append((request.instruction, tuple(example.id for example in request.examples)))
        losses = LOSSES.get(request.instruction, (9.0,) * 5)
        return tuple(ExampleScore(AnswerScore(-loss, 1), (), 10) for loss in losses)


@dataclass
class Script:
    """A rewriter that follows the script, and notes for which examples it was asked."""

    asked: list[str] = field(default_factory=list)

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        found = re.search(r"input number (\d)", request.prompt)
        if found is None:  # mask analysis: the fixed rules split the text
            return GenerateResult((Generation("no marks", 2, True),), 10, 0.0)
        name = f"e{found[1]}"
        texts = WRITTEN[len(self.asked) // 3][name]
        self.asked.append(name)
        assert request.n == 4
        cut_off = [Generation("<prompt>never ends", 3, False)] * (4 - len(texts))
        samples = (*(Generation(f"<prompt>{text}</prompt>", 5, True) for text in texts), *cut_off)
        return GenerateResult(samples, 10, 0.0)


def scripted() -> tuple[SearchSetup, Table, Script]:
    table, script = Table(), Script()
    setup = setup_of(preset="paper", rounds=3)
    split = replace(setup.split, train=EXAMPLES)
    return (
        replace(
            setup,
            task=replace(setup.task, instruction=START),
            split=split,
            objective=make_objective("cross_entropy", beta=1.0, per_token=False),
            style="long",
            scorer=table,
            rewriter=script,
        ),
        table,
        script,
    )


def test_the_preset_has_the_papers_numbers() -> None:
    settings = setup_of(preset="paper", rounds=20).settings
    assert (settings.rounds, settings.hard_examples, settings.variants, settings.population) == (20, 3, 4, 1)
    assert (settings.racing, settings.demonstrations, settings.sense, settings.reasks) == (None, 0, False, 0)


async def test_every_round_is_as_by_hand() -> None:
    setup, table, script = scripted()
    outcome = await search_task(setup)
    best = [record.scored_survivors[0] for record in outcome.records]
    assert [(one.candidate.text, one.loss) for one in best] == [
        (START, 3.0),
        ("Name the topic of e4.", 2.0),
        ("Name the topic of e4.", 2.0),  # an equal loss does not replace the parent
        ("Read e1 twice.", 1.0),
    ]
    assert all(len(record.survivors) == 1 for record in outcome.records)
    # Step 2: the examples of the highest losses under the parent, the hardest first.
    assert script.asked == ["e3", "e4", "e1", "e3", "e0", "e1", "e3", "e0", "e1"]
    # Step 1: the loss without a part less the loss with it.
    importances = {row.segment.text.strip(): row.importance for row in outcome.records[1].segments}
    assert {text: round(value, 9) for text, value in importances.items()} == {
        "Sort it.": 1.0,
        "Be brief.": -0.1,
    }
    # Steps 3 and 4: every candidate is scored once, on every example.
    assert {examples for _, examples in table.seen} == {("e0", "e1", "e2", "e3", "e4")}
    texts = [text for text, _ in table.seen]
    assert len(texts) == len(set(texts))
    assert {one.candidate.text for one in outcome.records[1].candidates} == {
        *(START, "Sort it.", "Be brief."),
        *("Think of e3.", "Name the topic of e4.", "Name e4."),
    }
    assert not any(one.left for record in outcome.records for one in record.candidates)
