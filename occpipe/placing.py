"""Where a run takes place, as its config says: on Ray or without it, in which pools, in how many processes. Pure."""

from __future__ import annotations

from occpipe.config import Config

STAGES = ("fetch", "segment", "relate", "inpaint", "sink")
"""Those between discover and publish, as `placement` names them, in order."""
POOLS = ("segment", "inpaint")
"""Those that run in pools of actors on Ray."""
MOST_WORKERS = 4
"""Processes of a run without Ray: each holds the models, some 900 MB with what a photo in work needs."""


def wants_ray(config: Config, images: int) -> bool:
    """Whether a run is for Ray: it has an address, GPUs are to be shared, or the corpus is worth Ray's start."""
    at, ray = config.placement, config.ray
    return bool(ray.address or at.segment.num_gpus or at.inpaint.num_gpus or images >= ray.from_images)


def crew_on(cores: int, images: int) -> tuple[int, int]:
    """Processes of a run without Ray on so many cores, and the cores that each has for its threads."""
    count = max(1, min(cores, MOST_WORKERS, images))
    return count, max(1, cores // count)
