"""`occpipe submit`, `occpipe jobs` and the README's `ray job submit`, on a real head node on loopback with a token."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from jobs.make_demo import scenes
from occpipe.cli.jobs import environment_of
from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError, OutputBusyError
from occpipe.dataset.layout import Layout
from occpipe.dataset.shards import list_parts
from occpipe.io.storage import open_store
from occpipe.pipeline.ray.connection import job_name
from occpipe.pipeline.ray.jobs import Jobs, entrypoint
from tests.chaos.corpus import SETTINGS, make_corpus
from tests.helpers.scenes import encoded
from tests.integration.test_pipeline import rows_of, s3  # noqa: F401 - a fixture
from tests.integration.test_readme import ROOT, bash, blocks

COUNT = 120  # images of the run that is stopped


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_agents(address: str) -> None:
    """Wait until a job can be taken: the dashboard answers some seconds before its node can."""
    try_one = f"from ray.job_submission import JobSubmissionClient as C; C({address!r}).submit_job(entrypoint='true')"
    for _ in range(60):  # in processes of their own: Ray reads its token mode once in a process
        if subprocess.run([sys.executable, "-c", try_one], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(1)
    raise TimeoutError("no node takes a job")


@pytest.fixture
def head(s3: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:  # noqa: F811 - the fixture
    """The address of the dashboard of a one-node cluster; the workers inherit the S3 server's address."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    binaries = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    port, dashboard = free_port(), free_port()
    folder = tempfile.mkdtemp(prefix="ray")  # short: sockets below it may have 107 characters
    command = [str(binaries / "ray"), "start", "--head", "--block", "--num-cpus=4", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    # Its agent must not meet that of the Ray of the other tests on the default port, or it takes no jobs.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
    command += ["--object-store-memory=300000000", f"--temp-dir={folder}", "--include-dashboard=true"]
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        wait_for_agents(address)
        yield address
    finally:
        started = psutil.Process(node.pid)
        for process in (*started.children(recursive=True), started):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_the_commands_of_the_readme_publish(head: str, s3: Path) -> None:  # noqa: F811 - the fixture
    bucket = s3 / "my-bucket"
    (bucket / "photos").mkdir(parents=True)
    (bucket / "photos" / "palace.jpg").write_bytes(encoded(dict(scenes())["cat_at_the_palace"]))
    own, rays = [block for block in blocks("bash") if "RAY_DASHBOARD" in block]
    assert "SUCCEEDED" in bash(own, ROOT, RAY_DASHBOARD=head)
    bash(rays, ROOT, RAY_DASHBOARD=head)
    for output in ("cleaned", "out"):
        assert rows_of(f"s3://my-bucket/{output}")["palace.jpg"]["status"] in ("cleaned", "unchanged")


def occpipe(*arguments: str, exit_code: int = 0) -> str:
    """Run the command; what it printed."""
    command = [sys.executable, "-m", "occpipe", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)
    printed = done.stdout + done.stderr
    assert done.returncode == exit_code, printed
    return printed


def test_a_job_is_followed_stopped_and_resumed(head: str, tmp_path: Path) -> None:
    images, output = tmp_path / "in", str(tmp_path / "out")
    make_corpus(images, COUNT)
    run = [str(images), output, "--address", head, "--config", "local", "--working-dir", str(ROOT)]
    run += ["--log-json", "-", *(part for setting in SETTINGS for part in ("--set", setting))]
    assert "occpipe jobs logs occpipe-out-" in occpipe("submit", *run, "--no-wait")
    job_id = job_name(output)
    assert job_id in occpipe("jobs", "list", "--address", head)
    assert job_id in occpipe("submit", *run, exit_code=6), "while it runs a second one is refused"

    store = open_store(output)
    end = time.monotonic() + 200
    while not list_parts(store, Layout()) and time.monotonic() < end:
        time.sleep(0.2)
    assert "STOPPED" in occpipe("jobs", "stop", job_id, "--address", head)
    logged = occpipe("jobs", "logs", job_id, "--address", head, exit_code=130)
    assert "the same command goes on from here" in logged
    (end,) = (json.loads(line) for line in logged.splitlines() if line.startswith('{"version": 1, "event": "end"'))
    published = len(rows_of(output))
    assert end["stopped"] is True
    assert 0 < published == end["published"] < COUNT
    assert published <= end["total"] <= COUNT, "those that were listed when it was stopped"

    printed = occpipe("submit", *run)
    assert f"{job_id}-2: SUCCEEDED" in printed
    assert f"{published} images were done before this run" in printed
    assert len(rows_of(output)) == COUNT
    listed = occpipe("jobs", "list", "--address", head)
    assert "STOPPED" in listed
    assert "SUCCEEDED" in listed


def test_without_the_token_there_is_no_way_in(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    assert "occpipe: " in occpipe("jobs", "list", "--address", head, exit_code=5)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    occpipe("jobs", "list", "--address", head, exit_code=5)


def test_a_dashboard_that_is_not_there_is_one_line() -> None:
    printed = occpipe("jobs", "list", "--address", f"http://127.0.0.1:{free_port()}", exit_code=5)
    assert len(printed.splitlines()) == 1


def test_a_job_is_not_made_of_a_typing_error() -> None:
    for input_uri, output_uri in (("s3:/b/in", "s3://b/out"), ("s3://b/in", "S3:/b/out"), ("s3://b/in", "")):
        with pytest.raises(ConfigError, match=r"did you mean s3://b/|OUTPUT is empty"):
            entrypoint(load_config(), input_uri, output_uri)


def test_the_entrypoint_says_what_the_config_says() -> None:
    changes = [
        "policy.cut=0.3",
        "policy.remove=[cat]",
        "inpainter.model=telea",
        "relations.vectors=/\U0001f308.safetensors",
    ]
    config = load_config("gpu", changes)
    arguments = shlex.split(entrypoint(config, "s3://b/in", "s3://b/my out", ["--limit", "5"]))
    assert arguments[:8] == ["python", "-m", "occpipe", "clean", "s3://b/in", "s3://b/my out", "--limit", "5"]
    assert load_config("local", arguments[9::2]) == config


def test_the_environment_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "there")
    given = json.dumps({"env_vars": {"A": "1"}, "excludes": ["x"]})
    variables = {"A": "1", "B": "2=2", "HERE": "there"}
    assert environment_of(given, ["B=2=2", "HERE"], ".", None) == {
        "env_vars": variables,
        "excludes": ["x"],
        "working_dir": ".",
    }
    assert environment_of(None, [], None, "image:1") == {"env_vars": {}, "image_uri": "image:1"}
    for wrong in ("{", "[]", '{"env_vars": 1}'):
        with pytest.raises(ConfigError, match="--runtime-env"):
            environment_of(wrong, [], None, None)
    with pytest.raises(ConfigError, match="NOT_SET_HERE"):
        environment_of(None, ["NOT_SET_HERE"], None, None)
    with pytest.raises(ConfigError, match="exclude each other"):
        environment_of(None, [], ".", "image:1")


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="path of this machine"):
        entrypoint(load_config(), "photos", "s3://b/out")


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("weights.dir=weights", "weights.dir 'weights'"),
        ("relations.vectors=mine.safetensors", "relations.vectors 'mine.safetensors'"),
        ("segmenter.model=hf:./models/mine", "segmenter.model 'models/mine'"),
        ("segmenter.model=hf:models", "segmenter.model 'models'"),
        ("segmenter.model=masks:masks/{stem}.png", "segmenter.model 'masks/{stem}.png'"),
        ("segmenter.model=coco:labels.json", "segmenter.model 'labels.json'"),
    ],
)
def test_a_relative_path_in_the_config_is_refused(setting: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{key} is a path of this machine; give an absolute path of all nodes"):
        entrypoint(load_config("local", [setting]), "/in", "/out", working_dir=str(tmp_path))


def test_what_all_nodes_know_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").touch()
    for setting in (
        "weights.dir=s3://b/weights",
        "weights.dir=/weights",
        "weights.dir=~/weights",
        "segmenter.model=hf:facebook/mask2former",
        "segmenter.model=hf:/models/mine",
        "relations.vectors=mine.safetensors",
    ):
        assert setting.partition("=")[0] in entrypoint(
            load_config("local", [setting]), "/in", "/out", working_dir=str(tmp_path)
        )


def test_a_log_on_this_machine_is_refused() -> None:
    printed = occpipe(
        "submit",
        "/in",
        "/out",
        "--address",
        "http://127.0.0.1:1",
        "--config",
        "local",
        "--log-json",
        "log",
        exit_code=2,
    )
    assert "--log-json 'log' is a path of this machine" in printed


def test_a_jobs_name_is_that_of_its_output() -> None:
    assert job_name("s3://bucket/Summer 2024/") == job_name("s3://bucket/Summer 2024")
    assert job_name("s3://bucket/Summer 2024").startswith("occpipe-summer-2024-")
    assert job_name("s3://other/Summer 2024") != job_name("s3://bucket/Summer 2024")


@pytest.mark.parametrize(
    "variable", ["AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_CONNECTION_STRING", "HF_TOKEN", "DB_PASSWORD", "SOME_API_KEY"]
)
def test_no_variable_that_looks_like_a_secret_goes_into_a_job(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.pipeline.ray.jobs.JobSubmissionClient", lambda *_, **__: None)
    with pytest.raises(ConfigError, match=variable):
        Jobs("http://127.0.0.1:1").submit(load_config(), "/in", "/out", runtime_env={"env_vars": {variable: "x"}})


class Client:
    """A cluster that has these jobs, and breaks the connection to their logs twice."""

    def __init__(self, *jobs: tuple[str, str, JobStatus]) -> None:
        self.jobs, self.breaks, self.submitted = jobs, 2, ""

    def list_jobs(self) -> list[JobDetails]:
        return [self.get_job_info(job) for job, _, _ in self.jobs]

    def get_job_info(self, job_id: str) -> JobDetails:
        output, status = next((output, status) for job, output, status in self.jobs if job == job_id)
        known = {"occpipe_output": output}
        return JobDetails(type=JobType.SUBMISSION, submission_id=job_id, status=status, entrypoint="", metadata=known)

    def submit_job(self, **job: Any) -> str:
        self.submitted = str(job["submission_id"])
        return self.submitted

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield "one\n"
        if self.breaks:
            self.breaks -= 1
            raise RuntimeError("WebSocket closed abnormally")
        yield "two\n"


def jobs_of(client: Client, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr("occpipe.pipeline.ray.jobs.JobSubmissionClient", lambda *_, **__: client)
    return Jobs("http://127.0.0.1:1")


def test_a_job_for_the_same_output_is_refused_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_of(Client(("other", "s3://b/out/", JobStatus.RUNNING)), monkeypatch)
    with pytest.raises(OutputBusyError, match="other"):
        jobs.submit(load_config(), "s3://b/in", "s3://b/out")
    assert jobs.submit(load_config(), "s3://b/in", "s3://b/out2", name="mine") == "mine"


def test_a_resumed_job_has_the_next_number(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [("run-3", "/out", JobStatus.FAILED), ("run-2024-1", "/else", JobStatus.FAILED)]
    jobs = jobs_of(Client(*ended), monkeypatch)
    assert jobs.submit(load_config(), "/in", "/out", name="run") == "run-4"


def test_logs_go_on_after_a_broken_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    client = Client(("a", "/out", JobStatus.SUCCEEDED))
    states = iter([JobStatus.RUNNING, JobStatus.RUNNING, JobStatus.SUCCEEDED])
    jobs = jobs_of(client, monkeypatch)
    info = client.get_job_info("a")
    monkeypatch.setattr(client, "get_job_info", lambda _: info.model_copy(update={"status": next(states)}))
    printed: list[str] = []
    assert jobs.follow("a", printed.append).status is JobStatus.SUCCEEDED
    assert "".join(printed) == "one\ntwo\n"
