"""The files in cluster/: valid for the tools that read them, true to the project's commands and keys."""

from __future__ import annotations

import copy
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import click
import jsonschema
import pytest
import typer
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.runtime_env import RuntimeEnv
from ray.scripts.scripts import cli as ray_cli

from pmpo_ray.cli.main import app
from pmpo_ray.config.keys import key_paths
from pmpo_ray.config.overrides import parse_overrides
from pmpo_ray.config.run import RunConfig
from pmpo_ray.store.kept_config import requested_config

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.iterdir() if path.is_file())
IN_THE_IMAGE = "/opt/pmpo_ray/"
"""Where cluster/Dockerfile puts the project."""

LAUNCHERS = ("aws.yaml", "gcp.yaml")
MANIFESTS = {"raycluster.yaml": "ray.io_rayclusters.yaml", "rayjob.yaml": "ray.io_rayjobs.yaml"}
SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
}
PLACEHOLDERS = {
    "aws.yaml": {"AMI_ID"},
    "gcp.yaml": {"PROJECT_ID", "IMAGE_FAMILY"},
    "raycluster.yaml": {"IMAGE"},
    "rayjob.yaml": {"IMAGE", "BUCKET"},
}

Json = dict[str, Any]


def read(name: str) -> str:
    return (CLUSTER / name).read_text(encoding="utf-8")


def load(name: str) -> Json:
    document: Json = yaml.safe_load(read(name))
    return document


def pinned(package: str) -> str:
    """The version of a package in constraints.txt."""
    found = re.search(rf"(?m)^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def ray_cluster(name: str) -> Json:
    """The RayCluster spec of a manifest."""
    spec: Json = load(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def linter(name: str) -> str:
    """A linter that the development extra installs next to this Python, or that the machine has."""
    found = shutil.which(name, path=os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"])))
    assert found is not None, f"{name} is not installed"
    return found


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- Ray's cluster launcher


@pytest.fixture(scope="module", params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> Json:
    return load(request.param)


def workers(launcher: Json) -> dict[str, Json]:
    types: dict[str, Json] = launcher["available_node_types"]
    return {name: node for name, node in types.items() if name != launcher["head_node_type"]}


def is_spot(node: Json) -> bool:
    config = node["node_config"]
    return (
        config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        or config.get("scheduling", {}).get("provisioningModel") == "SPOT"
    )


def test_the_launcher_accepts_the_file(launcher: Json) -> None:
    # With the provider's defaults filled in, as `ray up` does before it asks the provider anything.
    validate_config(prepare_config(copy.deepcopy(launcher)))


def test_the_head_is_an_on_demand_machine_without_cpus_to_offer(launcher: Json) -> None:
    head = launcher["available_node_types"][launcher["head_node_type"]]
    assert not is_spot(head)
    assert (head["resources"], head["max_workers"]) == ({"CPU": 0}, 0)
    assert "--num-cpus=0" in launcher["head_start_ray_commands"][-1]


def test_gpu_machines_are_spot_first_and_go_when_idle(launcher: Json) -> None:
    spot = [node for node in workers(launcher).values() if is_spot(node)]
    on_demand = [node for node in workers(launcher).values() if not is_spot(node)]
    assert len(spot) == len(on_demand) == 1
    assert spot[0]["priority"] > on_demand[0]["priority"]
    assert all(node["min_workers"] == 0 for node in workers(launcher).values())
    assert 0 < launcher["idle_timeout_minutes"] <= 10
    assert launcher["provider"].get("cache_stopped_nodes", False) is False


def test_spot_and_on_demand_machines_differ_in_nothing_else(launcher: Json) -> None:
    # Equal machines are equally good for the autoscaler, so that the priority decides.
    shapes = []
    for node in workers(launcher).values():
        market = ("InstanceMarketOptions", "scheduling")
        shapes.append(({k: v for k, v in node["node_config"].items() if k not in market}, node["resources"]))
    assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_machines_of_aws_are_described_in_the_words_of_its_api() -> None:
    model = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")
    for node in load("aws.yaml")["available_node_types"].values():
        request = {"MinCount": 1, "MaxCount": 1, **node["node_config"]}
        report = botocore.validate.ParamValidator().validate(request, model.input_shape)
        assert not report.has_errors(), report.generate_report()


def test_the_launcher_installs_what_it_mounts(launcher: Json) -> None:
    mounts = {remote: local for remote, local in launcher["file_mounts"].items() if local[0] != "~"}
    assert mounts == {f"~/pmpo_ray/{local}": local for local in mounts.values()}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for needed in ("pmpo_ray", "actors", "constraints.txt", "pyproject.toml", "README.md", "LICENSE"):
        assert needed in mounts.values()
        assert needed in project or needed in ("constraints.txt", "pyproject.toml")
    (setup,) = launcher["setup_commands"]
    assert setup == "pip install --no-cache-dir --constraint ~/pmpo_ray/constraints.txt ~/pmpo_ray"


def test_no_launched_cluster_is_open_to_its_network(launcher: Json) -> None:
    assert launcher["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (launcher["head_start_ray_commands"], launcher["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token ray start" in commands[-1]
    assert "--dashboard-host=127.0.0.1" in launcher["head_start_ray_commands"][-1]


# --- KubeRay


@pytest.fixture(scope="module")
def schemas(data_dir: Path) -> dict[str, Json]:
    """The schema of ray.io/v1 in each definition of a custom resource."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for name in MANIFESTS.values():
        text = (data_dir.parent / "schemas" / name).read_text(encoding="utf-8")
        definition = yaml.load(text, Loader=loader)  # noqa: S506 - both loaders are safe ones
        (version,) = [entry for entry in definition["spec"]["versions"] if entry["name"] == "v1"]
        found[name] = version["schema"]["openAPIV3Schema"]
    return found


def unknown_keys(value: Any, schema: Json, path: str) -> Iterator[str]:
    """Keys that a schema does not have: the API server would drop them silently."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_keys(item, schema.get("items", {}), f"{path}[{index}]")
    elif isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if key in known:
                yield from unknown_keys(item, known[key], f"{path}.{key}")
            elif isinstance(others, dict):
                yield from unknown_keys(item, others, f"{path}.{key}")
            # What metadata holds is for Kubernetes itself to say, the same in every resource.
            elif not others and path != ".metadata":
                yield f"{path}.{key}"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "schema"), MANIFESTS.items())
def test_kubernetes_accepts_the_manifest(name: str, schema: str, schemas: dict[str, Json]) -> None:
    manifest = load(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    jsonschema.validate(manifest, schemas[schema])
    assert list(unknown_keys(manifest, schemas[schema], "")) == []


def test_a_misspelt_key_of_a_manifest_is_noticed(schemas: dict[str, Json]) -> None:
    manifest = load("raycluster.yaml")
    container = manifest["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    container["volumeMount"] = container.pop("volumeMounts")
    assert list(unknown_keys(manifest, schemas["ray.io_rayclusters.yaml"], "")) == [
        ".spec.headGroupSpec.template.spec.containers[0].volumeMount"
    ]


def test_both_manifests_describe_the_same_cluster() -> None:
    assert ray_cluster("rayjob.yaml") == ray_cluster("raycluster.yaml")


def node_types() -> dict[str, Json]:
    """The configuration that Ray's autoscaler reads from the manifest."""
    manifest = load("raycluster.yaml")
    manifest["metadata"]["namespace"] = "default"
    derived: Json = _derive_autoscaling_config_from_ray_cr(manifest)
    types: dict[str, Json] = derived["available_node_types"]
    return types


def test_the_autoscaler_reads_a_head_without_cpus_and_gpu_groups_from_zero() -> None:
    types = node_types()
    head = types.pop("headgroup")
    assert (head["resources"]["CPU"], head["max_workers"]) == (0, 0)
    assert set(types) == {"gpu-spot", "gpu-on-demand"}
    for node in types.values():
        assert (node["min_workers"], node["resources"]["GPU"]) == (0, 1)
    groups = ray_cluster("raycluster.yaml")["workerGroupSpecs"]
    assert all(group["replicas"] == 0 for group in groups)


def first_choice(refused: Mapping[str, float]) -> str:
    """The type of node that the autoscaler starts for one replica; `refused` lowers types' availability."""
    configs = {
        name: NodeTypeConfig(
            name=name,
            min_worker_nodes=node["min_workers"],
            max_worker_nodes=node["max_workers"],
            resources=node["resources"],
            priority=node.get("priority", 0),
        )
        for name, node in node_types().items()
    }
    reply = ResourceDemandScheduler(event_logger=None).schedule(
        SchedulingRequest(
            node_type_configs=configs,
            max_num_nodes=9,
            resource_requests=ResourceRequestUtil.group_by_count(
                [ResourceRequestUtil.make({"CPU": 1, "GPU": 1})]
            ),
            disable_launch_config_check=True,
            recoverable_resource_availabilities=dict(refused),
        )
    )
    (launch,) = reply.to_launch
    name: str = launch.instance_type
    return name


def test_the_autoscaler_takes_spot_nodes_and_others_where_they_cannot_be_had() -> None:
    assert first_choice({}) == "gpu-spot"
    assert first_choice({"gpu-spot": 0.0}) == "gpu-on-demand"


def node_terms(template: Json) -> list[list[Json]]:
    affinity = template["spec"]["affinity"]["nodeAffinity"]
    required = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    return [term["matchExpressions"] for term in required["nodeSelectorTerms"]]


def test_only_the_spot_group_may_stand_on_spot_nodes() -> None:
    spec = ray_cluster("raycluster.yaml")
    spot, on_demand = spec["workerGroupSpecs"]
    assert node_terms(spot["template"]) == [
        [{"key": key, "operator": "In", "values": [value]}] for key, value in SPOT_LABELS.items()
    ]
    for template in (spec["headGroupSpec"]["template"], on_demand["template"]):
        assert node_terms(template) == [
            [{"key": key, "operator": "NotIn", "values": [value]} for key, value in SPOT_LABELS.items()]
        ]


def test_pods_run_as_the_user_of_the_image_and_are_never_restarted_in_place() -> None:
    spec = ray_cluster("raycluster.yaml")
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"USER {pod['securityContext']['runAsUser']}\n" in read("Dockerfile")


def test_the_cluster_on_kubernetes_scales_itself_and_has_a_password() -> None:
    spec = ray_cluster("raycluster.yaml")
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["authOptions"] == {"mode": "token"}


def test_a_job_on_kubernetes_is_tried_again_and_leaves_nothing_running() -> None:
    spec = load("rayjob.yaml")["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] <= 600
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"env_vars": load("runtime-env.yaml")["env_vars"]}


# --- The image, the script, the upload


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = run(linter("hadolint"), "--no-color", CLUSTER / "Dockerfile")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_the_image_copies_what_exists_and_sees_nothing_else() -> None:
    sources = [
        source for line in re.findall(r"(?m)^COPY (.+)$", read("Dockerfile")) for source in line.split()[:-1]
    ]
    assert all((ROOT / source).exists() for source in sources)
    ignored, *lines = [line for line in read("Dockerfile.dockerignore").splitlines() if line[0] != "#"]
    assert ignored == "*"
    assert sorted(line[1:] for line in lines if line[0] == "!") == sorted(sources)


def test_the_image_has_pinned_versions_and_no_root() -> None:
    dockerfile = read("Dockerfile")
    for install in re.findall(r"pip install .+", dockerfile):
        assert "--constraint constraints.txt" in install or "--no-deps ." in install
    assert re.findall(r"(?m)^USER (\S+)$", dockerfile)[-1] == "1000"


def test_every_file_names_the_ray_and_the_python_of_the_project() -> None:
    images = [
        image for path in FILES for image in re.findall(r"rayproject/ray:(\S+)", path.read_text("utf-8"))
    ]
    assert len(images) == 3
    assert {image.rpartition("-")[0] for image in images} == {f"{pinned('ray')}-py311"}
    assert "ARG BASE_IMAGE=python:3.11-" in read("Dockerfile")
    for name in MANIFESTS:
        assert ray_cluster(name)["rayVersion"] == pinned("ray")


def test_shellcheck_finds_nothing_in_the_script() -> None:
    done = run(linter("shellcheck"), CLUSTER / "slurm.sh")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert run("bash", "-n", CLUSTER / "slurm.sh").returncode == 0


def test_the_slurm_job_can_be_requeued_and_hears_of_its_end() -> None:
    options = re.findall(r"(?m)^#SBATCH (\S+)$", read("slurm.sh"))
    assert {"--requeue", "--open-mode=append"} <= set(options)
    assert any(option.startswith("--signal=B:TERM@") for option in options)


def test_the_slurm_script_says_how_it_is_used_and_what_is_missing(tmp_path: Path) -> None:
    script = CLUSTER / "slurm.sh"
    outside = run("bash", script, "configs/bbh.yaml", "run")
    assert outside.returncode == 2
    assert outside.stderr.startswith("error: run it as: sbatch cluster/slurm.sh CONFIG RUN_DIR")
    bare = run("bash", script, "configs/bbh.yaml", "run", SLURM_JOB_ID="1", SLURM_SUBMIT_DIR=str(tmp_path))
    assert bare.returncode == 2
    assert bare.stderr.startswith(f"error: {tmp_path}/.venv/bin/pmpo is missing: run make install")


def test_ray_accepts_the_runtime_environment() -> None:
    settings = load("runtime-env.yaml")
    assert RuntimeEnv(**settings).to_dict() == settings


def test_an_upload_holds_the_project_and_no_environment_run_or_secret(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "configs").mkdir(parents=True)
    shutil.copy(ROOT / ".rayignore", project)
    code = ["actors/pool.py", "pmpo_ray/runs/optimize.py", "pmpo_ray/tasks/data/tickets.jsonl"]
    kept = [*code, "configs/bbh.yaml", "my.csv"]
    secrets = [".env", "cluster/key.pem", ".aws/credentials"]
    large = ["model/weights.safetensors", "model.gguf", "runs/a/config.yaml", ".venv/bin/python"]
    useless = [
        ".git/config",
        "pmpo_ray/__pycache__/cli.pyc",
        "tests/cli/test_main.py",
        "benchmarks/scoring.py",
    ]
    for name in (*kept, *secrets, *large, *useless):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x", encoding="utf-8")
    (project / "pmpo_ray" / "actors").symlink_to(ROOT.joinpath("pmpo_ray", "actors").readlink())
    package = tmp_path / "package.zip"
    create_package(
        str(project), package, include_gitignore=False, excludes=load("runtime-env.yaml")["excludes"]
    )
    with zipfile.ZipFile(package) as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    # Ray copies through the link, so nodes find the actors in the package.
    assert files == {*kept, "pmpo_ray/actors/pool.py", ".rayignore"}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_copies_the_actors_to_where_the_link_in_the_package_points(name: str) -> None:
    """`rsync -a` keeps the link as it is."""
    mounts = load(name)["file_mounts"]
    (package,) = (remote for remote, local in mounts.items() if local == "pmpo_ray")
    link = ROOT / "pmpo_ray" / "actors"
    assert mounts[os.path.normpath(f"{package}/{link.readlink()}")] == "actors"


# --- What the files say


def texts(path: Path) -> Iterator[str]:
    """The pieces of a file that may hold commands, each on lines of its own."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    match path.suffix:
        case ".md":
            yield from re.findall(r"(?m)^    (.+)$", text)
            yield from re.findall(r"`([^`\n]+)`", text)
        case ".yaml":
            # A command may go over several lines: as the value it is whole.
            yield from scalars(yaml.safe_load(text))
            yield from re.findall(r"(?m)^ *# (.+)$", text)
        case _:
            yield from text.splitlines()


def scalars(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from scalars(item)


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """Every call of a program in the files: the file, and the arguments."""
    # The lookahead finds a call within another one's arguments, too.
    call = re.compile(rf"(?<![\w./-]){program} (?=([a-z][^`;&|>]+))")
    for path in FILES:
        for text in texts(path):
            for found in call.findall(text):
                words = found.split("  #")[0]
                try:
                    yield path.name, shlex.split(words)
                except ValueError:
                    # The call is quoted as a whole: the closing quote is not its own.
                    yield path.name, shlex.split(words.rstrip("'"))


def parse(command: click.Command, words: list[str]) -> click.Context:
    """The call as the program itself reads it, down to the last subcommand; raises if it would not."""
    context = command.make_context(command.name, list(words))
    if isinstance(command, click.Group):
        name, *rest = [*context._protected_args, *context.args]
        nested = command.get_command(context, name)
        assert nested is not None, f"no command {name}"
        return parse(nested, rest)
    return context


def test_every_ray_command_exists_with_the_options_given() -> None:
    calls = list(commands("ray"))
    for name, words in calls:
        try:
            # Any number will do for a variable of the shell.
            parse(ray_cli, [re.sub(r"\$\w+", "1", word) for word in words])
        except click.MissingParameter:
            # Prose mentions a command without its arguments.
            continue
        except click.ClickException as error:
            pytest.fail(f"{name}: ray {' '.join(words)}: {error.format_message()}")
    assert {"up", "down", "start", "job", "dashboard", "health-check"} <= {words[0] for _, words in calls}


def pmpo_calls() -> list[tuple[str, list[str]]]:
    """The complete calls: those with a shell variable or [optional] parts are checked word by word."""
    return [(name, words) for name, words in commands("pmpo") if not re.search(r"[$\[]", " ".join(words))]


def test_every_pmpo_command_exists_with_the_options_given() -> None:
    program = typer.main.get_command(app)
    for name, words in commands("pmpo"):
        options = {option for parameter in program.commands[words[0]].params for option in parameter.opts}
        for word in words:
            assert not word.startswith("--") or word.partition("=")[0] in options, f"{name}: {word}"
    assert {"README.md", "rayjob.yaml"} <= {name for name, words in pmpo_calls() if len(words) > 10}


def test_every_pmpo_command_with_a_configuration_has_valid_settings() -> None:
    program = typer.main.get_command(app)
    for name, words in pmpo_calls():
        arguments = program.commands[words[0]].make_context(words[0], words[1:]).params
        if not arguments.get("config") or arguments["config"] == "CONFIG":
            continue
        config = str(arguments["config"]).removeprefix(IN_THE_IMAGE)
        overrides = parse_overrides(arguments["override"] or ())
        settings = requested_config(str(ROOT / config), overrides, arguments["run_dir"])
        assert isinstance(settings, RunConfig), name
        assert settings.run_dir is not None
        assert settings.run_dir.startswith(("s3://", "gs://"))


def test_commands_for_growing_clusters_say_what_a_replica_needs() -> None:
    for _, words in pmpo_calls():
        overrides = {word.partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}
        if overrides.get("ray.autoscaling") == "true":
            assert {overrides["scorer.gpus"], overrides["rewriter.gpus"]} == {"1"}
            # One machine a replica: what is asked for at most is what the cluster has at most.
            replicas = int(overrides["scorer.replicas"]) + int(overrides["rewriter.replicas"])
            assert replicas <= min(load(name)["max_workers"] for name in LAUNCHERS)
            assert replicas <= ray_cluster("rayjob.yaml")["workerGroupSpecs"][0]["maxReplicas"]


def test_every_key_that_a_file_names_is_a_key_of_the_configuration() -> None:
    known = set(key_paths())
    named = set()
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        named |= {(path.name, key) for key in re.findall(r"--set ([a-z][\w.]*)=", text)}
        sections = "scorer|rewriter|ray|search|split|evaluation"
        named |= {(path.name, key) for key in re.findall(rf"`((?:{sections})\.[a-z_]+)[=`]", text)}
    assert len(named) > 10
    assert sorted(entry for entry in named if entry[1] not in known) == []


def test_every_path_that_a_file_names_exists() -> None:
    mounted = [("launcher", local) for name in LAUNCHERS for local in load(name)["file_mounts"].values()]
    linked = [
        ("README.md", f"cluster/{link.partition('#')[0]}")
        for link in re.findall(r"\]\((?!https:)([^)]*)\)", read("README.md"))
    ]
    named = [
        (path.name, found)
        for path in FILES
        for found in re.findall(
            r"(?<![\w.~/-])(?:cluster|configs|tests|benchmarks)/[\w./-]*\w|(?<=/opt/pmpo_ray/)[\w./-]+\w",
            path.read_text(encoding="utf-8"),
        )
    ]
    assert len(named) > 15
    missing = [(name, path) for name, path in (*mounted, *linked, *named) if not (ROOT / path).exists()]
    assert [entry for entry in missing if entry[1][0] != "~"] == []


def test_every_section_that_the_readme_links_to_exists() -> None:
    text = read("README.md")
    sections = {heading.lower().replace(" ", "-") for heading in re.findall(r"(?m)^## (.+)$", text)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= sections


def test_every_file_is_described() -> None:
    text = read("README.md")
    described = {path.name for path in FILES if f"({path.name})" in text or f"cluster/{path.name}" in text}
    assert {path.name for path in FILES} - described == {"README.md", "Dockerfile.dockerignore"}


@pytest.mark.parametrize(("name", "words"), PLACEHOLDERS.items())
def test_a_file_says_at_its_top_what_has_to_be_replaced(name: str, words: set[str]) -> None:
    values = " ".join(scalars(load(name)))
    every = set().union(*PLACEHOLDERS.values())
    assert set(re.findall(r"\b(?:[A-Z]+_)*[A-Z]+\b", values)) & every == words
    (said,) = re.findall(r"(?ms)^# Replace before use: (.+?)^(?!#)", read(name))
    assert all(re.search(rf"\b{word}\b", said) for word in words)


def test_no_file_holds_a_secret() -> None:
    secret = re.compile(
        r"(?i)(?:token|secret|password|access_key)\w*\s*[:=]\s*['\"]?(?!\$|~|optional|\.\.\.)[\w/+-]{12,}"
    )
    for path in FILES:
        assert secret.search(path.read_text(encoding="utf-8")) is None
    assert not [
        key for key in load("runtime-env.yaml")["env_vars"] if re.search("TOKEN|SECRET|KEY|PASSWORD", key)
    ]
