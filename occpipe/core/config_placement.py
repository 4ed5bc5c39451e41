"""The section `placement` of the config: the resources of each stage, and the nodes on which it may run."""

from __future__ import annotations

from typing import Annotated, Any

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
    """Resources of one worker of a stage, and the nodes that it may run on.

    `resources` are custom ones that nodes were started with; `labels` are node labels, each with a value or `!a`,
    `in(a, b)`, `!in(a, b)`. A worker runs only where all of them are.
    """

    resources: dict[_ResourceName, _ResourceShare] = Field(default_factory=dict)
    labels: dict[_LabelKey, _LabelValue] = Field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # a dict has none of its own

    def ray_options(self) -> dict[str, Any]:
        """What Ray is told of each worker."""
        counts = self.model_dump(include={"num_cpus", "num_gpus"})
        return counts | {"resources": self.resources or None, "label_selector": self.labels or None}


class TaskPlacement(_Placed):
    """Resources of a stage that runs as tasks: CPUs of one task, and tasks at once (none: no limit)."""

    num_cpus: float = Field(default=0.25, ge=0)
    max_tasks: int | None = Field(default=2, ge=1)


class StoragePlacement(TaskPlacement):
    """As above, with the reads or writes at once in one task."""

    threads: int = Field(default=16, ge=1)


class PoolPlacement(_Placed):
    """Resources of a stage that runs in an actor pool.

    `batch_size` are the images that a model sees at once. `threads` are torch's in one actor; 0 is all cores of the
    machine, in both pools, so that no core is idle while one of them has work.
    """

    num_cpus: float = Field(default=0.5, ge=0)
    num_gpus: float = Field(default=0, ge=0)
    min_size: int = Field(default=1, ge=1)
    max_size: int = Field(default=1, ge=1)
    initial_size: int = Field(default=1, ge=1)
    batch_size: int = Field(default=8, ge=1)
    threads: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sizes(self) -> PoolPlacement:
        if not self.min_size <= self.initial_size <= self.max_size:
            sizes = f"{self.min_size}, {self.initial_size}, {self.max_size}"
            raise ValueError(f"min_size, initial_size and max_size must not fall: {sizes}")
        return self


def threads_on(cores: int, threads: int) -> int:
    """Torch's threads in an actor on a node of so many cores, where `threads` is what the config says and 0 all of them."""
    return threads or max(1, cores)


class Placement(Section):
    """Where each stage runs."""

    load: StoragePlacement = StoragePlacement()
    segment: PoolPlacement = PoolPlacement()
    relate: TaskPlacement = TaskPlacement()
    inpaint: PoolPlacement = PoolPlacement()
    write: StoragePlacement = StoragePlacement()
