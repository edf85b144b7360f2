"""Findings: the results of checks, what they mean for a configuration, and what to do about them.

Invariants: everything here is pure; a finding is "missing" only if the configuration needs something that it
cannot get as things are; a finding that is not "ok" has advice.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pmpo_ray.config.endpoints import endpoints
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
_CLUSTER = "start it, correct ray.address or RAY_ADDRESS, or remove them to use this machine alone"
_REFUSED = 400
"""The first HTTP status that is an error."""
_LOW_DISK = 2 * GIGABYTE
_NO_MODEL = ("simulated", "openai")
"""The engines that load no model."""
_NEEDED = ("torch", "transformers", "ray", "datasets", "pyarrow")
_INSTALL = "pip install 'pmpo-ray[{}]'"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: what was `found`, and `advice` on what to do, empty if nothing."""

    name: str
    state: State
    found: str
    advice: str = ""

    def redacted(self, redact: Callable[[str], str]) -> Finding:
        """This finding with its texts redacted."""
        return replace(self, found=redact(self.found), advice=redact(self.advice))


def of_packages(versions: Mapping[str, str]) -> Finding:
    """Python and the packages, by their `versions` as in a manifest."""
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    absent = [name for name in _NEEDED if name not in versions]
    if absent:
        advice = "install pmpo-ray with its dependencies: pip install pmpo-ray"
        return Finding("packages", "missing", f"{found}; not installed: {', '.join(absent)}", advice)
    return Finding("packages", "ok", found)


def of_machine(machine: Machine) -> Finding:
    """Cores and memory of this machine, and the number format that is automatic on its processor."""
    cores = f"{machine.cores:g} of {machine.hardware_cores} cores"
    number_format = f"bfloat16 ({machine.bfloat16})" if machine.bfloat16 else "float32 (no fast bfloat16)"
    return Finding(
        "machine",
        "ok",
        f"{cores}, {machine.memory_bytes / GIGABYTE:.1f} GB of usable memory; dtype auto on the processor: "
        f"{number_format}",
    )


def of_gpus(report: GpuReport | str, *, needed: bool) -> Finding:
    """The GPUs of this machine; `report` is a text if torch did not report them. torch is `needed` if a
    model is loaded."""
    if isinstance(report, str) or report.problem:
        reason = report if isinstance(report, str) else report.problem
        advice = "reinstall it: pip install --force-reinstall torch"
        return Finding("GPUs", "missing" if needed else "warning", f"torch does not work: {reason}", advice)
    if report.gpus:
        each = ", ".join(f"{gpu.name} ({gpu.memory_bytes / GIGABYTE:.0f} GB)" for gpu in report.gpus)
        driver = f"driver {report.driver or 'unknown'}, torch for CUDA {report.cuda or 'unknown'}"
        number_format = (
            "bfloat16" if all(gpu.bfloat16 for gpu in report.gpus) else "float32 (no fast bfloat16)"
        )
        return Finding("GPUs", "ok", f"{len(report.gpus)}: {each}; {driver}; dtype auto: {number_format}")
    if report.driver and not report.cuda:
        advice = "install a build of torch for CUDA, or use the CPU alone"
        return Finding(
            "GPUs", "warning", f"driver {report.driver} is installed, but torch is built without CUDA", advice
        )
    if report.driver:
        advice = "check that the driver supports torch's CUDA version, and check CUDA_VISIBLE_DEVICES"
        found = f"driver {report.driver} and torch for CUDA {report.cuda}, but no GPU is visible"
        return Finding("GPUs", "warning", found, advice)
    return Finding("GPUs", "ok", "none; models run on the CPU")


def of_cluster(address: str | None, cluster: ClusterResources | str) -> Finding:
    """The Ray that a run would use: the cluster at `address`, or (None) one that the run starts. `cluster` is
    a text, the reason, if it does not work."""
    where = f"the cluster at {address}" if address else "started by the run on this machine"
    if isinstance(cluster, str):
        reason, advice = _split_advice(cluster)
        install = "install it: pip install 'ray[default]'"
        return Finding("Ray", "missing", f"{where}: {reason}", advice or (_CLUSTER if address else install))
    nodes = "" if address is None else f" on {len(cluster.nodes)} nodes"
    return Finding("Ray", "ok", f"{where}: {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs{nodes}")


def of_replicas(config: RunConfig, cluster: ClusterResources) -> Finding:
    """The replicas, and if the cluster has room for them."""
    from pmpo_ray.actors.packing import check_fits
    from pmpo_ray.actors.planning import plan

    try:
        roles = plan(config.scorer, config.rewriter, cluster, autoscaling=config.ray.autoscaling).roles
        if not config.ray.autoscaling:
            check_fits(roles, cluster)
    except (ConfigError, ResourceError) as error:
        return from_error("replicas", str(error))
    needs = (f"{part.replicas} {role} with {part.summary} each" for role, part in roles.items())
    return Finding("replicas", "ok", f"there is room for {' and '.join(needs)}")


def of_vllm(config: RunConfig, version: str | None, *, gpus: float, local: bool) -> Finding:
    """vLLM, by its `version` (None: not installed), if it is needed or useful; `gpus` are the cluster's."""
    if version is not None:
        return Finding("vLLM", "ok", version)
    roles = [role for role, replica in replicas(config).items() if _needs_vllm(replica)]
    advice = _INSTALL.format("vllm")
    if roles:
        where = "" if local else " here, but it has to be on the cluster's nodes"
        state: State = "missing" if local else "warning"
        return Finding("vLLM", state, f"not installed{where}; the {roles[0]} needs it", advice)
    if gpus and any(replica.engine == "auto" for replica in replicas(config).values()):
        return Finding("vLLM", "warning", "not installed; it would make rewriting on GPUs faster", advice)
    return Finding("vLLM", "ok", "not installed and not needed")


def of_openai(config: RunConfig, version: str | None) -> Finding:
    """The client for OpenAI-compatible servers, by its `version` (None: not installed)."""
    if version is not None:
        return Finding("openai", "ok", version)
    names = list(endpoints(config))
    if names:
        found = f"the package is not installed; {names[0]} needs it"
        return Finding("openai", "missing", found, _INSTALL.format("openai"))
    return Finding("openai", "ok", "not installed and not needed")


def of_endpoint(
    name: str, url: str, settings: EndpointConfig, answer: int | str, *, has_key: bool, local: bool
) -> Finding:
    """The server of a role; `answer` is its HTTP status, or the reason why it does not answer. If replicas
    run on other machines (not `local`), a result on this machine is only a hint."""
    severity: State = "missing" if local else "warning"
    if isinstance(answer, str):
        advice = f"start the server, or correct {name}.url"
        return Finding(name, severity, f"{url} does not answer: {answer}", advice)
    if has_key or settings.api_key_env is None:
        return Finding(name, "ok", f"{url} answers")
    found = f"{url} answers; {settings.api_key_env}, the variable with its API key, is not set"
    if f".{urlsplit(url).hostname}".endswith(".openai.com"):
        return Finding(name, severity, found, f"export {settings.api_key_env}=...")
    return Finding(name, "ok", f"{found}, but most servers need none")


def of_model(model: Model, report: ModelReport, *, local: bool) -> Finding:
    """A model. If replicas run on other machines (not `local`), a result on this machine is only a hint: each
    node looks for models itself."""
    name, revision, _ = model
    if report.place == "here":
        return Finding("model", "ok", f"{name} is on this machine")
    if report.place is None:
        return from_error("model", report.problem, "missing" if local else "warning")
    found = f"{name} is not on this machine; it is {report.place} and is downloaded when a run starts"
    if report.place == "in a package":
        return Finding("model", "warning", found, "nothing needs to be done")
    download = ["hf", "download", name, *(["--revision", revision] if revision else [])]
    return Finding("model", "warning", found, f"to download it before the run: {shlex.join(download)}")


def hub_answers(report: HubReport) -> bool:
    """True if the hub can be used."""
    return isinstance(report.answer, int) and report.answer < _REFUSED


def of_hub(report: HubReport, *, needed: bool) -> Finding:
    """The hub; it is `needed` if a model or a task is not on this machine."""
    if hub_answers(report):
        return Finding("hub", "ok", f"{report.endpoint} answers")
    reason = report.answer if isinstance(report.answer, str) else f"it answers with status {report.answer}"
    if not needed:
        return Finding("hub", "ok", f"{report.endpoint} cannot be used ({reason}) and is not needed")
    advice = "go online, or copy models and data here: use folders as model names, and set data_dir"
    return Finding("hub", "warning", f"{report.endpoint} cannot be used ({reason})", advice)


def of_storage(location: str, problem: str, *, lasting: bool) -> Finding:
    """The place of the run folder; `problem` is empty if a file was written, read and removed there. It is
    not `lasting` if it is on a disk that may vanish with the machine while a cluster works."""
    if problem:
        found, advice = _split_advice(problem)
        if not advice:
            found, advice = f"{location}: {problem}", "check the address and its endpoint_override"
        return Finding("run folder", "missing", found, advice)
    if not lasting:
        advice = "use a run folder on s3:// or gs:// if this machine may stop before the run ends"
        return Finding("run folder", "warning", f"{location} is only on this machine's disk", advice)
    return Finding("run folder", "ok", f"{location} can be written and read")


def of_tasks(config: RunConfig, report: TaskReport | str, *, hub: bool) -> Finding:
    """The tasks of a configuration; `hub` is true if the hub can be used."""
    if isinstance(report, str):
        return Finding("tasks", "warning", f"not checked: {report}", "check the disk with their data")
    if report.problem:
        return from_error("tasks", report.problem)
    if report.not_cached and hub:
        found = f"{report.ready} of {len(config.tasks)} are on this machine; the others come from the hub"
        advice = "nothing needs to be done if this machine stays online; otherwise set data_dir"
        return Finding("tasks", "warning", found, advice)
    if report.not_cached:
        return from_error("tasks", report.not_cached)
    place = f" in {config.data_dir}" if config.data_dir else ""
    return Finding("tasks", "ok", f"{report.ready} ready{place}")


def of_disk(places: Mapping[str, int]) -> Finding:
    """The free disk space in bytes, by purpose."""
    found = ", ".join(f"{free / GIGABYTE:.1f} GB for {purpose}" for purpose, free in places.items())
    if min(places.values(), default=math.inf) < _LOW_DISK:
        return Finding(
            "disk", "warning", found, "free some space, or use another disk (PMPO_CACHE_DIR, HF_HOME)"
        )
    return Finding("disk", "ok", found)


def from_error(name: str, error: str, state: State = "missing") -> Finding:
    """The finding of an error, whose text has the problem and the advice on one line."""
    found, advice = _split_advice(error)
    return Finding(name, state, found, advice or "try again; if the problem stays, fix what it names")


def _split_advice(text: str) -> tuple[str, str]:
    """The problem and the advice in the text of an error; the advice is empty if the text has none."""
    before, semicolon, after = text.rpartition("; ")
    return (before, after) if semicolon else (text, "")


def replicas(config: RunConfig) -> dict[str, ReplicaConfig]:
    """The roles that have replicas, with their settings."""
    scorer: dict[str, ReplicaConfig] = {"scorer": config.scorer}
    return scorer if config.scorer.role == "both" else scorer | {"rewriter": config.rewriter}


def _needs_vllm(replica: ReplicaConfig) -> bool:
    return replica.engine == "vllm" or (replica.engine == "auto" and replica.tensor_parallel > 1)


def models(config: RunConfig) -> list[Model]:
    """The models that a run or its evaluation loads, without duplicates."""
    names = {"scorer": config.scorer_model, "rewriter": config.rewriter_model}
    loaded = [
        (names[role], replica.revision, replica.trust_remote_code)
        for role, replica in replicas(config).items()
        if replica.engine not in _NO_MODEL
    ]
    evaluation = config.evaluation
    if config.scorer.engine not in _NO_MODEL:
        loaded += [(name, None, config.scorer.trust_remote_code) for name in evaluation.models]
    if evaluation.evaluator.model is not None and evaluation.evaluator.engine not in _NO_MODEL:
        loaded.append((evaluation.evaluator.model, None, False))
    reward = evaluation.process_reward
    if reward.model is not None:
        loaded.append((reward.model, reward.revision, reward.trust_remote_code))
    return list(dict.fromkeys(loaded))
