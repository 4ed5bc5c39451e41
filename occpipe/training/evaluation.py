"""Figures of any segmenter on labelled photos: IoU per class, calibration of its scores, Jaccard of its stuff."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from occpipe.core.classes import coco_stuff_class
from occpipe.core.types import Image, Segmentation
from occpipe.models.segmenters.starter import StarterSegmenter, input_shape
from occpipe.training.segmentation_data import IGNORE, NONE, LabelSpace, Photo

KEY_CLASSES = (
    "person", "dog", "cat", "horse", "cow", "sheep", "car", "bicycle", "chair", "couch", "sky-other", "grass", "tree",
    "road", "building-other", "water-other", "pavement", "bird", "boat", "book",
)  # fmt: skip  # one class a line would hide that they are one list

NAMED = 0.35
"""Probability of its best class below which a segment has a distribution and no name, so that it claims no pixels."""

Segmenter = Callable[[Sequence[Image]], list[Segmentation]]


def in_batches(photos: list[Photo], size: int = 8) -> Iterator[list[Photo]]:
    """Photos in groups; those of one shape stand together, as a segmenter batches by shape."""
    ordered = sorted(photos, key=lambda p: (p.label.shape, p.name))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def paint(segmentation: Segmentation, space: LabelSpace) -> NDArray[np.uint8]:
    """A segmentation as a map of class indices, H x W; K where there is no segment, the surer one where two overlap."""
    labels = np.full((segmentation.height, segmentation.width), len(space.classes), np.uint8)
    for segment in sorted(segmentation.segments, key=lambda s: s.score):
        number = _class_index(segment.label, space) if segment.score >= NAMED else None
        if number is not None:
            labels[segment.mask > 0] = number
    return labels


def _class_index(label: str, space: LabelSpace) -> int | None:
    """The index of a segmenter's class among those of the data, also where it writes COCO panoptic's names."""
    known = coco_stuff_class(label)
    name = known.name if known else label
    return space.classes.index(name) if name in space.classes else None


def class_iou(predictions: Sequence[NDArray[np.uint8]], photos: Sequence[Photo], space: LabelSpace) -> dict[str, float]:
    """IoU per class, pixels pooled over the photos of the sets that label the class; classes never shown are left out.

    A prediction is H x W at the photo's size, class 0..K-1 or K ("other"). A pixel of a class that the set labels
    counts against the prediction where the label says "none of this set's classes", and not where it says ignore.
    """
    k = len(space.classes)
    both, either, shown = np.zeros(k), np.zeros(k), np.zeros(k)
    for predicted, photo in zip(predictions, photos, strict=True):
        valid = photo.label != IGNORE
        pairs = predicted[valid].astype(np.int64) * 256 + photo.label[valid]
        joint = np.bincount(pairs, minlength=(k + 1) * 256).reshape(k + 1, 256)
        inside, labelled = np.diagonal(joint)[:k], space.supervised[photo.set]
        truth = joint.sum(0)[:k]
        both += np.where(labelled, inside, 0)
        either += np.where(labelled, joint[:k].sum(1) + truth - inside, 0)
        shown += truth
    return {c: float(both[i] / either[i]) for i, c in enumerate(space.classes) if shown[i] > 0}


def evaluate_iou(segmenter: Segmenter, photos: list[Photo], space: LabelSpace) -> dict[str, float]:
    """IoU per class of what a segmenter returns: segments after all its clean-up, at the photos' size."""
    predictions, ordered = [], []
    for group in in_batches(photos):
        predictions += [paint(s, space) for s in segmenter([p.image for p in group])]
        ordered += group
    return class_iou(predictions, ordered, space)


def key_mean(iou: dict[str, float]) -> float:
    """The mean IoU over the twenty classes that matter most; a class without pixels counts as 0."""
    return float(np.mean([iou.get(c, 0.0) for c in KEY_CLASSES]))


def pixel_confidence(
    segmenter: StarterSegmenter,
    photos: list[Photo],
    space: LabelSpace,
    scales: Sequence[float] = (1.0,),
    stride: int = 4,
) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Every few labelled pixels: the probability of the class chosen, and whether it is right; per extra temperature.

    Only where the class chosen is one that the photo's set labels, for the rest nobody knows.
    """
    found: list[list[tuple[NDArray[np.float32], NDArray[np.bool_]]]] = [[] for _ in scales]
    for photo in photos:
        shape = input_shape(photo.image.shape[:2], segmenter.max_side)
        log_p, _ = segmenter.probabilities([photo.image], shape)
        truth = cv2.resize(photo.label, shape[::-1], interpolation=cv2.INTER_NEAREST)[::stride, ::stride]
        known = np.append(space.supervised[photo.set], np.zeros(256 - len(space.classes), bool))
        for scale, collected in zip(scales, found, strict=True):
            labels, probability = segmenter.label_map((log_p[0] / scale).log_softmax(0), shape)
            labels, probability = labels[::stride, ::stride], probability[::stride, ::stride]
            asked = known[labels] & ((truth == NONE) | (truth < len(space.classes)))
            collected.append((probability[asked], labels[asked] == truth[asked]))
    return [(np.concatenate([p for p, _ in c]), np.concatenate([r for _, r in c])) for c in found]


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error (Guo et al., ICML 2017): mean gap of confidence and accuracy over equal bins."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    gap = np.bincount(which, confidence, bins) - np.bincount(which, right.astype(float), bins)
    return float(np.abs(gap).sum() / max(1, count.sum()))


def fit_temperature(
    segmenter: StarterSegmenter, photos: list[Photo], space: LabelSpace, scales: Sequence[float]
) -> float:
    """The temperature under which "the class chosen is right" is most likely; the segmenter's own is multiplied in."""

    def cost(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
        return float(-np.log(np.clip(np.where(right, confidence, 1 - confidence), 1e-4, 1)).mean())

    costs = [cost(*pixels) for pixels in pixel_confidence(segmenter, photos, space, scales, stride=8)]
    return segmenter.meta.temperature * scales[int(np.argmin(costs))]


def jaccard(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Mean over photos of shared over joint classes; both N x T. Both empty counts as 1."""
    joint, shared = (predicted | truth).sum(1), (predicted & truth).sum(1)
    return float(np.where(joint > 0, shared / np.maximum(joint, 1), 1.0).mean())


def best_cut(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """The cut in 0.05 to 0.6 with the best Jaccard, and that Jaccard; both N x T."""
    scores = [(jaccard(probability >= cut, truth), float(cut)) for cut in np.arange(0.05, 0.61, 0.025)]
    score, cut = max(scores)
    return cut, score


def segment_confidence(
    segmentations: Sequence[Segmentation], photos: Sequence[Photo], space: LabelSpace
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Per segment of a class that the photo's set labels: its score, the share of its pixels that are right, and whether
    it is a thing. Segments without a labelled pixel are left out.
    """
    rows = []
    for seen, photo in zip(segmentations, photos, strict=True):
        for segment in seen.segments:
            number = _class_index(segment.label, space)
            if number is None or not space.supervised[photo.set][number]:
                continue
            truth = photo.label[(segment.mask > 0) & (photo.label != IGNORE)]
            if truth.size:
                rows.append((segment.score, float((truth == number).mean()), space.is_thing[number]))
    scores, right, things = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(scores, np.float32), np.array(right, np.float32), np.array(things, bool)


def stuff_truth(segmentations: Sequence[Segmentation], photos: Sequence[Photo], tags: Sequence[str]) -> dict[str, Any]:
    """Jaccard of the stuff classes seen with those of complete lists, beside base rates; empty without such lists.

    The base-rate predictor names the classes that are frequent in the lists of the other photos, at its best cut.
    """
    listed = [i for i, p in enumerate(photos) if (p.tags >= 0).all()]
    if len(listed) < 2:
        return {}
    truth = np.stack([photos[i].tags for i in listed]) == 1
    column = {name: number for number, name in enumerate(tags)}
    seen = np.zeros(truth.shape, bool)
    for row, i in enumerate(listed):
        for name in segmentations[i].stuff:
            known = coco_stuff_class(name)
            if known and known.name in column:
                seen[row, column[known.name]] = True
    others = ((truth.sum(0) - truth) / (len(truth) - 1)).astype(np.float32)
    cut, base = best_cut(others, truth)
    return {"photos": len(listed), "jaccard": jaccard(seen, truth), "base_rates": base, "base_rate_cut": cut}


def evaluate_segmenter(segmenter: Segmenter, photos: Sequence[Photo], space: LabelSpace) -> dict[str, Any]:
    """All figures of a segmenter as plain values; see `lines`."""
    ordered: list[Photo] = []
    seen: list[Segmentation] = []
    start = time.perf_counter()
    for group in in_batches(list(photos)):
        seen += segmenter([p.image for p in group])
        ordered += group
    seconds = time.perf_counter() - start
    iou = class_iou([paint(s, space) for s in seen], ordered, space)
    shown = {c: sum(int((p.label == i).any()) for p in ordered) for i, c in enumerate(space.classes)}
    score, right, things = segment_confidence(seen, ordered, space)
    found = right[things] >= 0.5  # more of the thing than of anything else
    return {
        "photos": len(ordered),
        "photos_per_s": len(ordered) / seconds,
        "key_mean_iou": key_mean(iou),
        "mean_iou": float(np.mean(list(iou.values()))) if iou else 0.0,
        "iou": {c: {"iou": iou[c], "photos": shown[c]} for c in sorted(iou, key=lambda c: -iou[c])},
        "things": {
            "segments": len(found),
            "right": float(found.mean()) if len(found) else None,
            "mean_score": float(score[things].mean()) if len(found) else None,
            "calibration_error": calibration_error(score[things], found),
        },
        "stuff": stuff_truth(seen, ordered, space.tags),
    }


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The result of `evaluate_segmenter` as a table."""
    for name, row in result["iou"].items():
        yield f"{name:16} {row['iou']:.3f} {row['photos']:5} photos{' *' if name in KEY_CLASSES else ''}"
    if all(name in result["iou"] for name in KEY_CLASSES):
        yield f"mean IoU over the 20 classes marked * {result['key_mean_iou']:.3f}"
    yield f"mean IoU over {len(result['iou'])} classes with labelled pixels {result['mean_iou']:.3f}"
    things = result["things"]
    if things["segments"]:
        yield (
            f"things: {things['segments']} segments, {things['right']:.3f} of them right (half their pixels), mean score "
            f"{things['mean_score']:.3f}, expected calibration error {things['calibration_error']:.3f}"
        )
    if result["stuff"]:
        stuff = result["stuff"]
        yield (
            f"stuff of an image: Jaccard {stuff['jaccard']:.3f}; base rates at their best cut {stuff['base_rates']:.3f} "
            f"({stuff['photos']} photos with complete lists)"
        )
    yield f"{result['photos']} photos, {result['photos_per_s']:.1f} a second"
