"""The section `placement` of the config: the resources of each stage, and the nodes on which it may run."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from occpipe.core.config_section import Section

_NAME = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"  # of Kubernetes, which Ray's labels follow
_LabelKey = Annotated[str, Field(pattern=rf"^(?:{_NAME}/)?{_NAME}$", max_length=253)]
_LabelValue = Annotated[str, Field(pattern=rf"^!?(?:{_NAME}|in\({_NAME}(?:, ?{_NAME})*\))$", max_length=1000)]


def _check_resource(name: str) -> str:
    if name in ("CPU", "GPU", "memory", "object_store_memory"):
        raise ValueError("Ray counts that itself; num_cpus and num_gpus say how much a worker takes")
    return name


def _check_share(share: float) -> float:
    if share > 1 and share != int(share):
        raise ValueError("Ray takes a share below 1 or a whole number")
    return share


_ResourceName = Annotated[str, Field(pattern=rf"^{_NAME}$"), AfterValidator(_check_resource)]
_ResourceShare = Annotated[float, Field(ge=0.0001), AfterValidator(_check_share)]


class _Placed(Section):
    """The resources of one worker of a stage, and the nodes that it may run on."""

    resources: dict[_ResourceName, _ResourceShare] = Field(
        default_factory=dict, description="custom resources of one worker, which the nodes were started with"
    )
    labels: dict[_LabelKey, _LabelValue] = Field(
        default_factory=dict, description="labels of the nodes it may run on; a value is a, !a, in(a, b) or !in(a, b)"
    )

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # a dict has none of its own

    def ray_options(self) -> dict[str, object]:
        """The options of Ray for each worker."""
        counts: dict[str, object] = self.model_dump(include={"num_cpus", "num_gpus"})
        return counts | {"resources": self.resources or None, "label_selector": self.labels or None}


class TaskPlacement(_Placed):
    """A stage that runs as tasks."""

    num_cpus: float = Field(default=0.25, ge=0, description="CPUs of one task")
    max_tasks: int | None = Field(default=2, ge=1, description="tasks that run at the same time; null: no limit")


class StoragePlacement(TaskPlacement):
    """A stage that runs as tasks and reads or writes."""

    threads: int = Field(default=16, ge=1, description="reads or writes at the same time in one task")


class PoolPlacement(_Placed):
    """A stage that runs in a pool of actors.

    By default an actor of either pool uses all cores, so that no core is idle while one of the pools has work.
    """

    num_cpus: float = Field(default=0.5, ge=0, description="CPUs of one actor")
    num_gpus: float = Field(default=0, ge=0, description="GPUs of one actor")
    min_size: int = Field(default=1, ge=1, description="fewest actors")
    max_size: int = Field(default=1, ge=1, description="most actors")
    initial_size: int = Field(default=1, ge=1, description="actors at the start")
    batch_size: int = Field(default=8, ge=1, description="images that a model gets at once")
    threads: int = Field(default=0, ge=0, description="threads of torch in one actor; 0: all cores of the machine")

    @model_validator(mode="after")
    def _sizes(self) -> PoolPlacement:
        if not self.min_size <= self.initial_size <= self.max_size:
            sizes = f"{self.min_size}, {self.initial_size}, {self.max_size}"
            raise ValueError(f"min_size, initial_size and max_size must not fall: {sizes}")
        return self


def threads_on(cores: int, threads: int) -> int:
    """The threads of torch in an actor on a node with `cores` cores; 0 threads in the config mean all cores."""
    return threads or max(1, cores)


class Placement(Section):
    """The resources of each stage, and the nodes on which it may run."""

    load: StoragePlacement = StoragePlacement()
    segment: PoolPlacement = PoolPlacement()
    relate: TaskPlacement = TaskPlacement()
    inpaint: PoolPlacement = PoolPlacement()
    write: StoragePlacement = StoragePlacement()
