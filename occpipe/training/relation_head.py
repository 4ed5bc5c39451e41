"""The scoring head over class vectors, trained on label lists to tell own things from intruders.

For each own thing of each image the rest of the image is the context; the loss takes every thing class that is not in
the image as an intruder, weighted by how often it occurs. So no negative is sampled, and the log-odds are calibrated
for "own or intruder, equally likely". In half of the batches context classes are dropped at random, down to a few, so
that the score also holds where a segmenter sees little. Lists that name stuff only train the context side: there a
stuff class plays the thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from occpipe.core.threads import one_core
from occpipe.models.relations.benchmark import LabelledImage

BATCH = 256


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """Training of the head: `members` nets of width `dim` with `hidden` units are averaged.

    `without_offset` is the share of classes whose offset is left out in a batch, so that the plain class vectors learn
    to stand alone for classes no list names. A class of frequency f weighs f ** -`balance` in the loss, on both sides,
    so that rare things are learned without a change of their odds. `stuff_weight` is that of the lists without things.
    """

    dim: int = 48
    hidden: int = 192
    members: int = 3
    epochs: int = 15
    learning_rate: float = 5e-3
    weight_decay: float = 0.15
    drop_context: float = 0.8
    drop_share: float = 0.5
    without_offset: float = 0.2
    stuff_weight: float = 0.5
    balance: float = 0.3
    seed: int = 1


class Member(nn.Module):
    """One net: see `EmbeddingScorer` for the formula. `x` are unit class vectors, listed tokens x dimensions."""

    def __init__(self, x: Tensor, config: HeadConfig) -> None:
        super().__init__()
        self.x: Tensor
        self.register_buffer("x", x)
        rows, width, dim = len(x), x.shape[1], config.dim
        self.map = nn.ParameterDict({p: nn.Parameter(torch.randn(width, dim) * 0.1) for p in "evu"})
        self.map["b"] = nn.Parameter(torch.zeros(width, 1))
        self.shift = nn.ParameterDict({p: nn.Parameter(torch.zeros(dim)) for p in "evu"})
        self.shift["b"] = nn.Parameter(torch.zeros(1))
        self.offset = nn.ParameterDict({p: nn.Parameter(torch.randn(rows, dim) * 0.1) for p in "ev"})
        self.offset["u"] = nn.Parameter(torch.zeros(rows, dim))
        self.offset["b"] = nn.Parameter(torch.zeros(rows, 1))
        self.k = nn.Parameter(torch.tensor(1.0))
        self.g = nn.Parameter(torch.tensor(0.0))
        self.inner = nn.Linear(dim, config.hidden)
        self.outer = nn.Linear(config.hidden, dim)

    def part(self, name: str, keep: Tensor) -> Tensor:
        """The rows of a part; `keep` (tokens x 1, in {0, 1}) says where the offset counts."""
        rows: Tensor = self.x @ self.map[name] + self.shift[name] + keep * self.offset[name]
        return rows

    def forward(self, context: Tensor, keep: Tensor) -> Tensor:
        """Log-odds of every token as the thing (N x tokens) for contexts in {0, 1} (N x tokens)."""
        n = context.sum(1, keepdim=True)
        pooled = context @ self.part("v", keep) + 3 / (n + 2) * (context @ self.part("u", keep))
        pooled = pooled * (n + F.softplus(self.k)) ** self.g
        pooled = pooled + self.outer(F.gelu(self.inner(pooled), approximate="tanh"))
        logits: Tensor = pooled @ self.part("e", keep).T + self.part("b", keep).T
        return logits


class Lists:
    """Label lists as matrices over the listed tokens; `stuff_only` are those of images without thing labels."""

    def __init__(self, images: Sequence[LabelledImage], tokens: Sequence[str]) -> None:
        rows = {t: i for i, t in enumerate(tokens)}
        paired = [i for i in images if i.things and i.stuff]
        alone = [i for i in images if not i.things and len(i.stuff) > 1]
        self.things = _matrix([i.things for i in paired], rows)
        self.present = torch.maximum(self.things, _matrix([i.stuff for i in paired], rows))
        self.stuff_only = _matrix([i.stuff for i in alone], rows).to(torch.uint8)
        self.frequency = self.things.sum(0)


def _matrix(lists: Sequence[Sequence[str]], rows: dict[str, int]) -> Tensor:
    result = torch.zeros(len(lists), len(rows))
    for row, tokens in enumerate(lists):
        result[row, [rows[t] for t in tokens if t in rows]] = 1
    return result


def _loss(logits: Tensor, own: Tensor, present: Tensor, frequency: Tensor, importance: Tensor) -> Tensor:
    """Own things against all absent ones, weighted by frequency: one value per row.

    `importance` of a class multiplies both its sides, which leaves its odds as they are.
    """
    positive = F.softplus(-logits.gather(1, own[:, None]))[:, 0] * importance[own]
    absent = (1 - present) * frequency
    absent = absent / absent.sum(1, keepdim=True).clamp(min=1e-9)
    return positive + (F.softplus(logits) * absent * importance).sum(1)


def _importance(frequency: Tensor, balance: float) -> Tensor:
    """(1 / frequency) ** balance, with a mean of 1 over what occurs."""
    weight = torch.where(frequency > 0, frequency.clamp(min=1e-9) ** -balance, 0.0)
    return weight * frequency.sum() / (weight * frequency).sum().clamp(min=1e-9)


def train_member(x: Tensor, lists: Lists, config: HeadConfig, seed: int) -> Member:
    """One net, trained; the same seed gives the same net on the same machine."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    member = Member(x, config)
    image, thing = torch.nonzero(lists.things, as_tuple=True)
    weight = 1 / lists.things.sum(1)[image]
    weight = weight / weight.mean()
    stuff_frequency = lists.stuff_only.float().mean(0)
    importance = _importance(lists.frequency, config.balance)
    stuff_importance = _importance(stuff_frequency, config.balance)
    steps = config.epochs * -(-len(thing) // BATCH)
    optimiser = torch.optim.AdamW(member.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=steps, pct_start=0.1)

    def around(present: Tensor, own: Tensor) -> Tensor:
        context = present.clone()
        context[torch.arange(len(own)), own] = 0
        rate = torch.rand(len(own), 1, generator=generator) * config.drop_context
        rate[torch.rand(len(own), 1, generator=generator) > config.drop_share] = 0
        return context * (torch.rand(context.shape, generator=generator) >= rate)

    for _ in range(config.epochs):
        for batch in torch.split(torch.randperm(len(thing), generator=generator), BATCH):
            keep = (torch.rand(len(x), 1, generator=generator) >= config.without_offset).float()
            own, rows = thing[batch], image[batch]
            logits = member(around(lists.present[rows], own), keep)
            loss = (_loss(logits, own, lists.things[rows], lists.frequency, importance) * weight[batch]).mean()
            if len(lists.stuff_only) and config.stuff_weight:
                picked = torch.randint(len(lists.stuff_only), (BATCH,), generator=generator)
                present = lists.stuff_only[picked].float()
                own = torch.multinomial(present + 1e-9, 1, generator=generator)[:, 0]
                logits = member(around(present, own), keep)
                loss = (
                    loss + config.stuff_weight * _loss(logits, own, present, stuff_frequency, stuff_importance).mean()
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
            schedule.step()
    return member


def train_head(
    vectors: NDArray[np.float32],
    tokens: Sequence[str],
    images: Sequence[LabelledImage],
    config: HeadConfig = HeadConfig(),
    progress: Callable[[str], None] = print,
) -> dict[str, NDArray[np.float16]]:
    """The arrays of the head, stacked over its members; `vectors` are those of the listed `tokens`, in this order."""
    norm = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    x = torch.tensor(vectors / norm)
    lists = Lists(images, tokens)
    # a class that no list names keeps its plain vector: its offset is noise
    named = ((lists.present.sum(0) + lists.stuff_only.float().sum(0)) > 0).float()[:, None]
    members = []
    with one_core():
        for number in range(config.members):
            members.append(train_member(x, lists, config, config.seed + number))
            progress(f"head {number + 1} of {config.members} trained on {len(lists.things)} images")
    stacks: dict[str, list[Tensor]] = {}
    for member in members:
        for name in "evub":
            stacks.setdefault(f"{name}.map", []).append(member.map[name])
            stacks.setdefault(f"{name}.shift", []).append(member.shift[name])
            stacks.setdefault(f"{name}.offset", []).append(member.offset[name] * named)
        stacks.setdefault("inner.weight", []).append(member.inner.weight.T)
        stacks.setdefault("inner.bias", []).append(member.inner.bias)
        stacks.setdefault("outer.weight", []).append(member.outer.weight.T)
        stacks.setdefault("outer.bias", []).append(member.outer.bias)
        stacks.setdefault("k", []).append(F.softplus(member.k))
        stacks.setdefault("g", []).append(member.g)
    return {name: torch.stack(parts).detach().numpy().astype(np.float16) for name, parts in stacks.items()}
