"""A training run: schedule, moving average, checkpoints. Subclasses define the samples and the losses."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)
Sample = TypeVar("Sample")

_REPORT_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Settings of all runs; a run ends after `steps`, or after `minutes` where steps is None.

    A run over a number of steps depends on (data, config, seed) alone; in a run over minutes, the schedule follows the
    clock. `ema` is the share that the moving average of the weights keeps in a step.
    """

    steps: int | None = None
    minutes: float = 75.0
    batch: int = 12
    crop: int = 256
    weight_decay: float = 1e-3
    warmup: int = 100
    clip: float = 5.0
    ema: float = 0.998
    seed: int = 0
    checkpoint_minutes: float = 4.0


class TrainingRun(ABC, Generic[Net, Sample]):
    """A run that can be stopped at any step and continued from its checkpoint.

    `groups` are parameters with their learning rates, which rise over the warm-up and fall to 0 (power 0.9).
    """

    def __init__(
        self, net: Net, groups: Sequence[tuple[Sequence[nn.Parameter], float]], config: RunConfig, device: str
    ) -> None:
        self.net, self.device, self._config = net, device, config
        self.rates = [rate for _, rate in groups]
        parameters = [{"params": list(members)} for members, _ in groups]
        self.optimiser = torch.optim.AdamW(parameters, lr=max(self.rates), weight_decay=config.weight_decay)
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.step, self.elapsed = 0, 0.0

    @abstractmethod
    def sample(self, step: int, index: int) -> Sample:
        """The sample of that index in a step, always the same; a thread of its own calls it."""

    @abstractmethod
    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """The losses of a batch, by name; they are summed."""

    def _progress(self) -> float:
        if self._config.steps is not None:
            return self.step / self._config.steps if self._config.steps else 1.0
        return self.elapsed / (60 * self._config.minutes)

    def learn(self, samples: list[Sample]) -> dict[str, float]:
        """One step; returns the losses."""
        factor = max(0.0, 1 - self._progress()) ** 0.9 * min(1.0, (self.step + 1) / self._config.warmup)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        losses = self.losses(samples)
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]  # torch's stub
        nn.utils.clip_grad_norm_(self.net.parameters(), self._config.clip)
        self.optimiser.step()
        keep = min(self._config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.net.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - keep)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _batches(self) -> Iterator[list[Sample]]:
        """The batches from the present step on; a thread prepares the next one while the net works on this one."""

        def make(step: int) -> list[Sample]:
            return [self.sample(step, i) for i in range(self._config.batch)]

        with ThreadPoolExecutor(1) as pool:
            step = self.step
            ahead = pool.submit(make, step)
            while True:
                samples = ahead.result()
                step += 1
                ahead = pool.submit(make, step)
                yield samples

    def run(self, checkpoint: Path, *, stop_at: int | None = None) -> None:
        """Train to the end (or to the step `stop_at`), with a checkpoint every few minutes and at the end."""
        saved = last = time.monotonic()
        recent: list[dict[str, float]] = []
        for samples in self._batches():
            if self._progress() >= 1 or self.step == stop_at:
                break
            recent.append(self.learn(samples))
            self.step += 1
            now = time.monotonic()
            self.elapsed, last = self.elapsed + now - last, now
            if self.step % _REPORT_STEPS == 0:
                means = " ".join(f"{name} {np.mean([r[name] for r in recent]):.3f}" for name in recent[0])
                print(f"step {self.step} {self.elapsed:.0f}s {means}", flush=True)
                recent = []
            if now - saved > 60 * self._config.checkpoint_minutes:
                self.save(checkpoint)
                saved = now
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
