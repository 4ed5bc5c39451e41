"""The starter segmenter: panoptic segments and stuff tags from the small net that ships in the package.

It needs no network and no GPU. It knows the 80 COCO things and ten kinds of stuff as pixels, and all 91 stuff classes
of COCO-Stuff as image-level tags; see `assets/starter-segmenter.md` for what it gets wrong.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from occpipe.core.errors import WeightsError
from occpipe.core.masks import regions, resize_mask
from occpipe.core.types import MAX_CLASSES, ClassShare, Image, Segment, Segmentation
from occpipe.models.segmenters.things import join, parts_of

if TYPE_CHECKING:
    from torch import Tensor

    from occpipe.models.segmenters.starter_net import StarterNet

FORMAT = 4
FAMILIES = (  # the COCO supercategories within which the net mixes up parts of one thing
    ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    ("car", "motorcycle", "bus", "train", "truck", "boat"),
)
SOME_THING = 0.5
"""Sum of the probabilities of all thing classes from which a pixel is one of some thing."""
ASSET = "models/assets/starter-segmenter.safetensors"


@dataclass(frozen=True, slots=True)
class StarterMeta:
    """What the weights say of themselves."""

    classes: tuple[str, ...]
    is_thing: tuple[bool, ...]
    tags: tuple[str, ...]
    temperature: float
    """Pixel logits are divided by it, so that a segment's score is near its chance of being right."""
    tag_cut: float
    """The tag probability with the best Jaccard on training photos."""


def load_weights(path: Path | None = None, device: str = "cpu") -> tuple[StarterNet, StarterMeta]:
    """The net, in evaluation mode with its norms folded into its convolutions (fp32), and its metadata.

    Raises WeightsError where the file is missing, is not safetensors, or has another format.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    from occpipe.models.efficientnet import from_stored
    from occpipe.models.segmenters.starter_net import StarterNet

    if path is None:
        with as_file(files("occpipe").joinpath(ASSET)) as shipped:
            return load_weights(shipped, device)
    try:
        with safe_open(path, framework="pt") as weights:
            header = json.loads((weights.metadata() or {}).get("occpipe", "{}"))
            state = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: no starter segmenter weights: {error}") from error
    if header.get("format") != FORMAT:
        raise WeightsError(f"{path}: format {header.get('format')!r} of the weights, this version reads {FORMAT}")
    with torch.device("meta"):
        net = StarterNet(len(header["classes"]), len(header["tags"]), header["variant"])
    try:
        net = from_stored(net, state, device)
    except RuntimeError as error:
        raise WeightsError(f"{path}: the tensors are not those of the starter segmenter: {error}") from error
    meta = StarterMeta(
        tuple(header["classes"]),
        tuple(header["is_thing"]),
        tuple(header["tags"]),
        float(header.get("temperature", 1.0)),
        float(header.get("tag_cut", 0.3)),
    )
    return net, meta


def input_shape(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The height and width that an image of (height, width) is resized to: the longer side `max_side`, multiples of 32.

    Sides are rounded rather than padded: that stretches by at most 16 pixels and shows the net no border.
    """
    height, width = size
    scale = max_side / max(size)
    return max(32, round(height * scale / 32) * 32), max(32, round(width * scale / 32) * 32)


class StarterSegmenter:
    """Segments images with the shipped net: things as regions of some thing, stuff as one segment per class.

    `weights` is a safetensors file, by default the shipped one. `max_side` is the longer side in pixels at which the
    net looks; it looks again at the other fractions of it in `looks`, which costs 40% more and brings 1 point of mean
    IoU (0.603 to 0.614 on 94 held-out photos, of a net half trained; mirrored looks bring nothing). Segments below
    `min_area_fraction` of the image or below `min_score` are dropped. On a CPU, `workers` images are looked at at the same
    time, each on one core: on two cores that gives 18% more images/s. Raises WeightsError.
    """

    def __init__(
        self,
        weights: Path | None = None,
        device: str = "cpu",
        *,
        max_side: int = 448,
        looks: Sequence[float] = (1.0, 0.64),
        min_area_fraction: float = 0.0008,
        min_score: float = 0.35,
        tag_cut: float | None = None,
        batch_size: int = 8,
        workers: int = 1,
    ) -> None:
        if max_side < 32 or batch_size < 1 or not looks:
            raise ValueError(f"max_side {max_side} (at least 32), batch_size {batch_size} (at least 1), looks {looks}")
        self.net, self.meta = load_weights(weights, device)
        self.device, self.max_side, self.batch_size, self.looks = device, max_side, batch_size, tuple(looks)
        self.min_area_fraction, self.min_score = min_area_fraction, min_score
        self.tag_cut = self.meta.tag_cut if tag_cut is None else tag_cut
        self._is_thing = np.append(self.meta.is_thing, np.zeros(256 - len(self.meta.is_thing), bool))
        self._thing_rows = np.flatnonzero(self.meta.is_thing)
        names = [self.meta.classes[row] for row in self._thing_rows]
        family = {name: -1 - number for number, members in enumerate(FAMILIES) for name in members}
        self._family = np.array([family.get(name, place) for place, name in enumerate(names)], np.int64)
        self._workers, self._device_is_free = _pool(workers) if workers > 1 and device == "cpu" else None, Lock()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes it can segment, by their COCO-Stuff names."""
        return self.meta.classes

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:
        """One segmentation per image, in order; images are RGB uint8 H x W x 3 of any sizes.

        Images of one input shape go through the net together, but with workers each alone.
        """
        if self._workers is None:
            with self._device_is_free:
                return self._together(images)
        return [found for (found,) in self._workers.map(lambda image: self._together([image]), images)]

    def _together(self, images: Sequence[Image]) -> list[Segmentation]:
        by_shape: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for i, image in enumerate(images):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise ValueError(f"image {i} is {image.dtype} {image.shape}, not RGB uint8 H x W x 3")
            by_shape[input_shape(image.shape[:2], self.max_side)].append(i)
        found: dict[int, Segmentation] = {}
        for shape, members in by_shape.items():
            for start in range(0, len(members), self.batch_size):
                part = members[start : start + self.batch_size]
                log_p, tags = self.probabilities([images[i] for i in part], shape)
                for i, pixels, image_level in zip(part, log_p, tags, strict=True):
                    found[i] = self._segmentation(images[i], pixels, image_level, shape)
        return [found[i] for i in range(len(images))]

    def probabilities(self, images: Sequence[Image], shape: tuple[int, int]) -> tuple[Tensor, NDArray[np.float32]]:
        """What the net thinks of images that share an input shape, the geometric mean of its looks.

        Log-probabilities of the K classes and "other" at stride 4, B x (K + 1) x H/4 x W/4; of tags, B x T.
        """
        import torch
        import torch.nn.functional as F

        from occpipe.models.efficientnet import normalise

        with torch.inference_mode():
            size = (shape[0] // 4, shape[1] // 4)
            seen, tags = torch.zeros((), device=self.device), torch.zeros(())
            for look in self.looks:
                side = max(32, round(max(shape) * look))
                resized = np.stack([resize_image(image, *input_shape(shape, side)) for image in images])
                pixels, tag_logits = self.net.look(normalise(torch.from_numpy(resized).to(self.device)))
                if pixels.shape[-2:] != size:
                    pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
                seen = seen + pixels
                tags = tags + torch.sigmoid(tag_logits.float()).cpu()
            logits = self.net.decoder.classify(seen / len(self.looks))
            log_p = torch.log_softmax(logits.float() / self.meta.temperature, 1)
            return log_p, self.net.together((tags / len(self.looks)).to(self.device)).cpu().numpy()

    def label_map(self, log_p: Tensor, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The class of each pixel of a photo at the net's input size, K = "other", and its probability.

        Log-probabilities (K + 1) x H/4 x W/4 are raised to full resolution only for the classes that win somewhere,
        a tenth of them in a usual photo.
        """
        import torch
        import torch.nn.functional as F

        with torch.inference_mode():
            wins = log_p.max(0).indices.flatten()  # quick where the classes of a pixel lie side by side (channels_last)
            present = torch.bincount(wins, minlength=len(log_p)).nonzero()[:, 0]
            fine = F.interpolate(log_p[present][None], size=shape, mode="bilinear", align_corners=False)[0]
            best, winner = fine.max(0)
            return present[winner].to(torch.uint8).cpu().numpy(), best.exp().cpu().numpy()

    def _segmentation(
        self, image: Image, log_p: Tensor, tags: NDArray[np.float32], shape: tuple[int, int]
    ) -> Segmentation:
        labels, probability = self.label_map(log_p, shape)
        height, width = image.shape[:2]
        smallest = max(1, round(self.min_area_fraction * labels.size))
        segments = self._things(labels, log_p[self._thing_rows].exp().cpu().numpy(), smallest, (height, width))
        for k in np.unique(labels).tolist():
            if not self._is_thing[k] and k < len(self.meta.classes):
                for mask in regions((labels == k).astype(np.uint8), smallest, split=False):
                    score = cv2.mean(probability, mask)[0]
                    if score >= self.min_score:
                        resized = resize_mask(mask, height, width)
                        segments.append(Segment.from_mask(self.meta.classes[k], False, score, resized))
        segments = sorted((s for s in segments if s.area), key=lambda s: -s.area)
        stuff = {t: float(p) for t, p in zip(self.meta.tags, tags, strict=True) if p >= self.tag_cut}
        for s in segments:
            if not s.is_thing:
                stuff[s.label] = max(s.score, stuff.get(s.label, 0.0))
        return Segmentation(height, width, tuple(segments), stuff)

    def _things(
        self, labels: NDArray[np.uint8], probabilities: NDArray[np.float32], smallest: int, size: tuple[int, int]
    ) -> list[Segment]:
        """The things of a photo of `size`; their pixels in `labels` become those of the best thing class."""
        some = cv2.resize(probabilities.sum(0), labels.shape[::-1], interpolation=cv2.INTER_LINEAR) > SOME_THING
        best = self._thing_rows[probabilities.argmax(0)].astype(np.uint8)
        best = cv2.resize(best, labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
        labels[:] = np.where(some & ~self._is_thing[labels], best, labels)
        parts = join(parts_of(labels, probabilities, self._is_thing, max(1, smallest // 4)), self._family)
        segments = []
        for number in np.flatnonzero(parts.areas[1:] >= smallest) + 1:
            shares, thing = parts.classes[number], float(parts.classes[number].sum())
            order = np.argsort(-shares, kind="stable")[:MAX_CLASSES]
            classes = [ClassShare(self.meta.classes[self._thing_rows[c]], float(shares[c])) for c in order]
            if thing < self.min_score:
                continue
            for mask in regions((parts.numbers == number).astype(np.uint8), smallest, split=False):
                resized = resize_mask(mask, *size)
                segments.append(
                    Segment.from_mask(classes[0].label, True, classes[0].probability, resized, classes, thing)
                )
        return segments


def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads in which torch takes one core each; a thread that has used torch before keeps its number."""
    import torch

    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))


def resize_image(image: Image, height: int, width: int) -> Image:
    """An image at another size, by area where it shrinks."""
    shrinks = height * width < image.shape[0] * image.shape[1]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)
