"""The last step of training: fit the image-level stuff tagger on the finished net, from few photos and many lists.

A few hundred photos with complete stuff lists are too few for 91 classes, so lists without photos say what goes together:
which stuff with which things (9,000 COCO images), and which stuff with which stuff (115,000). What was tried on the way
stands in docs/experiments/segmenter.md.
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

from occpipe.models.efficientnet import normalise
from occpipe.models.segmenters.starter import input_shape, resize_image
from occpipe.models.segmenters.starter_net import StarterNet, Together
from occpipe.training.evaluation import best_cut
from occpipe.training.segmentation_data import THINGS, LabelSpace, Photo

VIEWS = (416, 288)  # longer sides in pixels; the smaller one is mirrored
FOLDS = 4
# Features and pixels of training photos are too sure of themselves: the fit is held back harder than their own folds ask
# for, and what the lists say of things is not learned anew, but taken at a part of its weight.
RIDGE = 1.0
PRIOR_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Prior:
    """What the lists say: tag logits = bias + things @ weight.T; weight T x (K + 1), zero but for things."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True)
class Features:
    """Views of photos: pooled N x 2560, presence N x (K + 1), tags N x T in {1, 0, -1}, and the photo of each."""

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
    return Prior(*_fit(x, y, 1e-4, steps=300))


def read_together(lists: Path, space: LabelSpace, *, leave_out: set[str]) -> Together:
    """Which stuff goes with which: a pairwise model of the stuff lists but for `leave_out`.

    Fitted by pseudo-likelihood (Besag, 1975): each class is predicted from the others of its list.
    """
    stuff = _lists(lists / "stuff_train2017.tsv.gz")
    ids = sorted(stuff.keys() - leave_out)
    y = torch.zeros(len(ids), len(space.tags), dtype=torch.uint8)
    for row, name in enumerate(ids):
        y[row, [i - THINGS for i in stuff[name]]] = 1
    rate = torch.logit(y.float().mean(0).clamp(1e-4, 1 - 1e-4))
    weight, bias = torch.zeros(y.shape[1], y.shape[1], requires_grad=True), rate.clone().requires_grad_()
    optimiser = torch.optim.Adam([weight, bias], lr=0.02)
    generator = torch.Generator().manual_seed(0)
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - step / 400)
        batch = y[torch.randint(len(y), (4096,), generator=generator)].float()
        pairs = _symmetric(weight)
        loss = F.binary_cross_entropy_with_logits(bias + batch @ pairs, batch) + 1e-4 * (pairs**2).sum() / len(pairs)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimiser.step()
    together = Together(len(rate))
    for parameter, value in zip(together.parameters(), (_symmetric(weight), bias, rate), strict=True):
        parameter.data = value.detach().clone()
    return together


def _symmetric(weight: Tensor) -> Tensor:
    pairs = (weight + weight.T) / 2
    return pairs - torch.diag(torch.diag(pairs))


def _fit(
    x: Tensor, tags: Tensor, ridge: float, offset: Tensor | None = None, steps: int = 200
) -> tuple[Tensor, Tensor]:
    """Multi-label logistic regression beside a known `offset`: weight T x D, bias T. Tags N x T, -1 = unknown."""
    known = tags >= 0
    rate = ((tags * known).sum(0) + 0.5) / (known.sum(0) + 10.0)
    weight = torch.zeros(tags.shape[1], x.shape[1], requires_grad=True)
    bias = torch.logit(rate).requires_grad_()
    optimiser = torch.optim.Adam([weight, bias], lr=0.02)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        logits = bias + x @ weight.T + (0 if offset is None else offset)
        cost = F.binary_cross_entropy_with_logits(logits, tags.clamp(min=0).float(), reduction="none")
        loss = (cost * known).sum() / known.sum() + ridge * (weight**2).sum() / weight.shape[0]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimiser.step()
    return weight.detach(), bias.detach()


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
            seen.append(net.decoder.presence(net.decoder(maps))[0].cpu())
            tags.append(torch.from_numpy(p.tags))
            photo.append(i)
    return Features(torch.stack(pooled), torch.stack(seen), torch.stack(tags), np.array(photo))


def fit_tagger(
    net: StarterNet, photos: list[Photo], prior: Prior, together: Together, device: str = "cpu"
) -> dict[str, float]:
    """Set `tagger`, `scene` and `together` of a net; the cut follows from cross-validation over photos with full lists.

    A tag of probability p adds to the expected Jaccard J while p > J / (1 + J): half of the F1 that belongs to it (Lipton,
    Elkan, Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure", ECML 2014). Returns the cut and the
    cross-validated Jaccard, which is too good: the features have seen these photos.
    """
    f = features(net, photos, device=device)
    mean, std = f.pooled.mean(0), f.pooled.std(0) + 1e-3
    x, scene = ((f.pooled - mean) / std).clone(), PRIOR_SHARE * prior.weight
    offset = f.presence.clone() @ scene.T
    full = (f.tags >= 0).all(1).numpy()
    fold = f.photo % FOLDS
    probability = torch.zeros(f.tags.shape)
    for i in range(FOLDS):
        fit, held = torch.from_numpy(fold != i), torch.from_numpy(fold == i)
        w, b = _fit(x[fit], f.tags[fit], RIDGE, offset[fit])
        probability[held] = together(torch.sigmoid(b + x[held] @ w.T + offset[held])).detach()
    _, score = best_cut(probability.numpy()[full], f.tags.numpy()[full] == 1)
    cut = score / (1 + score)
    print(f"tagger: cut {cut:.3f}, cross-validated Jaccard {score:.3f}", flush=True)
    w, b = _fit(x, f.tags, RIDGE, offset)
    with torch.no_grad():
        net.tagger.weight.copy_(w / std)
        net.tagger.bias.copy_(b - (w / std) @ mean)
        net.scene.weight.copy_(scene)
        net.together.load_state_dict(together.state_dict())
    return {"tag_cut": cut, "tag_jaccard_cv": score}
