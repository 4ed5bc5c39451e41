"""Shapley values: the contribution of each player to the value of a coalition; exact for few players, else sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np

MAX_EXACT = 5
"""Up to so many players all orders are used (120 of them)."""

PAIRS = 64
"""Random orders for more players, each with its reverse; with ten players the shares then vary by some hundredths."""


def shapley(players: Sequence[str], values: Callable[[Sequence[frozenset[str]]], list[float]]) -> dict[str, float]:
    """The mean over orders of the players of the value that a player adds to those before it.

    `values` returns the value of each coalition. The result sums to the value of all less that of none, and is the same in
    every call. Source: Shapley 1953; sampling by Castro, Gomez, Tejada 2009, in pairs as in Mitchell et al., JMLR 2022.
    """
    orders = _orders(players)
    coalitions = list({frozenset(order[:length]): None for order in orders for length in range(len(players) + 1)})
    value = dict(zip(coalitions, values(coalitions), strict=True))
    shares = dict.fromkeys(players, 0.0)
    for order in orders:
        for place, player in enumerate(order):
            gain = value[frozenset(order[: place + 1])] - value[frozenset(order[:place])]
            shares[player] += gain / len(orders)
    return shares


def _orders(players: Sequence[str]) -> list[tuple[str, ...]]:
    if len(players) <= MAX_EXACT:
        return list(permutations(players))
    rng = np.random.default_rng(0)
    sampled = [tuple(players[i] for i in rng.permutation(len(players))) for _ in range(PAIRS)]
    return sampled + [order[::-1] for order in sampled]
