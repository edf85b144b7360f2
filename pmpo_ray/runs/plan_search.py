"""The plan of one search: its rows as they fit, its texts, and their tokens at most."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pmpo_ray.config.run import RunConfig
from pmpo_ray.evaluation.evaluators import FOLLOW_UP, FOLLOW_UP_TOKENS, with_right_answers
from pmpo_ray.outcomes import Method
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.run_plan import PlannedTokens, PlannedWork, SearchPlan
from pmpo_ray.runs.budget_level import measure_of, with_level
from pmpo_ray.runs.finish_task import evaluated_by
from pmpo_ray.runs.fitting import Fitted, Ruler, fit_task
from pmpo_ray.runs.plan_sizes import own_operators, part_of, sizes_of
from pmpo_ray.runs.plan_tokens import Part, SearchTokens, counts
from pmpo_ray.search.budget import TURN_TOKENS, Costs, check_first, estimated
from pmpo_ray.search.meta_prompts import Style, choose_style
from pmpo_ray.search.operators import operator_names
from pmpo_ray.search.readability import reading_cost
from pmpo_ray.types import EngineInfo


@dataclass(frozen=True, slots=True)
class FittedSearch:
    """A search whose rows are fitted and measured, and the form of its rewriting requests. `evaluation` are
    the rows that are evaluated by `method` (None: not at all)."""

    fitted: Fitted
    config: RunConfig
    style: Style
    tokens: SearchTokens
    method: Method | None
    evaluation: Part

    @property
    def prepared(self) -> PreparedTask:
        """The task, with the rows that fit and the limits of its search."""
        return self.fitted.prepared

    @property
    def writes(self) -> bool:
        """True if a model may write something."""
        work = self._work(self.tokens)
        return (work.search + work.evaluation).generated > 0

    def plan(self, reply: int) -> SearchPlan:
        """The plan, with answers of typically `reply` tokens to rewriting requests."""
        prepared, tokens = self.prepared, self.tokens
        split, search = prepared.split, prepared.search
        parents = tokens.parents(search.rounds)
        found = counts(search, tokens.operators, parents, tokens.sizes.eligible) if search.rounds else None
        return SearchPlan(
            task=prepared.task.name,
            training=len(split.train),
            validation=len(split.validation),
            held_out=len(self.fitted.held_out),
            rounds=search.rounds,
            candidates={} if found is None else found.by_operator,
            text=tokens.sizes.training.tokens,
            typical=self._work(tokens.typical(reply)),
            at_most=self._work(tokens),
            max_tokens=search.max_tokens,
            max_seconds=search.max_seconds,
            notes=_notes(prepared, measured=self.fitted.contexts is not None),
        )

    def _work(self, tokens: SearchTokens) -> PlannedWork:
        return PlannedWork(tokens.one_round, tokens.whole, tokens.pick, self._evaluated(tokens))

    def _evaluated(self, tokens: SearchTokens) -> PlannedTokens:
        """The tokens of evaluating the start and, after a search, its best instruction."""
        if self.method is None:
            return PlannedTokens()
        settings, part, rounds = self.config.evaluation, self.evaluation, self.prepared.search.rounds
        read = part.tokens + (tokens.grown(part, max(1, rounds)) if tokens.may_change else 0)
        if self.method == "likelihood":
            return PlannedTokens(scored=read)
        replies = part.rows * (2 if tokens.may_change else 1)
        written = replies * settings.max_tokens
        if not settings.follow_up:
            return PlannedTokens(prompted=read, generated=written)
        # The second turn has the prompt and the reply in front of it.
        asked = replies * (settings.max_tokens + estimated(FOLLOW_UP) + 2 * TURN_TOKENS)
        return PlannedTokens(prompted=2 * read + asked, generated=written + replies * FOLLOW_UP_TOKENS)


async def fit_search(
    prepared: PreparedTask, config: RunConfig, rewriter: EngineInfo, ruler: Ruler | None
) -> FittedSearch:
    """A search that begins now, measured. Raises DataError if it could not begin: too few rows fit, or its
    budget does not suffice; and the errors of the ruler."""
    prepared = prepared.for_rewriter(rewriter)
    method = evaluated_by(config, prepared)
    fitted = await fit_task(prepared, config.evaluation, method, ruler, trained=None)
    prepared = await with_level(fitted.prepared, config.budget.level, ruler)
    split, search, measure = prepared.split, prepared.search, measure_of(ruler)
    if search.max_tokens is not None:
        texts = prepared.task.instructions
        first = await Costs(split, measure, search.calibrates).first(texts)
        check_first(prepared.task, first + reading_cost(prepared.task, search, texts), search.max_tokens)
    style = choose_style(search.meta_prompt, rewriter.parameters)
    sizes = await sizes_of(prepared, config, style, measure)
    operators = operator_names(search.named_operators, prepared.proposers)
    tokens = SearchTokens(search, operators, sizes, config.rewriter.max_tokens)
    rows, calibrate = fitted.held_out, prepared.calibrates(config.evaluation)
    if method == "likelihood":
        rows = with_right_answers(rows)
    evaluation = await part_of(prepared, rows, calibrate if method == "likelihood" else False, measure)
    return FittedSearch(replace(fitted, prepared=prepared), config, style, tokens, method, evaluation)


def _notes(prepared: PreparedTask, *, measured: bool) -> tuple[str, ...]:
    """What the plan of a search cannot know."""
    notes = []
    if not measured:
        notes.append("the scorer tells no lengths, so tokens are estimated from the texts")
    if own := own_operators(prepared):
        notes.append(
            f"{', '.join(own)}: counted with as many proposals as are asked for and none of its own requests "
            "to the rewriter"
        )
    if prepared.search.racing is not None:
        notes.append("with search.racing some candidates leave early; both amounts are without it")
    if prepared.search.max_seconds is not None:
        notes.append(f"the search ends after {prepared.search.max_seconds:g} s (search.max_seconds)")
    return tuple(notes)
