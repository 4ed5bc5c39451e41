"""The last step of training: fit the image-level stuff tagger on the finished net, from few photos and many lists.

A few hundred photos with complete stuff lists are too few for 91 classes, so which stuff goes with which things is
learnt first from the lists of 9,358 COCO photos without pixels (`things_train10k.tsv.gz`, `stuff_train2017.tsv.gz`).
The fit on photos starts there: tag logit = tagger(pooled features) + scene(presence of each pixel class).
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from occpipe.segmenters.starter import input_shape, resize_image
from occpipe.segmenters.starter_net import StarterNet, normalise, presence
from occpipe.training.evaluation import best_cut
from occpipe.training.segmentation_data import THINGS, LabelSpace, Photo

VIEWS = (416, 288)  # longer sides in pixels; the smaller one is mirrored
FOLDS = 4
RIDGES = (3e-2, 1e-1, 3e-1)
SCENE_RIDGE = 0.1  # of the ridge on the pooled features: what the lists say of things may move more freely


@dataclass(frozen=True, slots=True)
class Prior:
    """What the lists say: tag logits = bias + things @ weight.T; weight T x (K + 1), zero but for things."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True)
class Features:
    """Views of photos: pooled N x 1280, presence N x (K + 1), tags N x T in {1, 0, -1}, and the photo of each."""

    pooled: Tensor
    presence: Tensor
    tags: Tensor
    photo: NDArray[np.int64]


def _lists(path: Path) -> dict[str, list[int]]:
    with gzip.open(path, "rt") as lines:
        next(lines)
        rows = (line.rstrip("\n").split("\t") for line in lines)
        return {row[0]: [int(i) for i in row[1].split(",")] for row in rows if len(row) > 1 and row[1]}


def read_prior(lists: Path, space: LabelSpace, *, leave_out: set[str]) -> Prior:
    """Logistic regression from things present to stuff present, over the photos in both lists but for `leave_out`."""
    things, stuff = _lists(lists / "things_train10k.tsv.gz"), _lists(lists / "stuff_train2017.tsv.gz")
    ids = sorted((things.keys() & stuff.keys()) - leave_out)
    column = {int(i): k for i, k in enumerate(space.lut[:THINGS]) if k < len(space.classes)}
    x = torch.zeros(len(ids), len(space.classes) + 1)
    y = torch.zeros(len(ids), len(space.tags))
    for row, name in enumerate(ids):
        x[row, [int(column[i]) for i in things[name] if i in column]] = 1
        y[row, [i - THINGS for i in stuff[name]]] = 1
    weight, bias = _fit([x], y, [torch.zeros(y.shape[1], x.shape[1])], [1e-4], steps=300)
    return Prior(weight[0], bias)


def _fit(
    inputs: list[Tensor], tags: Tensor, start: list[Tensor], ridges: list[float], steps: int = 200
) -> tuple[list[Tensor], Tensor]:
    """Multi-label logistic regression; each weight T x D is drawn to its start. Tags N x T, -1 = unknown."""
    known = tags >= 0
    rate = ((tags * known).sum(0) + 0.5) / (known.sum(0) + 10.0)
    weights = [w.clone().requires_grad_() for w in start]
    bias = torch.logit(rate).requires_grad_()
    optimiser = torch.optim.Adam([*weights, bias], lr=0.02)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        logits = bias + sum((x @ w.T for x, w in zip(inputs, weights, strict=True)), torch.zeros(()))
        cost = F.binary_cross_entropy_with_logits(logits, tags.clamp(min=0).float(), reduction="none")
        loss = (cost * known).sum() / known.sum()
        for w, s, ridge in zip(weights, start, ridges, strict=True):
            loss = loss + ridge * ((w - s) ** 2).sum() / w.shape[0]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimiser.step()
    return [w.detach() for w in weights], bias.detach()


@torch.inference_mode()
def features(net: StarterNet, photos: list[Photo], views: tuple[int, ...] = VIEWS, device: str = "cpu") -> Features:
    """Look at each photo at several sizes; photos whose tags are all unknown are left out."""
    pooled, seen, tags, photo = [], [], [], []
    for i, p in enumerate(photos):
        if (p.tags < 0).all():
            continue
        for view, side in enumerate(views if (p.tags >= 0).all() else views[-1:]):
            image = p.image[:, ::-1] if view == len(views) - 1 else p.image
            resized = resize_image(np.ascontiguousarray(image), *input_shape(p.image.shape[:2], side))
            maps = net.backbone(normalise(torch.from_numpy(resized)[None].to(device)))
            pooled.append(net.pooled(maps)[0].cpu())
            seen.append(presence(net.decoder(maps))[0].cpu())
            tags.append(torch.from_numpy(p.tags))
            photo.append(i)
    return Features(torch.stack(pooled), torch.stack(seen), torch.stack(tags), np.array(photo))


def fit_tagger(net: StarterNet, photos: list[Photo], prior: Prior, device: str = "cpu") -> dict[str, float]:
    """Set `tagger` and `scene` of a net; ridge and cut are chosen by cross-validation over photos with full lists.

    Returns the cut, and the cross-validated Jaccard at it.
    """
    f = features(net, photos, device=device)
    mean, std = f.pooled.mean(0), f.pooled.std(0) + 1e-3
    x = ((f.pooled - mean) / std).clone()
    full = (f.tags >= 0).all(1).numpy()
    fold = f.photo % FOLDS
    start = [torch.zeros(f.tags.shape[1], x.shape[1]), prior.weight]
    best = (-1.0, 0.0, 0.0)
    for ridge in RIDGES:
        probability = torch.zeros(f.tags.shape)
        for i in range(FOLDS):
            fit, held = fold != i, fold == i
            w, b = _fit([x[fit], f.presence[fit].clone()], f.tags[fit], start, [ridge, SCENE_RIDGE * ridge])
            probability[held] = torch.sigmoid(b + x[held] @ w[0].T + f.presence[held] @ w[1].T)
        cut, score = best_cut(probability.numpy()[full], f.tags.numpy()[full] == 1)
        print(f"tagger: ridge {ridge:g} cut {cut:.3f} cross-validated Jaccard {score:.3f}", flush=True)
        best = max(best, (score, ridge, cut))
    score, ridge, cut = best
    w, b = _fit([x, f.presence.clone()], f.tags, start, [ridge, SCENE_RIDGE * ridge])
    with torch.no_grad():
        net.tagger.weight.copy_(w[0] / std)
        net.tagger.bias.copy_(b - (w[0] / std) @ mean)
        net.scene.weight.copy_(w[1])
    return {"tag_cut": cut, "cross_validated_jaccard": score}
