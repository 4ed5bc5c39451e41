"""What was measured on one machine, for `occpipe plan`: what an image costs in each stage, and what a run adds to that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from occpipe.errors import ConfigError
from occpipe.placing import POOLS, STAGES

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
    """What a run on Ray adds to its stages.

    `start_s` until the first block is begun and `end_s` after the last one is written, once a run; `cpu_s` of cores and
    `worker_s` of a pool's worker for an image; `driver_s` of the driver's core for a block, at most.
    """

    start_s: Amount
    end_s: Amount
    cpu_s: Amount
    worker_s: Amount
    driver_s: Amount


class Crew(_Part):
    """What a run without Ray adds to its stages: `start_s`, `end_s`, `cpu_s` and `worker_s` as in `Overhead`.

    `cpu_s` may be below 0: a process with fewer threads than the stages were measured with wastes less on them. `free` is
    the share of the cores for its processes, which do not step back behind other work as Ray's do.
    """

    start_s: Amount
    end_s: Amount
    cpu_s: float
    worker_s: Amount
    free: Annotated[float, Field(gt=0, le=1)]


class Rates(_Part):
    """A file of measured rates, as `benchmarks/stages.py` writes it; all times in seconds, sizes in bytes.

    `inpaint` is for an image that has a removal, `untouched` for one that passes that stage as it is. `config` is the
    digest of the config, `threads` are a segmenter's, `images` those that the stages were measured on. `overhead` is
    that of a run on Ray, `crew` that of one without, None in files that are older than such runs.
    """

    version: Literal[1] = 1
    config: str
    machine: Machine
    images: int = Field(ge=1)
    threads: int = Field(ge=1)
    bytes_per_image: Annotated[float, Field(gt=0)]
    removal_share: Share
    fetch: Seconds
    segment: Seconds
    relate: Seconds
    inpaint: Seconds
    untouched: Seconds
    sink: Seconds
    overhead: Overhead
    crew: Crew | None = None

    def alone(self, stage: str) -> Seconds:
        """Seconds for the mean image in one of STAGES."""
        if stage != "inpaint":
            seconds: Seconds = getattr(self, stage)
            return seconds
        parts = [(self.removal_share, self.inpaint), (1 - self.removal_share, self.untouched)]
        return Seconds(**{key: sum(w * getattr(s, key) for w, s in parts) for key in Seconds.model_fields})

    def of(self, stage: str) -> Seconds:
        """The same with what Ray adds to a pool's worker."""
        own = self.alone(stage)
        extra = self.overhead.worker_s if stage in POOLS else 0.0
        return own.model_copy(update={"worker_s": own.worker_s + extra})

    @property
    def stages_cpu_s(self) -> float:
        """Seconds of cores for the mean image in all stages."""
        return sum(self.alone(stage).cpu_s for stage in STAGES)

    @property
    def cpu_s(self) -> float:
        """The same with what Ray adds."""
        return self.stages_cpu_s + self.overhead.cpu_s


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
