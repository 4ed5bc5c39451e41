"""The config: every key that a run depends on, with its type, default, limits and description.

`configs/local.yaml` is generated from these fields (`occpipe config local`; a test compares). `Config.digest` covers what
decides about pixels. Placement, Ray and the place of the weights are left out, because every cluster gives the same images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from occpipe.core.classes import fault_of_class
from occpipe.core.config_placement import Placement
from occpipe.core.config_section import Section
from occpipe.core.config_storage import Storage
from occpipe.core.provenance import MetadataPolicy, SourceType

Fraction = Annotated[float, Field(ge=0, le=1)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class Corpus(Section):
    """Which files are read, and the limits on what is decoded."""

    extensions: tuple[str, ...] = Field(
        default=(
            *(".jpg", ".jpeg", ".jpe", ".jfif", ".jpg_large", ".png", ".webp", ".bmp", ".tif", ".tiff"),
            *(".heic", ".heif", ".avif"),
        ),
        description="endings of the names of images; HEIF and AVIF become rows with the reason unsupported",
    )
    hidden: bool = Field(default=False, description="also read ._x.jpg, .Trashes/, @eaDir/ and the like")
    image_column: str | None = Field(
        default=None, description="the column of Parquet files with images; null: the likeliest"
    )
    max_bytes: int = Field(default=64_000_000, gt=0, description="a larger file becomes an error row")
    max_pixels: int = Field(
        default=100_000_000, gt=0, description="width x height in the header, checked before decoding"
    )
    min_side: int = Field(default=32, ge=1, description="an image with a shorter side is skipped")


class Segmenter(Section):
    """The model that segments photos into things and stuff."""

    model: str = Field(
        default="starter", description="starter | maskrcnn-v2 | eomt-l-640 | mask2former-swin-l | hf:<path or id>"
    )
    device: Device = Field(default="auto", description="auto | cpu | cuda | cuda:N")
    decode_side: int = Field(
        default=1024, ge=64, description="long side in pixels to which a photo is decoded for the segmenter"
    )


class Relations(Section):
    """How the relation of a thing to its context is scored."""

    method: Literal["default", "paper2019"] = Field(
        default="default", description="default (the calibrated scorer) | paper2019 (the formula of the paper)"
    )
    vectors: str | None = Field(
        default=None,
        description=".safetensors of `occpipe train-embeddings`; paper2019: word2vec .bin or .txt; null: the starter's",
    )
    cos_min: float = Field(default=-0.357849798828, description="paper2019 only: the cosine that becomes relation 0")
    cos_max: float = Field(default=0.81298648546, description="paper2019 only: the cosine that becomes relation 1")
    deduplicate_tokens: bool = Field(default=True, description="paper2019 only: several kinds of wall count once")


class Policy(Section):
    """What is removed, given the relation of each thing to its context."""

    cut: Fraction | None = Field(
        default=None, description="a thing with a relation below it is removed; null: as calibrated"
    )
    max_touched: float = Field(
        default=5, ge=0, le=50, description="without a cut: of 1,000 ordinary photos, how many may lose something"
    )
    keep: tuple[str, ...] = Field(default=(), description="classes that are never removed")
    protect: tuple[str, ...] = Field(
        default=("person",), description="as keep; and no removal of another thing touches their pixels"
    )
    remove: tuple[str, ...] = Field(
        default=(), description="classes that are always removed, if their score is at least min_score"
    )
    min_area: Fraction = Field(default=0.002, description="share of the image; a smaller thing is kept")
    max_area: Fraction = Field(default=0.2, description="share of the image; a larger thing is the subject and is kept")
    area_scope: Literal["instance", "class"] = Field(
        default="instance", description="instance | class: whose area is compared with these shares"
    )
    min_score: Fraction = Field(
        default=0.6, description="a thing with a lower score is no context, and is kept where a cut decides"
    )
    min_context: int = Field(default=2, ge=1, description="context classes that a verdict needs")
    min_stuff_confidence: Fraction = Field(default=0.3, description="stuff with a lower confidence is no context")

    @model_validator(mode="after")
    def _areas(self) -> Policy:
        if self.min_area > self.max_area:
            raise ValueError(f"min_area {self.min_area} is above max_area {self.max_area}")
        both = {*self.keep, *self.protect} & {*self.remove}
        if both:
            raise ValueError(f"both kept and removed: {', '.join(sorted(both))}")
        return self


class Inpainter(Section):
    """The model that fills holes, and how masks grow before it."""

    model: str = Field(
        default="starter", description="starter | big-lama | migan-512 | telea | navier-stokes | pypatchmatch"
    )
    device: Device = Field(default="auto", description="auto | cpu | cuda | cuda:N")
    dilation: Fraction = Field(
        default=0.02, description="radius by which a mask grows, as a share of sqrt(height x width)"
    )
    dilation_pixels: int | None = Field(
        default=None, ge=0, description="a fixed radius instead, in pixels of the photo at the segmenter's size"
    )
    dilation_iterations: int = Field(default=1, ge=1, description="how often a fixed radius is applied")
    dilation_kernel: Literal["ellipse", "square"] = Field(default="ellipse", description="ellipse | square")
    context: float | None = Field(
        default=None,
        gt=0,
        le=4,
        description="margin of known pixels around a hole, as a share of its longer side; null: the model's own",
    )
    shadow: bool = Field(default=False, description="also remove the cast shadow of a thing, if one is detected")
    crop_batch: int = Field(default=8, ge=1, description="crops that the model fills at once")


class Output(Section):
    """What is written, and which rows run again."""

    unchanged: Literal["copy", "skip"] = Field(
        default="copy", description="copy | skip: what is done with images without a removal"
    )
    pack: str | None = Field(
        default=None,
        pattern=r"^(tar:[1-9]\d{0,5}|parquet)$",
        description="tar:1000 | parquet: containers for loose images; null: files",
    )
    broken: Literal["keep", "skip"] = Field(
        default="keep", description="keep | skip: what is done with a broken container"
    )
    sidecars: bool = Field(default=False, description="add the row of each image to its tar, as KEY.occpipe.json")
    retry: Literal["none", "errors", "all"] = Field(
        default="none", description="none | errors | all: which rows of an earlier run are done again"
    )
    metadata: MetadataPolicy = Field(
        default=MetadataPolicy.KEEP,
        description="keep | strip_location | strip_all: what an edited file keeps of EXIF, XMP, IPTC and texts",
    )
    mark: SourceType = Field(
        default=SourceType.AUTO,
        description="IPTC digital source type in the XMP of an edited file; auto: by the inpainter; none: no mark",
    )

    @property
    def tar_images(self) -> int | None:
        """Images of a tar, where `pack` is one."""
        return int(self.pack.removeprefix("tar:")) if self.pack and self.pack.startswith("tar:") else None


class Weights(Section):
    """Where the weights of models are, and under which licences they may be used."""

    dir: str | None = Field(default=None, description="folder or URI of the weights; null: the user's cache")
    accept_licence: tuple[str, ...] = Field(
        default=(), description="licences that you have read and accepted, such as [CC-BY-NC-4.0]"
    )


class Shard(Section):
    """The unit of work, of resume and of publication."""

    images: int = Field(default=8_192, ge=1, le=65_536, description="most images of one shard")


class Errors(Section):
    """How many failures a run accepts before it stops."""

    max_failed_batches: int = Field(
        default=3, ge=1, description="failed batches in a row after which the actor of a model ends and is replaced"
    )
    max_failed_share: Fraction = Field(
        default=0.05, description="a run stops above this share of rows that failed for a reason that may pass"
    )
    min_rows: int = Field(default=200, ge=1, description="rows before that share is checked")


class RayRuntime(Section):
    """How Ray is reached, and its limits."""

    address: str | None = Field(
        default=None, description="address of a cluster; null: RAY_ADDRESS, or a Ray of its own on this machine"
    )
    object_store_mb: int = Field(default=1024, ge=128, description="shared memory of a Ray of its own")
    block_mb: int = Field(default=32, ge=1, description="size of the blocks that travel between stages")
    no_progress_timeout_s: int = Field(default=600, ge=10, description="a run without progress for so long ends")
    capacity_timeout_s: int = Field(
        default=0, ge=0, description="how long a cluster may take to grow to what the pools need"
    )


class Config(Section):
    """Everything that a run depends on. A file of your own names only what it changes."""

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
        """Raise ValueError if the policy names a class that is neither in COCO-Stuff nor in `others`.

        Without this check a misspelt class in `policy.protect` would silently protect nobody.
        """
        for key in ("keep", "protect", "remove"):
            for name in getattr(self.policy, key):
                if fault := fault_of_class(name, others):
                    raise ValueError(f"policy.{key}: {fault}")

    @property
    def digest(self) -> str:
        """16 hex digits of a hash over what decides about the output; equal digests give equal images and rows."""
        return hashlib.sha256(json.dumps(self.deciding(), sort_keys=True).encode()).hexdigest()[:16]

    def deciding(self) -> dict[str, dict[str, object]]:
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
