"""What every stage has: declared columns, a way to build it for a job, and a table of rows in and out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import pyarrow as pa

from occpipe.core.config import Config
from occpipe.core.schemas import PUBLISHED
from occpipe.dataset.containers_commit import MakeContainers
from occpipe.models.relations.observations import Verdicts

if TYPE_CHECKING:
    from occpipe.stages.reuse_results import Base


@dataclass(frozen=True)
class Setup:
    """What stages are built from. It is small, and travels to the workers.

    Attributes:
        config: The settings.
        root: The folder or prefix of the images.
        output: OUTPUT.
        images: The folder of the written images below OUTPUT.
        verdicts: Reads the verdicts of people, by image.
        digest: What stands in each row in place of the config's digest, where there are verdicts.
        bases: Outputs whose pictures may be used again.
        containers: What writes the containers of a shard as it is committed; None: images are files.
        blobs: The folder in which cleaned images wait for their container.
    """

    config: Config
    root: str
    output: str
    images: str
    verdicts: Callable[[], Verdicts] = dict
    digest: str = ""
    bases: tuple[Base, ...] = ()
    containers: MakeContainers | None = None
    blobs: str = ""


class Stage(ABC):
    """A verb over the rows of a block. It reads `READS` only; it adds or replaces `WRITES`, and removes `DROPS`."""

    READS: ClassVar[tuple[str, ...]]
    WRITES: ClassVar[tuple[str, ...]]
    DROPS: ClassVar[tuple[str, ...]] = ()
    LOADS: ClassVar[tuple[str, ...]] = ()
    """The parts of a config whose models it loads: see `models.loading.PARTS`."""

    @classmethod
    @abstractmethod
    def build(cls, setup: Setup) -> Self:
        """The stage for a job; one of a pool is built in its actor."""

    @abstractmethod
    def __call__(self, batch: pa.Table) -> pa.Table:
        """The rows after the stage."""


class PoolStage(Stage):
    """A stage that holds a model, which its actor may replace: see `CircuitBreaker`."""

    model: Callable[..., Sequence[object]]


def check_columns(stages: Iterable[type[Stage]], columns: Iterable[str]) -> None:
    """Check the declarations of stages that follow one another, over rows with these columns.

    Raises:
        ValueError: A stage reads a column that is not there, or a published column is missing at the end.
    """
    present = {*columns, "status", "reason", "error"}
    for stage in stages:
        if missing := {*stage.READS} - present:
            raise ValueError(f"{stage.__name__} reads {sorted(missing)}, and no stage before it writes that")
        present = (present | {*stage.WRITES}) - {*stage.DROPS}
    if missing := {*PUBLISHED.names} - present:
        raise ValueError(f"no stage writes {sorted(missing)}, and rows are published with that")
