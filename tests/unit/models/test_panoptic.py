"""Merging equals the post-processing of transformers, segment by segment, on random logits of all three families."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import EomtImageProcessor, Mask2FormerImageProcessor, OneFormerImageProcessor

from occpipe.models.segmenters import panoptic
from occpipe.models.segmenters.panoptic import Merged, MergeRule, merge

CLASSES, STUFF = 7, frozenset({3, 4, 5})
CASES = 200
FAMILIES = ("eomt", "mask2former", "oneformer")


def random_logits(seed: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Blobs, some queries that say nothing, and some of one class of stuff; seeds below 5 have no segment at all."""
    generator = torch.Generator().manual_seed(seed)
    queries = int(torch.randint(3, 16, (), generator=generator))
    classes = torch.randn((batch, queries, CLASSES + 1), generator=generator) * 4
    classes[..., -1] += 30 if seed < 5 else 0
    coarse = torch.randn((batch, queries, 5, 5), generator=generator) * 6
    masks = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic")
    return classes, masks


def reference(
    family: str, classes: torch.Tensor, masks: torch.Tensor, sizes: list[tuple[int, int]], rule: MergeRule
) -> list[Any]:
    outputs = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks, patch_offsets=None)
    limits = {
        "threshold": rule.threshold,
        "mask_threshold": rule.mask_threshold,
        "overlap_mask_area_threshold": rule.overlap,
        "target_sizes": sizes,
    }
    if family == "eomt":
        processor = EomtImageProcessor(
            size={"shortest_edge": 64, "longest_edge": 64}, do_split_image=False, do_pad=True
        )
        return list(processor.post_process_panoptic_segmentation(outputs, stuff_classes=sorted(STUFF), **limits))
    if family == "mask2former":
        processor = Mask2FormerImageProcessor()
    else:
        processor = OneFormerImageProcessor.__new__(
            OneFormerImageProcessor
        )  # whose constructor asks the hub for a file
    return list(processor.post_process_panoptic_segmentation(outputs, label_ids_to_fuse=set(STUFF), **limits))


def segments_of(result: Any) -> dict[tuple[int, bytes], float]:
    """Class and pixels of each segment, with the highest score that is given for it."""
    found: dict[tuple[int, bytes], float] = {}
    label_map = result["segmentation"].numpy()
    for info in result["segments_info"]:
        mask = label_map == info["id"]
        key = (info["label_id"], np.packbits(mask).tobytes())
        found[key] = max(found.get(key, 0.0), info["score"])
    return found


def merged_segments(merged: Merged) -> dict[tuple[int, bytes], float]:
    return {(s.label, np.packbits(merged.label_map == s.number).tobytes()): s.score for s in merged.segments}


def collides(result: Any) -> bool:
    """Whether transformers gave one number to two segments: it counts on from stuff that it met before."""
    labels: dict[int, set[tuple[int, int]]] = {}
    for place, info in enumerate(result["segments_info"]):
        own = -1 if info["label_id"] in STUFF else place
        labels.setdefault(info["id"], set()).add((info["label_id"], own))
    return any(len(some) > 1 for some in labels.values())


@pytest.mark.parametrize("chunk", [1, panoptic.CHUNK_ELEMENTS])
@pytest.mark.parametrize("family", FAMILIES)
def test_segments_are_those_of_transformers(family: Any, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panoptic, "CHUNK_ELEMENTS", chunk)
    sizes = [(64, 40), (33, 64)] if family == "eomt" else [(64, 64), (64, 64)]
    compared = segments = 0
    for seed in range(2 * CASES):
        rule = MergeRule(
            family, STUFF, threshold=(0.3, 0.5)[seed % 2], mask_threshold=0.5, overlap=(0.8, 0.4)[seed % 3 == 0]
        )
        classes, masks = random_logits(seed)
        results = reference(family, classes, masks.clone(), sizes, rule)
        for one, result in zip(merge(classes, masks, rule, (64, 64), sizes, sizes), results, strict=True):
            if collides(result):
                continue
            made, expected = merged_segments(one), segments_of(result)
            assert made.keys() == expected.keys(), seed
            things = [key for key in made if key[0] not in STUFF]
            assert [made[key] for key in things] == pytest.approx([expected[key] for key in things], abs=1e-6)
            assert all(made[key] >= expected[key] - 1e-6 for key in made), "stuff has the score of its surest query"
            compared, segments = compared + 1, segments + len(made)
        if compared >= CASES:
            break
    assert compared >= CASES
    assert segments > CASES // 2


def test_the_map_is_at_the_size_that_is_asked_for() -> None:
    classes, masks = random_logits(99)
    merged = merge(classes, masks, MergeRule("eomt", STUFF), (64, 64), [(64, 40), (32, 64)], [(128, 80), (50, 100)])
    assert [one.label_map.shape for one in merged] == [(128, 80), (50, 100)]


def test_a_segment_has_the_classes_of_its_query() -> None:
    classes, masks = torch.full((1, 2, CLASSES + 1), -9.0), torch.full((1, 2, 16, 16), -9.0)
    classes[0, 0, [2, 6]] = torch.tensor([2.0, 1.0])
    classes[0, 1, -1] = 9.0
    masks[0, 0, 4:12, 4:12] = 9.0
    (merged,) = merge(classes, masks, MergeRule("eomt", STUFF), (64, 64), [(64, 64)], [(64, 64)])
    (segment,) = merged.segments
    names, chances = zip(*segment.classes, strict=True)
    assert (segment.label, names[:2], len(names)) == (2, (2, 6), 5)
    assert chances[:2] == pytest.approx((0.731, 0.269), abs=1e-3)
    assert chances[0] == segment.score
