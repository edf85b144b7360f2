"""One run of the benchmark: workload after workload, each with its table.

Invariant: the results of a workload are printed and written before the next one begins.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from benchmarks.packaged_models import available_model
from benchmarks.scoring.actor import time_actor
from benchmarks.scoring.children import ContestantLostError, Roster, Setting, fit_at_once, roster
from benchmarks.scoring.measuring import (
    Record,
    doubling,
    fp32_logprobs,
    largest_difference,
    time_workload,
)
from benchmarks.scoring.precision import measure as measure_precision
from benchmarks.scoring.results import Report, Row, table
from benchmarks.scoring.work import (
    LeastWork,
    MatmulRates,
    ModelShape,
    least_work,
    matmul_rates,
    model_shape,
)
from benchmarks.scoring.workloads import Workload, encode, workload_texts
from pmpo_ray.engines.hf.devices import choose_device, choose_dtype
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.engines.weights.loading import load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model

# The reference is itself checked, against one triple at a time, where the result is worth the time.
_CHECKED = ("small", "window_small", "window_long")
_QUICK_REQUESTS, _QUICK_ITEMS = 1, 3
_QUICK_SIZES = {"labels": (1, 16), "precision": (6, 6)}


@dataclass(slots=True)
class Session:
    """The settings that all workloads of a run share. `contestants` are the installed ones, the project's
    first."""

    device: Literal["cpu", "cuda"]
    data_dir: Path
    contestants: Sequence[str]
    report: Report
    quick: bool
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    _shapes: dict[str, tuple[ModelShape, MatmulRates]] = field(default_factory=dict)

    def run(self, names: Sequence[str]) -> None:
        """Measure the workloads of these names. Raises PmpoError if data or a model is missing."""
        choose_device(self.device)
        torch.set_num_threads(self.threads)
        with roster() as children:
            for name in names:
                if name == "options2":
                    self._doubled_options(children)
                elif name == "precision":
                    self._precision(children)
                elif name != "actor":
                    self._compared(children, name)
        if "actor" in names:
            self._actor()

    def _compared(self, children: Roster, name: str) -> None:
        """All contestants on one workload."""
        workload = self._workload(name)
        setting = self._setting(workload)
        rates = self._announce(workload)
        children.concurrent = fit_at_once(self._shapes[workload.model][0].vocabulary)
        if children.concurrent:
            for contestant in self.contestants:
                children.start(contestant, setting)
        expected = self._expected(children, setting, workload)
        timed = time_workload(children, self.contestants, setting, workload)
        for line in timed.lost:
            print(line)
        self._finish(workload, rates, timed.records, expected)

    def _doubled_options(self, children: Roster) -> None:
        """The project's engine on `options` with five and with ten options a question."""
        single, double = self._workload("options"), self._workload("options2")
        setting = self._setting(double)
        rates = self._announce(double)
        five, ten = doubling(children, setting, single, double)
        self._finish(double, rates, (ten,), self._expected(children, setting, double))
        ratio = ten.median / five.median
        print(f"ten options a question instead of five: {ratio:.3f} times the seconds ({five.median:.3f})\n")
        self.report.add_fact("options2_to_options_seconds", ratio)

    def _precision(self, children: Roster) -> None:
        """Measure the effect of bf16, whatever the contestants' number format."""
        workload = self._workload("precision")
        items = len(workload.requests[0])
        print(f"precision: {len(workload.requests)} candidates on {items} examples, {workload.model}")
        children.concurrent = False
        found = measure_precision(children, self.device, workload)
        print(found.table(), flush=True)
        for name, value in found.facts().items():
            self.report.add_fact(name, value)

    def _actor(self) -> None:
        """Time an actor against the engine alone, on the texts of `options`."""
        texts = workload_texts("options", self.data_dir)
        requests = texts.score_requests()
        if self.quick:
            requests = tuple(replace(one, examples=one.examples[:_QUICK_ITEMS]) for one in requests[:4])
        triples = sum(1 + len(example.negatives) for one in requests for example in one.examples)
        times = time_actor(requests, texts.model, self.device, self.threads)
        timed = {"pmpo_engine": times.bare, "pmpo_ray_actor": times.actor}
        rows = [
            self._row("actor", triples, Record(name, times=list(seconds)), None, None)
            for name, seconds in timed.items()
        ]
        print(table(rows, list(timed.values())))
        print(f"largest difference between the two: {times.difference:.2g} nats\n")
        self.report.add(rows)

    def _workload(self, name: str) -> Workload:
        texts = workload_texts(name, self.data_dir)
        tokenizer = load_tokenizer(resolve_model(available_model(texts.model)), trust_remote_code=False)
        workload = encode(name, texts, PromptEncoder(tokenizer, texts.layout))
        if not self.quick:
            return workload
        requests, items = _QUICK_SIZES.get(name, (_QUICK_REQUESTS, _QUICK_ITEMS))
        return workload.cut(requests, items)

    def _setting(self, workload: Workload) -> Setting:
        dtype = choose_dtype("auto", self.device)
        return Setting(available_model(workload.model), self.device, str(dtype).removeprefix("torch."))

    def _announce(self, workload: Workload) -> tuple[LeastWork, float]:
        """Print what the workload is; its least work, and the matmul rate at its model's shapes. Measured
        before any contestant runs."""
        if workload.model not in self._shapes:
            shape = model_shape(resolve_model(available_model(workload.model)).path)
            rates = matmul_rates(shape, choose_dtype("auto", self.device), self.device)
            self._shapes[workload.model] = shape, rates
        shape, rates = self._shapes[workload.model]
        work = least_work(workload.requests, shape)
        own = rates.at_own_shapes(shape, work)
        print(
            f"{workload.name}: {workload.triples} triples in {len(workload.requests)} requests, "
            f"{workload.model}; at least {work.unique_tokens:,} tokens, {work.scored_rows:,} scored rows and "
            f"{work.total / 1e9:,.0f} GFLOP; {own / 1e9:,.0f} GFLOP/s at the model's shapes, "
            f"{rates.square / 1e9:,.0f} at 2048 x 2048 x 2048",
            flush=True,
        )
        self.report.machine.setdefault("matmul_gflops", {}).update(
            {workload.name: own / 1e9, f"square_2048 beside {workload.model}": rates.square / 1e9}
        )
        return work, own

    def _expected(self, children: Roster, setting: Setting, workload: Workload) -> tuple[float, ...] | None:
        """The fp32 results, or None if the reference is not available."""
        try:
            expected = fp32_logprobs(children, "reference", setting, workload)
            if workload.name in _CHECKED and not self.quick:
                truth = fp32_logprobs(children, "one_by_one", setting, workload)
                error = largest_difference(expected, truth)
                print(f"fp32 reference against one triple at a time in fp32: {error:.2g} nats at most")
                self.report.add_fact(f"{workload.name}_reference_error_nats", error)
        except ContestantLostError as error:
            print(error)
            return None
        return expected

    def _finish(
        self,
        workload: Workload,
        work: tuple[LeastWork, float],
        records: Sequence[Record],
        expected: tuple[float, ...] | None,
    ) -> None:
        rows = []
        for record in records:
            difference = None if expected is None else largest_difference(record.logprobs, expected)
            rows.append(self._row(workload.name, workload.triples, record, work, difference))
            if record.note:
                print(f"{record.contestant}: {record.note}")
        print(table(rows, [record.times for record in records]) + "\n", flush=True)
        self.report.add(rows)

    def _row(
        self,
        workload: str,
        triples: int,
        record: Record,
        work: tuple[LeastWork, float] | None,
        difference: float | None,
    ) -> Row:
        seconds = statistics.median(record.times)
        return Row(
            workload=workload,
            contestant=record.contestant,
            seconds=seconds,
            triples_per_s=triples / seconds,
            tokens_computed=record.tokens_computed,
            unique_tokens=None if work is None else work[0].unique_tokens,
            useful_mfu=None if work is None else work[0].total / (seconds * work[1]),
            max_abs_diff_vs_fp32=difference,
            peak_rss_mb=record.peak_mb,
            runs=len(record.times),
            device=self.device,
            dtype=str(choose_dtype("auto", self.device)).removeprefix("torch."),
            threads=self.threads,
        )
