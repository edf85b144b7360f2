"""From a finished search to the stored result of its task: the final pick and the held-out accuracies.

Invariants:
- The final pick reads the validation part and the accuracies read the test part; the search read neither.
- A stored result of the same search is returned as it is; nothing is evaluated twice.
- Statistics are computed in a thread: the event loop serves the other tasks meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import EngineError
from pmpo_ray.evaluation.apart import scored_apart
from pmpo_ray.evaluation.evaluators import Evaluator, method_for
from pmpo_ray.evaluation.grading import RuleGrader
from pmpo_ray.evaluation.labels import by_label, labels_of
from pmpo_ray.evaluation.paired_tests import paired_p_value
from pmpo_ray.evaluation.statistics import mean_interval
from pmpo_ray.outcomes import AnswerBias, Method, Outcome, Progress, Shot, TaskResult
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.protocols import ScoreClient
from pmpo_ray.runs.fitting import Fitted, Ruler
from pmpo_ray.runs.run_context import RunContext
from pmpo_ray.runs.task_evaluator import task_evaluator
from pmpo_ray.search.budget import Costs, fitting
from pmpo_ray.search.calibration import Calibration, biases
from pmpo_ray.search.finished_rounds import leaders
from pmpo_ray.search.loop import SearchOutcome
from pmpo_ray.search.objectives import batch_loss
from pmpo_ray.types import Example, ScoredCandidate, ScoreRequest, Split, Task


async def finish_task(run: RunContext, fitted: Fitted, outcome: SearchOutcome) -> TaskResult:
    """Pick the best instruction of a search, measure its accuracy, and store and return the result.

    Errors as in the clients of `run`, and RunFolderError if the result cannot be stored.
    """
    prepared = fitted.prepared
    name, store = prepared.task.name, run.store
    best, tokens = await pick(prepared, outcome, run.scorer)
    if best.candidate.id != await asyncio.to_thread(store.read_best_id, name):
        await asyncio.to_thread(store.write_best, name, outcome.records, best.candidate.id)
    result = _result(name, outcome, best, prepared.split, tokens)
    result = await _with_prompts(result, fitted, best, run.ruler)
    stored = await asyncio.to_thread(store.read_task_result, name)
    if stored is not None and _as_searched(stored) == result:
        result = stored
    else:
        result = await _with_biases(run, prepared, result, best)
        if run.config.evaluation.enabled:
            losses = tuple(record.scored_survivors[0].loss for record in outcome.records)
            result = await _evaluate(run, fitted, result, best, losses)
    await asyncio.to_thread(store.write_task_result, name, result)
    return result


async def pick(
    prepared: PreparedTask, outcome: SearchOutcome, scorer: ScoreClient
) -> tuple[ScoredCandidate, int]:
    """The final instruction of a search, and the tokens scored to pick it. It is the best one of the last
    round, or, if the task has a validation part, that of the last leaders with the lowest loss on training
    and validation part together, with its penalty if readability counts."""
    examples = prepared.split.validation
    compared = _leaders(prepared, outcome)
    if not examples or not compared:
        return outcome.best, 0
    calibrate = prepared.search.calibrates
    # The bias over inputs is that over these inputs: the training part needs not be scored again.
    calibration = Calibration.of(prepared.task, calibrate) if calibrate == "inputs" else None
    client = prepared.scoring(scorer, False if calibrate == "inputs" else calibrate)
    requests = [
        ScoreRequest(lead.candidate.text, examples, prepared.split.demonstrations(lead.candidate.shots))
        for lead in compared.values()
    ]
    rows = await gather_or_cancel(scored_apart(client, request) for request in requests)
    # Leaders are compared on the same examples: those that fit with all of them.
    fitting = [
        (example, scores)
        for example, *scores in zip(examples, *rows, strict=True)
        if None not in scores and example.weight != 0
    ]
    if not fitting:
        raise EngineError("no example of the validation part could be scored; lower split.validation to 0")
    kept = [example for example, _ in fitting]
    weight = sum(example.weight for example in kept)
    trained = sum(example.weight for example in prepared.split.train)

    def value(leader: int, lead: ScoredCandidate) -> float:
        scores = [of_leaders[leader] for _, of_leaders in fitting]
        calibrated = scores if calibration is None else calibration.applied(kept, scores, ())
        unseen = batch_loss(list(map(prepared.objective, calibrated)), [example.weight for example in kept])
        return float((trained * lead.loss + weight * unseen) / (trained + weight)) + lead.penalty

    values = [value(number, lead) for number, lead in enumerate(compared.values())]
    best = min(range(len(values)), key=values.__getitem__)
    tokens = sum(score.tokens for row in rows for score in row if score is not None)
    return list(compared.values())[best], tokens


def _leaders(prepared: PreparedTask, outcome: SearchOutcome) -> dict[str, ScoredCandidate]:
    """The candidates to pick from, by id; the last of them if the token budget does not suffice for all, and
    none if it does not suffice to compare two."""
    found = leaders(outcome.records)
    limit = prepared.search.max_tokens
    if limit is None:
        return found
    left = limit - sum(record.tokens for record in outcome.records)
    costs = Costs(prepared.split, calibrate=prepared.search.calibrates)
    newest = list(found.items())[::-1]
    number = fitting([costs.of_validation(outcome.best, lead.candidate) for _, lead in newest], left)
    return dict(newest[:number][::-1]) if number > 1 else {}


async def _evaluate(
    run: RunContext,
    fitted: Fitted,
    result: TaskResult,
    best: ScoredCandidate,
    losses: tuple[float, ...],
) -> TaskResult:
    """`result` with the accuracies of its first and its best instruction on the test part."""
    prepared, examples = fitted.prepared, fitted.held_out
    progress = Progress(
        result.task,
        "evaluating",
        result.rounds,
        prepared.search.rounds,
        losses,
        tokens_scored=result.tokens_scored,
        tokens_prompted=result.tokens_prompted,
        tokens_generated=result.tokens_generated,
    )
    run.observer(progress)
    evaluator = _evaluator(run, prepared, result.start)
    if evaluator is not None and examples:
        before = await evaluator.evaluate(result.start, examples, prepared.split.shots)
        after = before
        if (result.best, result.shots) != (result.start, ()):
            shots = prepared.split.demonstrations(best.candidate.shots)
            after = await evaluator.evaluate(result.best, examples, shots)
        result = replace(result, held_out=len(prepared.split.test), too_long=fitted.too_long)
        result = await asyncio.to_thread(_measured, result, prepared.task, examples, before, after)
    run.observer(replace(progress, state="done"))
    return result


def _evaluator(run: RunContext, prepared: PreparedTask, start: str) -> Evaluator | None:
    """The evaluator of the scored model. None if another model would write the replies, or if a judge would
    compare them: that is left to `pmpo evaluate`."""
    config, task = run.config, prepared.task
    method = method_for(task, config.evaluation)
    return task_evaluator(
        prepared,
        method,
        config,
        scorer=run.scorer,
        generator=run.rewriter if _writes(config, method) else None,
        grader=RuleGrader(task),
        reference=start,
    )


def evaluated_by(config: RunConfig, prepared: PreparedTask) -> Method | None:
    """The method by which a finished search is evaluated; None if it is not."""
    if not config.evaluation.enabled:
        return None
    method = method_for(prepared.task, config.evaluation)
    return method if method == "likelihood" or _writes(config, method) else None


def _writes(config: RunConfig, method: Method) -> bool:
    """True if the run's rewriter is the scored model and writes the replies."""
    return method == "generation" and config.scorer_model == config.rewriter_model


def _measured(
    result: TaskResult,
    task: Task,
    examples: Sequence[Example],
    before: Sequence[Outcome],
    after: Sequence[Outcome],
) -> TaskResult:
    """`result` with what the outcomes come to on the examples that fit with both instructions."""
    rows = [
        (example, one, other)
        for example, one, other in zip(examples, before, after, strict=True)
        if one.fits and other.fits
    ]
    result = replace(result, too_long=result.too_long + len(examples) - len(rows))
    if not rows:
        return result
    labels = labels_of(task, [example for example, _, _ in rows])
    values = _values([one for _, one, _ in rows]), _values([other for _, _, other in rows])
    return replace(
        result,
        accuracy_before=mean_interval(values[0]),
        accuracy_after=mean_interval(values[1]),
        p_value=paired_p_value(*values),
        labels_before=by_label(labels, values[0]),
        labels_after=by_label(labels, values[1]),
    )


def _values(outcomes: Sequence[Outcome]) -> list[float]:
    return [float(outcome.right) for outcome in outcomes]


def _result(
    name: str, outcome: SearchOutcome, best: ScoredCandidate, split: Split, tokens: int
) -> TaskResult:
    """The result of a search with `best` as its instruction; `tokens` were scored to pick it."""
    records = outcome.records
    shots = split.trained(best.candidate.shots)
    return TaskResult(
        task=name,
        rounds=len(records) - 1,
        stopped=outcome.stopped,
        start=outcome.start.candidate.text,
        best=best.candidate.text,
        shots=tuple(Shot(shot.input, shot.target) for shot in shots),
        loss_before=outcome.start.loss,
        loss_after=best.loss,
        accuracy_before=None,
        accuracy_after=None,
        tokens_scored=tokens + sum(record.tokens_scored for record in records),
        tokens_prompted=sum(record.tokens_prompted for record in records),
        tokens_generated=sum(record.tokens_generated for record in records),
        seconds=sum(record.seconds for record in records),
    )


async def _with_prompts(
    result: TaskResult, fitted: Fitted, best: ScoredCandidate, ruler: Ruler | None
) -> TaskResult:
    """`result` with the median lengths of the prompts before and after, if the engine tells them."""
    split = fitted.prepared.split
    request = ScoreRequest(result.best, split.train, split.demonstrations(best.candidate.shots))
    lengths = await ruler.lengths(request) if ruler is not None else None
    if fitted.contexts is None or lengths is None:
        return result
    return replace(
        result,
        prompt_before=round(median(fitted.contexts.values())),
        prompt_after=round(median(length.context for length in lengths)),
    )


async def _with_biases(
    run: RunContext, prepared: PreparedTask, result: TaskResult, best: ScoredCandidate
) -> TaskResult:
    """`result` with the constants that calibrate the choices of its best instruction, if answers are chosen
    by likelihood. The search scored these examples, so they are remembered."""
    if method_for(prepared.task, run.config.evaluation) != "likelihood":
        return result
    split, calibrate = prepared.split, prepared.calibrates(run.config.evaluation)
    prompt = ScoreRequest(result.best, (), split.demonstrations(best.candidate.shots))
    uncalibrated = prepared.scoring(run.scorer, calibrate=False)
    found = await biases(uncalibrated, prepared.task, calibrate, split.train, prompt)
    return replace(result, biases=tuple(AnswerBias(answer, found[answer]) for answer in sorted(found)))


def _as_searched(result: TaskResult) -> TaskResult:
    """`result` without everything that was measured after the search."""
    return replace(
        result,
        biases=(),
        accuracy_before=None,
        accuracy_after=None,
        p_value=None,
        labels_before=None,
        labels_after=None,
        held_out=0,
        too_long=0,
    )
