"""The config: every key that a run depends on, with its type, default and limits.

The defaults below and `configs/local.yaml` say the same (a test compares them), so every other file names only what it
changes. What decides about pixels is hashed (`Config.digest`); placement, Ray and where weights lie are not, since the
same images come out of any cluster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from occpipe.core.classes import fault_of_class
from occpipe.core.config_placement import Placement
from occpipe.core.config_section import Section
from occpipe.core.config_storage import Storage
from occpipe.core.provenance import MetadataPolicy, SourceType

Fraction = Annotated[float, Field(ge=0, le=1)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class Corpus(Section):
    """Which files are read, by the endings of their names, and the limits on what is decoded.

    `hidden` takes files and folders whose names begin with a dot, and those that systems keep beside photos (`@eaDir`).
    """

    extensions: tuple[str, ...] = (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jpg_large", ".png", ".webp", ".bmp", ".tif", ".tiff"),
        *(".heic", ".heif", ".avif"),  # they become rows that say `unsupported`
    )
    hidden: bool = False
    max_bytes: int = Field(default=64_000_000, gt=0)
    max_pixels: int = Field(default=100_000_000, gt=0)
    min_side: int = Field(default=32, ge=1)


class Segmenter(Section):
    """Which segmenter, and the long side in pixels to which a photo is decoded for it."""

    model: str = "starter"
    device: Device = "auto"
    decode_side: int = Field(default=1024, ge=64)


class Relations(Section):
    """How the relation of a thing to its context is scored.

    `default` is the calibrated scorer; `paper2019` the formula of the paper with its constants (`cos_min`, `cos_max`).
    """

    method: Literal["default", "paper2019"] = "default"
    vectors: str | None = None
    cos_min: float = -0.357849798828
    cos_max: float = 0.81298648546
    deduplicate_tokens: bool = True


class Policy(Section):
    """What is decided from a relation score.

    A thing whose relation is below `cut` (none: the scorer's own) is removed. `keep` are classes never removed;
    `protect` are classes never removed whose pixels no removal of another thing may touch either; `remove` are classes
    always removed. Areas are shares of the image, of the instance or of the whole class (`area_scope`).
    """

    cut: Fraction | None = None
    keep: tuple[str, ...] = ()
    protect: tuple[str, ...] = ("person",)
    remove: tuple[str, ...] = ()
    min_area: Fraction = 0.002
    max_area: Fraction = 0.2
    area_scope: Literal["instance", "class"] = "instance"
    min_score: Fraction = 0.6
    min_context: int = Field(default=2, ge=1)
    min_stuff_confidence: Fraction = 0.3

    @model_validator(mode="after")
    def _areas(self) -> Policy:
        if self.min_area > self.max_area:
            raise ValueError(f"min_area {self.min_area} is above max_area {self.max_area}")
        both = {*self.keep, *self.protect} & {*self.remove}
        if both:
            raise ValueError(f"both kept and removed: {', '.join(sorted(both))}")
        return self


class Inpainter(Section):
    """Which inpainter, and how masks grow before it.

    `dilation` is a radius as a share of sqrt(height * width); `dilation_pixels`, where set, is a fixed radius instead,
    applied `dilation_iterations` times with an elliptic or a square kernel. `context` is the margin of known pixels that
    the model sees around a hole, as a share of the hole's longer side (none: the model's own). `shadow` takes the cast
    shadow along, where one is found; see `occpipe.models.inpainters.shadow`.
    """

    model: str = "starter"
    device: Device = "auto"
    dilation: Fraction = 0.02
    dilation_pixels: int | None = Field(default=None, ge=0)
    dilation_iterations: int = Field(default=1, ge=1)
    dilation_kernel: Literal["ellipse", "square"] = "ellipse"
    context: float | None = Field(default=None, gt=0, le=4)
    shadow: bool = False
    crop_batch: int = Field(default=8, ge=1)


class Output(Section):
    """What is written: `unchanged: skip` leaves out images without a removal; `retry` says which rows run again.

    `metadata` says what an edited file keeps of its source: what can be kept, that without places, or only what the picture
    needs. `mark` is the IPTC digital source type that an edited file carries in its XMP; `auto` goes by the inpainter, and
    `none` writes no mark.
    """

    unchanged: Literal["copy", "skip"] = "copy"
    retry: Literal["none", "errors", "all"] = "none"
    metadata: MetadataPolicy = MetadataPolicy.KEEP
    mark: SourceType = SourceType.AUTO


class Weights(Section):
    """Where weights lie (a folder or any fsspec URI), and the licences that were read and accepted."""

    dir: str | None = None
    accept_licence: tuple[str, ...] = ()


class Shard(Section):
    """The unit of work, of resume and of publication: up to `images` images that were listed together."""

    images: int = Field(default=8_192, ge=1, le=65_536)


class Errors(Section):
    """How many failures a run accepts before it stops.

    A model that fails on `max_failed_batches` batches in a row ends its actor, and Ray starts another one. A run stops
    where more than `max_failed_share` of its rows, counted from `min_rows` on, failed for a reason that may pass:
    `stage_failed`, `forbidden`, `unreachable`. The next run does such rows again.
    """

    max_failed_batches: int = Field(default=3, ge=1)
    max_failed_share: Fraction = 0.05
    min_rows: int = Field(default=200, ge=1)


class RayRuntime(Section):
    """How Ray is reached and bounded.

    Without `address` (or RAY_ADDRESS) a Ray of its own starts on this machine, with `object_store_mb` of shared memory.
    `block_mb` is the size of what travels between stages. A cluster that is too small is asked to grow for
    `capacity_timeout_s` before that is an error.
    """

    address: str | None = None
    object_store_mb: int = Field(default=1024, ge=128)
    block_mb: int = Field(default=32, ge=1)
    no_progress_timeout_s: int = Field(default=600, ge=10)
    capacity_timeout_s: int = Field(default=0, ge=0)


class Config(Section):
    """Everything a run depends on."""

    corpus: Corpus = Corpus()
    segmenter: Segmenter = Segmenter()
    relations: Relations = Relations()
    policy: Policy = Policy()
    inpainter: Inpainter = Inpainter()
    output: Output = Output()
    weights: Weights = Weights()
    storage: Storage = Storage()
    shard: Shard = Shard()
    errors: Errors = Errors()
    placement: Placement = Placement()
    ray: RayRuntime = RayRuntime()

    @model_validator(mode="after")
    def _classes(self) -> Config:
        if not self.segmenter.model.startswith("hf:"):  # whose classes are its own; see `models.check_models`
            self.check_classes()
        return self

    def check_classes(self, others: Iterable[str] = ()) -> None:
        """Raise ValueError where the policy names a class that neither COCO-Stuff nor `others` has.

        A misspelt class in `policy.protect` would protect nobody, without a word.
        """
        for key in ("keep", "protect", "remove"):
            for name in getattr(self.policy, key):
                if fault := fault_of_class(name, others):
                    raise ValueError(f"policy.{key}: {fault}")

    @property
    def digest(self) -> str:
        """Hex digits of a hash over what decides about the output; equal digests give equal images and rows."""
        decides = json.dumps(self.deciding(), sort_keys=True)
        return hashlib.sha256(decides.encode()).hexdigest()[:16]

    def deciding(self) -> dict[str, Any]:
        """The settings that decide about the output, as JSON values."""
        return self.model_dump(
            mode="json",
            exclude={
                "placement": True,
                "ray": True,
                "shard": True,
                "errors": True,
                "weights": True,
                "storage": True,
                "output": {"retry"},
                "segmenter": {"device"},
                "inpainter": {"device", "crop_batch"},
            },
        )
