"""Training of the starter inpainter's net, on crops whose holes patches have filled.

The loss is the absolute error inside the hole, and the distance of the features of an ImageNet net, which blur does not
please. The features are those of EfficientNet-Lite2, not of the Lite0 that the figures are taken with. Holes lie where no
thing is labelled, as far as labels are there: what is behind a removed thing is background.
A run is decided by (data, config, seed) when bounded by steps; bounded by minutes, its schedule follows the clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image as Pil
from safetensors.torch import save_file
from torch import Tensor, nn

from occpipe.efficientnet import PIXEL_MEAN, PIXEL_STD
from occpipe.inpainters.patches import PatchInpainter
from occpipe.inpainters.refiner_net import RefinerNet
from occpipe.training.holes import box_hole, brush_hole, thing_hole
from occpipe.training.inpaint_evaluation import Perceptual
from occpipe.training.segmentation import pretrained_state
from occpipe.training.segmentation_data import THINGS, is_held_out
from occpipe.types import Image, Mask

STORED_SIDE = 512
THING_SHARE = 0.2  # of a hole that may lie on things
TRIES = 6
_PER_FILE = 128


@dataclass(frozen=True, slots=True)
class InpaintConfig:
    """How to train; a run ends after `steps`, or after `minutes` where steps is None.

    `crop` is the side of a crop in pixels, a multiple of 16; those that are filled with patches are 16 pixels larger.
    """

    steps: int | None = None
    minutes: float = 84.0
    batch: int = 16
    crop: int = 128
    lr: float = 1e-3
    lr_backbone: float = 2e-4
    weight_decay: float = 1e-3
    warmup: int = 200
    perceptual: float = 2.0
    ema: float = 0.998
    seed: int = 0
    checkpoint_minutes: float = 4.0

    @property
    def stored(self) -> int:
        """The side of the crops that are filled with patches."""
        return self.crop + 16


@dataclass(frozen=True, slots=True)
class Scene:
    """A photo, H x W x 3, at most 512 pixels long, and where things are labelled in it, H x W, or None."""

    image: Image
    things: Mask | None


def _shrink(image: Image) -> Image:
    scale = STORED_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def read_scenes(photos: Path, labelled: Path | None, *, crop: int) -> list[Scene]:
    """The photos of a folder, and of a labelled photo folder, but for held-out ones and those smaller than a crop."""

    def plain(path: Path) -> Scene:
        with Pil.open(path) as photo:
            return Scene(_shrink(np.asarray(photo.convert("RGB"))), None)

    def with_labels(path: Path) -> Scene:
        image = plain(path).image
        label = np.asarray(Pil.open(path.parents[1] / "labels" / f"{path.stem}.png"))
        size = image.shape[1], image.shape[0]
        things = cv2.resize((label < THINGS).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        return Scene(image, np.asarray(things, np.uint8))

    with ThreadPoolExecutor(2) as pool:
        paths = [p for p in sorted(photos.glob("*.jpg")) if not is_held_out(p.stem)]
        scenes = list(pool.map(plain, paths))
        if labelled is not None:
            paths = [p for p in sorted((labelled / "images").glob("*.jpg")) if not is_held_out(p.stem)]
            scenes += list(pool.map(with_labels, paths))
    return [s for s in scenes if min(s.image.shape[:2]) >= crop]


class HoleSampler:
    """Crops with holes: `sampler(step, index)` gives the same image, S x S x 3, and hole, S x S, for the same seed."""

    def __init__(self, scenes: Sequence[Scene], outlines: Sequence[Mask], crop: int, seed: int) -> None:
        self.scenes, self.outlines, self.crop, self.seed = scenes, outlines, crop, seed

    def __call__(self, step: int, index: int) -> tuple[Image, Mask]:
        rng = np.random.default_rng((self.seed, step, index))
        hole = self._hole(rng)
        for _ in range(TRIES):
            scene = self.scenes[int(rng.integers(len(self.scenes)))]
            height, width = scene.image.shape[:2]
            side = int(np.exp(rng.uniform(np.log(self.crop), np.log(min(height, width)))))
            y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
            box = np.s_[y : y + side, x : x + side]
            if scene.things is None:
                break
            things = cv2.resize(scene.things[box], (self.crop, self.crop), interpolation=cv2.INTER_NEAREST)
            if (things * hole).sum() <= THING_SHARE * hole.sum():
                break
        image = cv2.resize(scene.image[box], (self.crop, self.crop), interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            image, hole = image[:, ::-1], hole[:, ::-1]
        bright = image.astype(np.float32) * rng.uniform(0.85, 1.15) + rng.uniform(-10, 10)
        return np.clip(bright, 0, 255).astype(np.uint8), np.ascontiguousarray(hole)

    def _hole(self, rng: np.random.Generator) -> Mask:
        shape, area = (self.crop, self.crop), float(rng.uniform(0.04, 0.25))
        match rng.choice(4, p=(0.45, 0.25, 0.15, 0.15)):
            case 0:
                return thing_hole(rng, shape, area, self.outlines)
            case 1:
                return thing_hole(rng, shape, area)
            case 2:
                return brush_hole(rng, shape, area)
            case _:
                return box_hole(rng, shape, area)


def make_fills(sampler: HoleSampler, count: int, folder: Path) -> None:
    """Fill `count` crops with patches and keep them, 128 to a file; files that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    patches = PatchInpainter()
    for start in range(0, count, _PER_FILE):
        path = folder / f"{start:06}.npz"
        if path.exists():
            continue
        pairs = [sampler(0, start + i) for i in range(min(_PER_FILE, count - start))]
        images, holes = np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
        partial = folder / "partial.npz"
        np.savez(partial, images=images, holes=holes, fills=patches.fill(images, holes))
        partial.replace(path)
        print(f"filled {start + len(pairs)} of {count}", flush=True)


class FillSampler:
    """Crops of S x S out of those that `make_fills` has filled, at random mirrored and of another brightness."""

    def __init__(self, folder: Path, crop: int, seed: int) -> None:
        files = sorted(folder.glob("0*.npz"))
        parts = [np.load(f) for f in files]
        self.images, self.holes, self.fills = (
            np.concatenate([p[name] for p in parts]) for name in ("images", "holes", "fills")
        )
        self.crop, self.seed = crop, seed

    def __call__(self, step: int, index: int) -> tuple[Image, Mask, Image]:
        """The true crop, S x S x 3, the hole, S x S, and the crop as filled by patches."""
        rng = np.random.default_rng((self.seed, step, index))
        i = int(rng.integers(len(self.images)))
        y, x = rng.integers(self.images.shape[1] - self.crop + 1), rng.integers(self.images.shape[2] - self.crop + 1)
        box = np.s_[i, y : y + self.crop, x : x + self.crop]
        image, hole, fill = self.images[box], self.holes[box], self.fills[box]
        if rng.random() < 0.5:
            image, hole, fill = image[:, ::-1], hole[:, ::-1], fill[:, ::-1]
        gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-16, 16)
        image, fill = (np.clip(x * gain + offset, 0, 255).astype(np.uint8) for x in (image, fill))
        return image, np.ascontiguousarray(hole), fill


def new_net() -> RefinerNet:
    """A net on ImageNet features."""
    net = RefinerNet()
    state = {k.removeprefix("backbone."): v for k, v in pretrained_state("lite0").items()}
    known = net.state_dict()
    net.load_state_dict({k: v for k, v in state.items() if k in known}, strict=False)
    return net


class InpaintTrainer:
    """A training run that can be stopped at any step and continued from its checkpoint."""

    def __init__(self, sampler: FillSampler, config: InpaintConfig, *, device: str = "cpu") -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.net = new_net().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        self.judge = Perceptual("lite2")
        self.judge.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        frozen = (self.net.stem, *self.net.blocks[: self.net.taps[1] + 1])
        self.net.train()
        for part in frozen:
            part.eval().requires_grad_(False)
        self.sampler = sampler
        backbone = [p for p in self.net.blocks.parameters() if p.requires_grad]
        ids = {id(p) for p in backbone}
        heads = [p for p in self.net.parameters() if p.requires_grad and id(p) not in ids]
        self.optimiser = torch.optim.AdamW(
            [{"params": backbone}, {"params": heads}], lr=config.lr, weight_decay=config.weight_decay
        )
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.step, self.elapsed = 0, 0.0

    def _progress(self) -> float:
        if self.config.steps is not None:
            return self.step / self.config.steps
        return self.elapsed / (60 * self.config.minutes)

    def _learn(
        self, images: NDArray[np.uint8], holes: NDArray[np.uint8], fills: NDArray[np.uint8]
    ) -> tuple[float, float]:
        image = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float()
        hole = torch.from_numpy(holes).to(self.device)[:, None].float()
        fill = torch.from_numpy(fills).to(self.device).permute(0, 3, 1, 2).float()
        factor = max(0.0, 1 - self._progress()) ** 0.9 * min(1.0, (self.step + 1) / self.config.warmup)
        rates = self.config.lr_backbone, self.config.lr
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device.startswith("cuda")):
            filled = fill + self.net(fill, hole).float()
        error = ((filled - image).abs() * hole).sum() / (3 * PIXEL_STD * hole.sum().clamp(min=1))
        distance = self._distance(filled, image, hole)
        loss = error + self.config.perceptual * distance
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.net.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - keep)
        return float(error.detach()), float(distance.detach())

    def _distance(self, filled: Tensor, image: Tensor, hole: Tensor) -> Tensor:
        """The mean feature distance in the hole."""
        seen = self.judge.features((filled - PIXEL_MEAN) / PIXEL_STD)
        with torch.no_grad():
            wanted = self.judge.features((image - PIXEL_MEAN) / PIXEL_STD)
        costs = []
        for a, b in zip(seen, wanted, strict=True):
            weight = F.interpolate(hole, size=a.shape[-2:], mode="area")
            costs.append(((a - b).square().sum(1, keepdim=True) * weight).sum() / weight.sum().clamp(min=1))
        return torch.stack(costs).mean()

    def _batches(self) -> Iterator[list[NDArray[np.uint8]]]:
        def make(step: int) -> list[NDArray[np.uint8]]:
            samples = [self.sampler(step, i) for i in range(self.config.batch)]
            return [np.stack(part) for part in zip(*samples, strict=True)]

        with ThreadPoolExecutor(1) as pool:
            step = self.step
            ahead = pool.submit(make, step)
            while True:
                batch = ahead.result()
                step += 1
                ahead = pool.submit(make, step)
                yield batch

    def run(self, checkpoint: Path, *, stop_at: int | None = None) -> None:
        """Train to the end (or to the step `stop_at`), with a checkpoint every few minutes and at the end."""
        saved = last = time.monotonic()
        recent: list[tuple[float, float]] = []
        for images, holes, fills in self._batches():
            if self._progress() >= 1 or self.step == stop_at:
                break
            recent.append(self._learn(images, holes, fills))
            self.step += 1
            now = time.monotonic()
            self.elapsed, last = self.elapsed + now - last, now
            if self.step % 100 == 0:
                error, distance = np.mean(recent, 0)
                print(f"step {self.step} {self.elapsed:.0f}s error {error:.4f} distance {distance:.4f}", flush=True)
                recent = []
            if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                self.save(checkpoint)
                saved = time.monotonic()
        self.save(checkpoint)

    def save(self, checkpoint: Path) -> None:
        """Write the whole state; a stop while writing leaves the one before."""
        state = {
            "net": self.net.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    def resume(self, checkpoint: Path) -> None:
        """Continue from a checkpoint of the same config."""
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.elapsed = state["step"], state["elapsed"]


def export(average: dict[str, Tensor], out: Path) -> None:
    """Write the averaged weights as safetensors: convolutions as fp16, norms and biases as fp32."""
    tensors = {
        name: (value.half() if value.ndim > 1 else value.float()).cpu().contiguous()
        for name, value in average.items()
        if not name.endswith("num_batches_tracked")
    }
    partial = out.with_suffix(".partial")
    save_file(tensors, partial, {"format": "1"})
    partial.chmod(0o644)
    partial.replace(out)
