"""From what was found to what it means for a configuration, and what to do about it.

Invariants: pure; "missing" is said only of what the configuration needs and cannot get as things are;
whatever is not "ok" comes with advice.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pmpo_ray.config.engines import EndpointConfig, ReplicaConfig
from pmpo_ray.config.run import RunConfig
from pmpo_ray.doctor.machine import Machine
from pmpo_ray.doctor.models import HubReport, Model, ModelReport
from pmpo_ray.doctor.tasks import TaskReport
from pmpo_ray.engines.hf.gpus import GpuReport
from pmpo_ray.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from pmpo_ray.actors.resources import ClusterResources

State = Literal["ok", "warning", "missing"]

GIGABYTE = 10**9
_CLUSTER = "start it, or correct ray.address or RAY_ADDRESS, or leave them out to use this machine alone"
_REFUSED = 400
"""From this status on, a server's answer is a refusal."""
_LOW_DISK = 2 * GIGABYTE
_NEEDED = ("torch", "transformers", "ray", "datasets", "pyarrow")
_INSTALL = "pip install 'pmpo-ray[{}]'"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` says what to do, and is empty where nothing has to be done."""

    name: str
    state: State
    found: str
    advice: str = ""

    def redacted(self, redact: Callable[[str], str]) -> Finding:
        """The same as `redact` lets it be told."""
        return replace(self, found=redact(self.found), advice=redact(self.advice))


def of_packages(versions: Mapping[str, str]) -> Finding:
    """What Python and the packages are, by `versions` as in a manifest."""
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    absent = [name for name in _NEEDED if name not in versions]
    if absent:
        advice = "install the package with all that it needs: pip install pmpo-ray"
        return Finding("packages", "missing", f"{found}; not installed: {', '.join(absent)}", advice)
    return Finding("packages", "ok", found)


def of_machine(machine: Machine) -> Finding:
    """Cores and memory of this machine."""
    cores = f"{machine.cores:g} of {machine.hardware_cores} cores"
    return Finding("machine", "ok", f"{cores}, {machine.memory_bytes / GIGABYTE:.1f} GB of memory to use")


def of_gpus(report: GpuReport | str, *, needed: bool) -> Finding:
    """The GPUs of this machine; `report` is a text where torch could not be asked. torch is `needed` where a
    model is loaded."""
    if isinstance(report, str) or report.problem:
        why = report if isinstance(report, str) else report.problem
        advice = "install it anew: pip install --force-reinstall torch"
        return Finding("GPUs", "missing" if needed else "warning", f"torch does not work: {why}", advice)
    if report.gpus:
        each = ", ".join(f"{gpu.name} ({gpu.memory_bytes / GIGABYTE:.0f} GB)" for gpu in report.gpus)
        driver = f"driver {report.driver or 'unknown'}, torch for CUDA {report.cuda or 'unknown'}"
        return Finding("GPUs", "ok", f"{len(report.gpus)}: {each}; {driver}")
    if report.driver and not report.cuda:
        advice = "install a build of torch for CUDA, or go on with the CPU alone"
        return Finding(
            "GPUs", "warning", f"driver {report.driver} is there, torch is built without CUDA", advice
        )
    if report.driver:
        advice = "compare the driver with torch's CUDA, and look at CUDA_VISIBLE_DEVICES"
        found = f"driver {report.driver} and torch for CUDA {report.cuda}, but no GPU is visible"
        return Finding("GPUs", "warning", found, advice)
    return Finding("GPUs", "ok", "none; models run on the CPU")


def of_cluster(address: str | None, found: ClusterResources | str) -> Finding:
    """The Ray that a run would work on; `address` None for one of its own. `found` is a text where it does
    not work."""
    where = f"the cluster at {address}" if address else "a Ray of the run's own on this machine"
    if isinstance(found, str):
        why, advice = _parted(found)
        install = "install it: pip install 'ray[default]'"
        return Finding("Ray", "missing", f"{where}: {why}", advice or (_CLUSTER if address else install))
    nodes = "" if address is None else f" on {len(found.nodes)} nodes"
    return Finding("Ray", "ok", f"{where}: {found.cpus:g} CPUs and {found.gpus:g} GPUs{nodes}")


def of_replicas(config: RunConfig, there: ClusterResources) -> Finding:
    """Whether the replicas find a place."""
    from pmpo_ray.actors.resources import asked_for, check_fits, plan

    try:
        roles = plan(config.scorer, config.rewriter, there, autoscaling=config.ray.autoscaling).roles
        if not config.ray.autoscaling:
            check_fits(roles, there)
    except (ConfigError, ResourceError) as error:
        return from_error("replicas", str(error))
    asked = (f"{part.replicas} {role} with {asked_for(part)} each" for role, part in roles.items())
    return Finding("replicas", "ok", f"there is room for {' and '.join(asked)}")


def of_vllm(config: RunConfig, version: str | None, *, gpus: float, own_machine: bool) -> Finding:
    """Whether vLLM is there, by its `version`, where it is needed or of use; `gpus` are the cluster's."""
    if version is not None:
        return Finding("vLLM", "ok", version)
    wanted = [role for role, replica in replicas(config).items() if _needs_vllm(replica)]
    advice = _INSTALL.format("vllm")
    if wanted:
        where = "" if own_machine else " here; it has to be on the cluster's nodes"
        state: State = "missing" if own_machine else "warning"
        return Finding("vLLM", state, f"not installed{where}, and the {wanted[0]} needs it", advice)
    if gpus and any(replica.engine == "auto" for replica in replicas(config).values()):
        return Finding("vLLM", "warning", "not installed; on GPUs it rewrites faster", advice)
    return Finding("vLLM", "ok", "not installed, and not needed")


def of_openai(config: RunConfig, version: str | None) -> Finding:
    """Whether the client for OpenAI-compatible servers is there, by its `version`, where it is needed."""
    if version is not None:
        return Finding("openai", "ok", version)
    asked = list(endpoints(config))
    if asked:
        found = f"the package is not installed, and {asked[0]} needs it"
        return Finding("openai", "missing", found, _INSTALL.format("openai"))
    return Finding("openai", "ok", "not installed, and not needed")


def of_endpoint(
    name: str, url: str, settings: EndpointConfig, answer: int | str, *, has_key: bool, own_machine: bool
) -> Finding:
    """The server of a role; `answer` is the status that it answers with, or why it does not. Where replicas
    run elsewhere, what is found here is no more than a hint."""
    grave: State = "missing" if own_machine else "warning"
    if isinstance(answer, str):
        advice = f"start the server, or correct {name}.url"
        return Finding(name, grave, f"{url} does not answer: {answer}", advice)
    if has_key or settings.api_key_env is None:
        return Finding(name, "ok", f"{url} answers")
    found = f"{url} answers; the variable {settings.api_key_env} with its key is not set"
    if f".{urlsplit(url).hostname}".endswith(".openai.com"):
        return Finding(name, grave, found, f"export {settings.api_key_env}=...")
    return Finding(name, "ok", f"{found}, which many servers do not want")


def of_model(name: str, report: ModelReport, *, own_machine: bool) -> Finding:
    """A model. Where replicas run elsewhere, what is here is no more than a hint: each node finds models for
    itself."""
    if report.place == "here":
        return Finding("model", "ok", f"{name} is on this machine")
    if report.place is None:
        return from_error("model", report.problem, "missing" if own_machine else "warning")
    fetch = f"from pmpo_ray.engines.weights.resolve import resolve_model as get; get({name!r})"
    advice = f"nothing, or to have it before the run: python -c {shlex.quote(fetch)}"
    found = f"{name} is not here yet: it is {report.place}, and is fetched when a run starts"
    return Finding("model", "warning", found, advice)


def hub_answers(report: HubReport) -> bool:
    """Whether the hub can be used."""
    return isinstance(report.answer, int) and report.answer < _REFUSED


def of_hub(report: HubReport, *, needed: bool) -> Finding:
    """The hub; `needed` where something is not here."""
    if hub_answers(report):
        return Finding("hub", "ok", f"{report.endpoint} answers")
    why = report.answer if isinstance(report.answer, str) else f"it answers with status {report.answer}"
    if not needed:
        return Finding("hub", "ok", f"{report.endpoint} cannot be used ({why}), and is not needed")
    advice = "go online, or bring models and data here: folders as model names, and data_dir"
    return Finding("hub", "warning", f"{report.endpoint} cannot be used ({why})", advice)


def of_storage(location: str, problem: str, *, lasting: bool) -> Finding:
    """Where the run folder would be; `problem` is empty where a file was written, read and removed there. Not
    `lasting` is a disk that may go with the machine while a cluster works."""
    if problem:
        found, advice = _parted(problem)
        if not advice:
            found, advice = f"{location}: {problem}", "check the address, and the endpoint_override in it"
        return Finding("run folder", "missing", found, advice)
    if not lasting:
        advice = "name a run folder on s3:// or gs:// where the machine may go before the run's end"
        return Finding("run folder", "warning", f"{location} is on this machine's disk alone", advice)
    return Finding("run folder", "ok", f"{location} can be written and read")


def of_tasks(config: RunConfig, report: TaskReport | str, *, hub: bool) -> Finding:
    """The tasks of a configuration; `hub` tells whether the hub can be reached."""
    if isinstance(report, str):
        return Finding("tasks", "warning", f"not made ready: {report}", "look at the disk that they are on")
    if report.wrong:
        return from_error("tasks", report.wrong)
    if report.not_cached and hub:
        found = f"{report.ready} of {len(config.tasks)} are here; the others come from the hub"
        return Finding(
            "tasks", "warning", found, "nothing, where the machine stays online; else set data_dir"
        )
    if report.not_cached:
        return from_error("tasks", report.not_cached)
    place = f" in {config.data_dir}" if config.data_dir else ""
    return Finding("tasks", "ok", f"{report.ready} ready{place}")


def of_disk(places: Mapping[str, int]) -> Finding:
    """Free space, in bytes, by what it is for."""
    found = ", ".join(f"{free / GIGABYTE:.1f} GB for {purpose}" for purpose, free in places.items())
    if min(places.values(), default=math.inf) < _LOW_DISK:
        return Finding(
            "disk", "warning", found, "free some space, or choose another disk (PMPO_CACHE_DIR, HF_HOME)"
        )
    return Finding("disk", "ok", found)


def from_error(name: str, error: str, state: State = "missing") -> Finding:
    """What the text of one of the project's errors says."""
    found, advice = _parted(error)
    return Finding(name, state, found, advice or "try again; where it stays so, look at what is named")


def _parted(text: str) -> tuple[str, str]:
    """What is wrong, and what to do: an error's text has both on its line. What to do is empty where the text
    does not say it."""
    before, semicolon, after = text.rpartition("; ")
    return (before, after) if semicolon else (text, "")


def replicas(config: RunConfig) -> dict[str, ReplicaConfig]:
    """The roles that have replicas of their own."""
    only: dict[str, ReplicaConfig] = {"scorer": config.scorer}
    return only if config.scorer.role == "both" else only | {"rewriter": config.rewriter}


def _needs_vllm(replica: ReplicaConfig) -> bool:
    return replica.engine == "vllm" or (replica.engine == "auto" and replica.tensor_parallel > 1)


def endpoints(config: RunConfig) -> dict[str, EndpointConfig]:
    """The servers that a configuration asks, by their keys."""
    found = {
        f"{role}.endpoint": replica.endpoint
        for role, replica in replicas(config).items()
        if replica.engine == "openai"
    }
    evaluator, judge = config.evaluation.evaluator, config.evaluation.judge
    if evaluator.model is not None and evaluator.engine == "openai":
        found["evaluation.evaluator.endpoint"] = evaluator.endpoint
    if judge.model is not None:
        found["evaluation.judge.endpoint"] = judge.endpoint
    return found


def models(config: RunConfig) -> list[Model]:
    """The models that are loaded somewhere, each once."""
    named = {"scorer": config.scorer_model, "rewriter": config.rewriter_model}
    asked = [
        (named[role], replica.revision, replica.trust_remote_code)
        for role, replica in replicas(config).items()
        if replica.engine not in ("simulated", "openai")
    ]
    evaluation = config.evaluation
    if config.scorer.engine not in ("simulated", "openai"):
        asked += [(name, None, config.scorer.trust_remote_code) for name in evaluation.models]
    if evaluation.evaluator.model is not None and evaluation.evaluator.engine not in ("simulated", "openai"):
        asked.append((evaluation.evaluator.model, None, False))
    reward = evaluation.process_reward
    if reward.model is not None:
        asked.append((reward.model, reward.revision, reward.trust_remote_code))
    return list(dict.fromkeys(asked))
