"""What was measured on one machine, for `occpipe plan`: what an image costs in each stage, and what a run adds to that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from occpipe.core.errors import ConfigError
from occpipe.pipeline.steps import POOLS, STAGES

SHARD_IMAGES = 8_192
"""Images of the shard that `Overhead.commit_s` is for, as `shard.images` has it by default."""

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Seconds(_Part):
    """What an image costs in a stage alone, in seconds: of the worker that has it, of CPU cores, and of a GPU."""

    worker_s: Amount
    cpu_s: Amount
    gpu_s: Amount = 0


class Machine(_Part):
    """Where rates were measured. `free` is the share of the cores that other work left; `gpu` is null without one."""

    cpus: int = Field(ge=1)
    cpu_model: str
    gpu: str | None
    free: Annotated[float, Field(gt=0, le=1)]


class Overhead(_Part):
    """What a run adds to its stages.

    Once a run: `start_s` until the first block is begun and `end_s` after the last one is written. For an image: `cpu_s`
    of cores and `worker_s` of a pool's worker. For a block: `driver_s` of the driver's core, at most. For a page of 1,000
    keys of the listing: `page_s`, the time of one request. For a shard of 8,192 images: `commit_s` of a core.
    """

    start_s: Amount
    end_s: Amount
    cpu_s: Amount
    worker_s: Amount
    driver_s: Amount
    page_s: Amount = 0.05
    commit_s: Amount = 0.0


class Rates(_Part):
    """A file of measured rates, as `benchmarks/stages.py` writes it; all times in seconds, sizes in bytes.

    `inpaint` is for an image that has a removal; it costs nothing for the others. `bytes_per_image` is the size of a
    file, `pixels_per_image` that of its pixels at the size that the model sees. `config` is the digest of the config,
    `threads` are a segmenter's, `images` those that the stages were measured on.
    """

    version: Literal[2] = 2
    config: str
    machine: Machine
    images: int = Field(ge=1)
    threads: int = Field(ge=1)
    bytes_per_image: Annotated[float, Field(gt=0)]
    pixels_per_image: Annotated[float, Field(gt=0)]
    removal_share: Share
    load: Seconds
    segment: Seconds
    relate: Seconds
    inpaint: Seconds
    write: Seconds
    overhead: Overhead

    def alone(self, stage: str) -> Seconds:
        """Seconds for the mean image in one of STAGES."""
        seconds: Seconds = getattr(self, stage)
        share = self.removal_share if stage == "inpaint" else 1.0
        return Seconds(**{key: share * getattr(seconds, key) for key in Seconds.model_fields})

    def of(self, stage: str) -> Seconds:
        """The same with what a run adds to a pool's worker."""
        own = self.alone(stage)
        extra = self.overhead.worker_s if stage in POOLS else 0.0
        return own.model_copy(update={"worker_s": own.worker_s + extra})

    @property
    def stages_cpu_s(self) -> float:
        """Seconds of cores for the mean image in all stages."""
        return sum(self.alone(stage).cpu_s for stage in STAGES)

    @property
    def cpu_s(self) -> float:
        """The same with what a run adds."""
        return self.stages_cpu_s + self.overhead.cpu_s + self.overhead.commit_s / SHARD_IMAGES


def read_rates(path: Path) -> Rates:
    """The rates of a file. Raises ConfigError, in one line, where it is missing or not one of this version."""
    try:
        return Rates.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; benchmarks/stages.py writes such a file") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = " ".join(first["msg"].split())  # a JSON error quotes the input, line breaks and all
        raise ConfigError(f"{path} is no file of rates: {f'{where}: ' if where else ''}{message}") from None
