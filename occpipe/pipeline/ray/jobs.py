"""Runs on a Ray cluster as Ray jobs: submitted, followed and stopped by the REST interface of its dashboard.

A job is named after its output, so that a second submission meets the first one. While that runs, the second is refused;
afterwards it goes on from there, under the same name with a number. The token of a cluster with authentication is that of
Ray's own tools (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH). A variable that looks like a credential is refused, because the
dashboard shows the settings of each job.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType

from occpipe.core.config import Config
from occpipe.core.config_file import overrides_of
from occpipe.core.errors import INTERRUPTED_EXIT_CODE, ClusterError, ConfigError, OutputBusyError, first_line
from occpipe.io.storage import locate
from occpipe.models.hub import hub_folder
from occpipe.models.segmenters.labels import is_labels
from occpipe.pipeline.ray.connection import job_name

STOP_WAIT_S = 900
"""How long a stopped job may take to finish what it has begun, before Ray kills it (Ray's default is 3 s)."""
_SECRET = re.compile(r"SECRET|TOKEN|PASSW|KEY|CREDENTIAL|CONNECTION_STRING|SAS(?![A-Z])", re.IGNORECASE)
MAX_RECONNECTS = 30  # in a row, a second apart
_OUTPUT, _INPUT = "occpipe_output", "occpipe_input"  # keys of a job's metadata


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A job of occpipe on a cluster; times are None where the cluster has none (yet)."""

    id: str
    status: JobStatus
    input: str
    output: str
    started: datetime | None
    ended: datetime | None
    message: str
    exit_code: int | None


def entrypoint(
    config: Config, input_uri: str, output_uri: str, options: Sequence[str] = (), working_dir: str | None = None
) -> str:
    """The shell command of a job: `occpipe clean`, with the settings that differ from the defaults.

    Raises ConfigError for an INPUT, OUTPUT or file of the config that only this machine has. A file of the config may
    lie in `working_dir`, a local folder that goes to the cluster.
    """
    for name, uri in (("INPUT", input_uri), ("OUTPUT", output_uri)):
        locate(uri, name)  # refuses what names no place; the cluster resolves it
        if _is_relative(uri):
            raise ConfigError(f"{name} {uri!r} is a path of this machine; give a URI, or an absolute path of all nodes")
    for key, path in _local_files(config):
        if _is_relative(path) and not (working_dir and Path(working_dir, path).exists()):
            raise ConfigError(
                f"{key} {path!r} is a path of this machine; give an absolute path of all nodes"
                + (
                    ", or a URI"
                    if key == "weights.dir"
                    else f", or one within --working-dir {working_dir or ''}".rstrip()
                )
            )
    command = ["python", "-m", "occpipe", "clean", input_uri, output_uri, *options]
    for override in overrides_of(config):
        command += ["--set", override]
    return shlex.join(command)


def _local_files(config: Config) -> Iterator[tuple[str, str]]:
    """Keys of a config that name files, with their values."""
    if config.weights.dir:
        yield "weights.dir", config.weights.dir
    if config.relations.vectors:
        yield "relations.vectors", config.relations.vectors
    for model in config.segmenter.models:
        if is_labels(model):
            yield "segmenter.model", model.partition(":")[2]
        elif model.startswith("hf:") and (folder := hub_folder(model)):
            yield "segmenter.model", str(folder)


def _is_relative(uri: str) -> bool:
    return not urlsplit(uri).scheme and not uri.startswith(("/", "~"))


class Jobs:
    """The jobs of occpipe on the cluster whose dashboard is at `address` (http:// or https://).

    `headers` go with each request; `ca` is a file of certificates to trust. Raises ClusterError where no dashboard answers,
    or where it refuses the token.
    """

    def __init__(self, address: str, *, headers: Mapping[str, str] | None = None, ca: str | None = None) -> None:
        self.address = address
        with self._reachable():
            self._client = JobSubmissionClient(address, headers=dict(headers or {}), verify=ca or True)

    def submit(
        self,
        config: Config,
        input_uri: str,
        output_uri: str,
        *,
        name: str | None = None,
        options: Sequence[str] = (),
        runtime_env: Mapping[str, object] | None = None,
    ) -> str:
        """Submit a run and return the id of its job; `options` are further ones of `occpipe clean`.

        Raises OutputBusyError where a job for the same output is waiting or running. Raises ConfigError for an environment
        that Ray does not take, and for a variable that looks like a credential.
        """
        variables, working_dir = ((runtime_env or {}).get(key) for key in ("env_vars", "working_dir"))
        environment = dict(variables) if isinstance(variables, Mapping) else {}
        for variable in environment:
            if _SECRET.search(variable):
                raise ConfigError(
                    f"{variable}: the dashboard shows a job's environment; give the nodes a role or a secret"
                )
        environment.setdefault("RAY_JOB_STOP_WAIT_TIME_S", str(STOP_WAIT_S))
        name = name or job_name(output_uri)
        folder = working_dir if isinstance(working_dir, str) else None
        command, numbers = entrypoint(config, input_uri, output_uri, options, folder), [0]
        for job in self.list():
            if job.output.rstrip("/") == output_uri.rstrip("/") and not job.status.is_terminal():
                raise self._busy(output_uri, job.id)
            if match := re.fullmatch(rf"{re.escape(name)}(?:-(\d+))?", job.id):
                numbers.append(int(match[1] or 1))
        new = name if numbers == [0] else f"{name}-{max(numbers) + 1}"
        with self._reachable():
            try:
                job_id: str = self._client.submit_job(
                    entrypoint=command,
                    submission_id=new,
                    runtime_env={**(runtime_env or {}), "env_vars": environment},
                    metadata={_INPUT: input_uri, _OUTPUT: output_uri},
                )
            except (ValueError, TypeError) as error:  # of Ray's checks of the runtime environment
                raise ConfigError(f"the job's environment: {first_line(error)}") from None
            except RuntimeError as error:
                if "already exists" in str(error):  # another user has submitted it meanwhile
                    raise self._busy(output_uri, new) from None
                raise
        return job_id

    def list(self) -> list[SubmittedJob]:
        """The jobs of occpipe, the latest last."""
        with self._reachable():
            jobs = [_job(details) for details in self._client.list_jobs() if details.type == JobType.SUBMISSION]
        return sorted(
            (job for job in jobs if job.output), key=lambda job: job.started or datetime.max.replace(tzinfo=UTC)
        )

    def get(self, job_id: str) -> SubmittedJob:
        """A job; ClusterError where there is none of that id."""
        with self._reachable():
            return _job(self._client.get_job_info(job_id))

    def follow(self, job_id: str, write: Callable[[str], object]) -> SubmittedJob:
        """Pass on the output of a job until it ends, over a new connection where one breaks."""
        written = broken = 0

        async def pass_on() -> None:
            nonlocal written, broken
            seen = 0
            async for text in self._client.tail_job_logs(job_id):
                seen += len(text)
                if seen > written:
                    write(text[max(0, len(text) - (seen - written)) :])
                    written, broken = seen, 0

        while True:
            try:
                asyncio.run(pass_on())
            except (aiohttp.ClientError, RuntimeError) as error:
                broken += 1
                if broken > MAX_RECONNECTS:
                    raise ClusterError(f"{self.address}: {first_line(error)}") from error
            job = self.get(job_id)
            if job.status.is_terminal():
                return job
            time.sleep(1)

    def stop(self, job_id: str, *, wait: bool = True) -> SubmittedJob:
        """Stop a job, which first publishes what it has begun; with `wait`, return when it has ended."""
        job = self.get(job_id)
        if not job.status.is_terminal():
            with self._reachable():
                self._client.stop_job(job_id)
        while wait and not job.status.is_terminal():
            time.sleep(1)
            job = self.get(job_id)
        return job

    def _busy(self, output_uri: str, job_id: str) -> OutputBusyError:
        see = f"occpipe jobs logs {job_id} --address {self.address}"
        return OutputBusyError(f"{output_uri} is being written by the job {job_id}; `{see}` follows it")

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, RayError) as error:
            raise ClusterError(f"{self.address}: {first_line(error)}") from error


def exit_code(job: SubmittedJob) -> int:
    """The exit code of `occpipe clean` in a job that has ended."""
    if job.status is JobStatus.SUCCEEDED:
        return 0
    return INTERRUPTED_EXIT_CODE if job.status is JobStatus.STOPPED else job.exit_code or 1


def _job(details: JobDetails) -> SubmittedJob:
    known = details.metadata or {}
    return SubmittedJob(
        details.submission_id or "",
        JobStatus(details.status),
        known.get(_INPUT, ""),
        known.get(_OUTPUT, ""),
        _time(details.start_time),
        _time(details.end_time),
        details.message or "",
        details.driver_exit_code,
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
