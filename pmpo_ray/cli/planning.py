"""The command that answers before a run: plan.

Invariant: nothing is written to any folder, and the plan alone is on standard output.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pmpo_ray.cli.failures import fail, interrupted
from pmpo_ray.cli.log_lines import LogFormat
from pmpo_ray.cli.options import Json, Logs, Set
from pmpo_ray.errors import ConfigError, PmpoError
from pmpo_ray.signals import ignore_signals, number_of

if TYPE_CHECKING:
    from pmpo_ray.config.run import RunConfig
    from pmpo_ray.run_plan import RunPlan

_PRICE = "Price of a million tokens that are read, in any currency."
_PRICE_GENERATED = "Price of a million tokens that are written. Default: that of --price."


def plan(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file of the run.")],
    override: Set = None,
    price: Annotated[float | None, typer.Option("--price", metavar="X", help=_PRICE)] = None,
    price_generated: Annotated[
        float | None, typer.Option("--price-generated", metavar="Y", help=_PRICE_GENERATED)
    ] = None,
    as_json: Json = False,
    log_format: Logs = "text",
) -> None:
    """Plan a run: what it will score and write, how long that takes, and what it costs.

    The models are started, and their pace is measured for about ten seconds.
    """
    from pmpo_ray.cli.standard_error import standard_error
    from pmpo_ray.config.loading import load_config
    from pmpo_ray.config.overrides import parse_overrides

    with standard_error(log_format, os.environ):
        try:
            _check_prices(price, price_generated)
            found = _planned(load_config(config, parse_overrides(override or ())), log_format)
        except PmpoError as error:
            raise typer.Exit(fail(str(error), log_format)) from error
    if as_json:
        from pmpo_ray.display.plan_json import plan_json

        print(json.dumps(plan_json(found, price, price_generated), allow_nan=False))
        return
    from rich.console import Console

    from pmpo_ray.display.plan import show_plan

    show_plan(found, Console(), price, price_generated)


def _check_prices(price: float | None, price_generated: float | None) -> None:
    """Raise ConfigError for prices that are none."""
    for option, value in (("--price", price), ("--price-generated", price_generated)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{option} {value}: give the price of a million tokens, 0 or more")
    if price is None and price_generated is not None:
        raise ConfigError("--price-generated needs --price, the price of the tokens that are read; add it")


def _planned(config: RunConfig, log_format: LogFormat) -> RunPlan:
    from pmpo_ray.runs.plan import plan_run

    try:
        # Libraries that print must not mix with the plan.
        with contextlib.redirect_stdout(sys.stderr):
            return plan_run(config)
    except KeyboardInterrupt as interrupt:
        ignore_signals()
        line = "nothing was written; start again with the same command"
        raise typer.Exit(interrupted(number_of(interrupt), line, log_format)) from interrupt
