"""Prepared tasks: loaded and split, with their objective and operators.

Invariant: every error of a task that can be found without a model is found here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from pmpo_ray.config.base import Calibrate
from pmpo_ray.config.evaluation import EvaluationConfig
from pmpo_ray.config.import_paths import is_import_path
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.search import AUTO_OPERATORS, SearchConfig
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.evaluation.evaluators import check_choices, method_for
from pmpo_ray.protocols import ScoreClient
from pmpo_ray.search.calibration import calibrated, closed_answers
from pmpo_ray.search.compose import COMPOSE, Compose
from pmpo_ray.search.demonstrations import DEMONSTRATE, Demonstrate
from pmpo_ray.search.hard_cases import HardCases, HighestLoss, load_hard_cases
from pmpo_ray.search.leave_one_out import LeaveOneOut
from pmpo_ray.search.meta_prompts import choose_style
from pmpo_ray.search.objectives import Objective, check_objective, make_objective, resolve_auto
from pmpo_ray.search.operators import Proposer, load_proposers
from pmpo_ray.store import RunStore
from pmpo_ray.store.task_overview import TaskOverview, overview_of
from pmpo_ray.tasks import load_task, split_task
from pmpo_ray.tasks.negatives import with_hard_negatives
from pmpo_ray.tasks.python_data import as_configured
from pmpo_ray.types import WRITING_OPERATORS, EngineInfo, Split, Task

_MAX_REWRITES = 100_000
_FEW_ROWS = 10
"""A part below this size is reported."""
_SLOW_SECONDS = 3.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task that is ready to be searched or evaluated, with the settings of its search."""

    task: Task
    split: Split
    objective: Objective
    search: SearchConfig
    proposers: Mapping[str, Proposer]
    hard_cases: HardCases = field(default_factory=HighestLoss)

    @property
    def chooses_per_token(self) -> bool:
        """True if an answer is chosen by its log-likelihood per token: only if the setting says so."""
        return self.search.per_token is True

    @property
    def overview(self) -> TaskOverview:
        """The form in which the task was taken, for the user."""
        answers = closed_answers(self.task)
        calibrate = self.search.calibrates
        how = f", calibrated ({_said(calibrate)})" if calibrate else ""
        return overview_of(self.task, self.split, answers, f"{self.objective.description}{how}")

    def scoring(self, scorer: ScoreClient, calibrate: Calibrate) -> ScoreClient:
        """The scorer of this task: `scorer`, by which no example is scored behind itself, with calibrated
        scores if `calibrate` says so."""
        return calibrated(LeaveOneOut(scorer, self.split.train), self.task, calibrate, self.split.train)

    def for_rewriter(self, rewriter: EngineInfo) -> PreparedTask:
        """This task with its operators decided for a run with this rewriter. Of what a small model writes
        about labels, much is no instruction and some of that wins (benchmarks/README.md, Search), so there
        "auto" leaves out the operators that write."""
        if self.search.operators != "auto":
            return self
        small = choose_style("auto", rewriter.parameters) == "short"
        left_out = WRITING_OPERATORS if small and self.task.labels else ()
        chosen = tuple(name for name in AUTO_OPERATORS if name not in left_out)
        return replace(self, search=self.search.model_copy(update={"operators": chosen}))

    def calibrates(self, settings: EvaluationConfig) -> Calibrate:
        """The calibration of the scores with which the held-out examples are evaluated."""
        return self.search.calibrates if settings.calibrate is None else settings.calibrate


def tasks_from_python(config: RunConfig, location: str, python_data: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks of a configuration whose data were passed in Python, by name: those of `python_data`, or else
    those kept in the run folder at `location`. Raises DataError for a task that is in neither."""
    sections = [settings for settings in config.tasks if settings.given]
    store = RunStore.open(location) if sections and RunStore.exists(location) else None
    tasks: dict[str, Task] = {}
    for settings in sections:
        name = settings.name
        task = python_data.get(name) or (store.read_task(name) if store else None)
        if task is None:
            raise DataError(
                f"task {name}: its data were passed in Python and {location} does not keep them; call "
                "optimize() with them, or name the run folder that keeps them with --run-dir"
            )
        tasks[name] = as_configured(task, settings)
    return tasks


def prepare_tasks(
    config: RunConfig, python_tasks: Mapping[str, Task] = MappingProxyType({})
) -> list[PreparedTask]:
    """Prepare every search of a configuration; `python_tasks` maps names to the tasks whose data were passed
    in Python. Raises DataError or ConfigError for a task that cannot be searched or evaluated."""
    prepared_tasks = []
    for settings in config.tasks:
        with _slow_stage(f"task {settings.name}: reading its data"):
            task = python_tasks.get(settings.name) or load_task(settings, config.data_dir, config.seed)
        with _slow_stage(f"task {settings.name}: splitting {len(task.examples):,} rows"):
            split = split_task(task, config.split, config.seed)
        _report_parts(task, split, config)
        for variant, search in config.searches().items():
            _check_size(task, split, search)
            search = _resolved(task, search, config.evaluation)
            objective = _objective(task, split, search)
            proposers = _proposers(task, search)
            # All variants of a task share one split.
            named = replace(task, name=config.search_name(task.name, variant))
            used = _with_negatives(task, split, objective, config)
            if search.preset == "paper" and config.split.validation is None:
                used = replace(used, validation=())
            prepared = PreparedTask(
                named, used, objective, search, proposers, load_hard_cases(search.hard_cases)
            )
            _check(prepared, config.evaluation)
            _report_operators(prepared)
            prepared_tasks.append(prepared)
    return prepared_tasks


def _resolved(task: Task, search: SearchConfig, settings: EvaluationConfig) -> SearchConfig:
    """The search with its calibration decided for the task."""
    if search.calibrate != "auto":
        return search
    chosen = bool(closed_answers(task)) and method_for(task, settings) == "likelihood"
    return search.model_copy(update={"calibrate": "inputs" if chosen else False})


def _proposers(task: Task, search: SearchConfig) -> dict[str, Proposer]:
    """The operators other than rewriting."""
    proposers = load_proposers([name for name in search.named_operators if is_import_path(name)])
    if search.operators == "auto" or COMPOSE in search.operators:
        proposers[COMPOSE] = Compose.of(task)
    if search.demonstrations:
        proposers[DEMONSTRATE] = Demonstrate(search.demonstrations)
    return proposers


def _report_parts(task: Task, split: Split, config: RunConfig) -> None:
    """Log what the sizes of the parts mean for the result, where that may be unexpected."""
    train, rows = len(split.train), len(task.examples)
    if train < _FEW_ROWS and train < config.split.train_max:
        _log.warning(
            "task %s: %d of %d rows to train on, so few that the search may fit them alone; raise "
            "split.train_fraction (now %g) for more, or add rows",
            task.name,
            train,
            rows,
            config.split.train_share(1, has_test=False),
        )
    if config.evaluation.enabled:
        _report_held_out(task.name, len(split.test), config.evaluation.limit)


def _report_held_out(name: str, rows: int, limit: int | None) -> None:
    """Log what the number of held-out rows means for the evaluation."""
    more = "lower split.train_fraction, split.train_max or split.validation, add rows, or name a test file"
    if not rows:
        _log.warning(
            "task %s: no row is left to evaluate on, so the run cannot tell whether its result is better; %s "
            "with test_path",
            name,
            more,
        )
    elif rows < _FEW_ROWS:
        _log.warning(
            "task %s: %s to evaluate on, too few to tell a gain from chance; %s with test_path",
            name,
            "1 row is left" if rows == 1 else f"{rows} rows are left",
            more,
        )
    if limit is not None and limit < rows:
        _log.info(
            "task %s: evaluates %s of %s held-out rows (evaluation.limit)", name, f"{limit:,}", f"{rows:,}"
        )


def _report_operators(prepared: PreparedTask) -> None:
    """Log that an operator has nothing to work on."""
    if "contrast" in prepared.search.named_operators and not any(
        row.negatives for row in prepared.split.train
    ):
        _log.warning(
            "task %s: the operator contrast proposes nothing, since no training row has wrong answers; leave "
            "it out of search.operators",
            prepared.task.name,
        )


@contextmanager
def _slow_stage(name: str) -> Iterator[None]:
    """A stage that is logged if it takes longer than a user waits without wondering."""
    began = time.monotonic()
    notice = threading.Timer(_SLOW_SECONDS, _log.info, ("%s ...", name))
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()
    seconds = time.monotonic() - began
    if seconds >= _SLOW_SECONDS:
        _log.info("%s: done in %.0f s", name, seconds)


def _check_size(task: Task, split: Split, search: SearchConfig) -> None:
    """Raise ConfigError if a round asks for more rewrites than any run can use."""
    hard = min(search.hard_examples, len(split.train))
    count = search.population * hard * search.variants
    if count > _MAX_REWRITES:
        raise ConfigError(
            f"task {task.name}: a round would ask for {count:,} rewrites: search.population="
            f"{search.population} x {hard} hard examples x search.variants={search.variants}; lower them to "
            f"{_MAX_REWRITES:,} in all"
        )


def _objective(task: Task, split: Split, search: SearchConfig) -> Objective:
    """The objective of a search. Without a setting, log-likelihoods count per token where a whole solution or
    text is trained on, so that long ones do not outweigh short ones."""
    name = resolve_auto(split.train) if search.objective == "auto" else search.objective
    per_token = search.per_token
    if per_token is None:
        per_token = name == "cross_entropy" and task.kind == "text"
    return make_objective(name, beta=search.beta, per_token=per_token)


def _with_negatives(task: Task, split: Split, objective: Objective, config: RunConfig) -> Split:
    """The split with negatives for free text, in the parts for which something compares answers."""
    if task.kind != "text":
        return split
    seed = config.seed
    if objective.needs_negatives or is_import_path(objective.name):
        split = replace(
            split,
            train=with_hard_negatives(task, split.train, seed),
            validation=with_hard_negatives(task, split.validation, seed),
        )
    if config.evaluation.method == "likelihood":
        measured = with_hard_negatives(task, split.test[: config.evaluation.limit], seed)
        split = replace(split, test=(*measured, *split.test[len(measured) :]))
    return split


def _said(calibrate: Calibrate) -> str:
    """The value as a configuration has it."""
    return calibrate if isinstance(calibrate, str) else str(calibrate).lower()


def _check(prepared: PreparedTask, settings: EvaluationConfig) -> None:
    """Raise DataError or ConfigError for a task that cannot be searched or evaluated as configured."""
    task, split = prepared.task, prepared.split
    try:
        check_objective(prepared.objective, (*split.train, *split.validation))
    except DataError as error:
        raise DataError(f"task {task.name}: {error}") from None
    for setting, is_set in (
        ("search.calibrate", prepared.search.calibrates),
        ("evaluation.calibrate", settings.calibrate),
    ):
        if is_set and not closed_answers(task):
            raise ConfigError(
                f"{setting}={_said(is_set)}: task {task.name!r} is of kind {task.kind} and has no closed "
                "set of answers, such as labels or letters, whose bias could be subtracted; set "
                f"{setting}=false, or leave the task out"
            )
    if not settings.enabled:
        return
    method = method_for(task, settings)
    if method == "likelihood" and task.kind == "text":
        check_choices(task, split.test[: settings.limit])
    if method != "likelihood" and settings.calibrate:
        raise ConfigError(
            f"evaluation.calibrate={_said(settings.calibrate)}: task {task.name!r} is evaluated by {method}, "
            "and only answers that are chosen by likelihood are calibrated; set evaluation.calibrate=false "
            "or evaluation.method=likelihood"
        )
