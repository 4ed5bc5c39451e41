"""From names in the config to loaded models. Heavy packages are imported only by what is asked for."""

from __future__ import annotations

import os
from pathlib import Path

from occpipe import weights
from occpipe.config import Config, Relations
from occpipe.inpainters import CropInpainter, Inpainter
from occpipe.relations import RelationScorer
from occpipe.segmenters import Segmenter


def pick_device(wanted: str) -> str:
    """The torch device for a setting; `auto` is CUDA where there is one."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def set_threads(threads: int) -> None:
    """Torch's threads in this process; 0 gives half of the machine's cores to each of the two pools."""
    import torch

    torch.set_num_threads(threads or max(1, (os.cpu_count() or 2) // 2))


def load_segmenter(config: Config) -> Segmenter:
    """The segmenter of a config, with its weights, on its device. Raises WeightsError."""
    settings = config.segmenter
    device = pick_device(settings.device)
    if settings.model.startswith("hf:"):
        from occpipe.segmenters.huggingface import HuggingFaceSegmenter

        return HuggingFaceSegmenter(settings.model.removeprefix("hf:"), device)
    weight = weights.find(_registered(settings.model, "segmenter"), "segmenter")
    path = weights.locate(weight, config.weights)
    match weight.contract:
        case "hf":
            from occpipe.segmenters.huggingface import HuggingFaceSegmenter

            return HuggingFaceSegmenter(path, device)
        case "maskrcnn":
            from occpipe.segmenters.maskrcnn import MaskRcnnSegmenter

            return MaskRcnnSegmenter(path, device, tagger=_starter_segmenter(config, device))
        case _:
            return _starter_segmenter(config, device)


def load_inpainter(config: Config) -> Inpainter:
    """The crop engine around the inpainter of a config. Raises WeightsError."""
    return Inpainter(_crop_inpainter(config), batch_size=config.inpainter.crop_batch)


def load_relations(settings: Relations) -> RelationScorer:
    """The relation scorer of a config. Raises WeightsError where its vectors cannot be read."""
    from occpipe.relations import load_relations as load

    return load(
        settings.method,
        vectors=settings.vectors,
        cos_min=settings.cos_min,
        cos_max=settings.cos_max,
        deduplicate_tokens=settings.deduplicate_tokens,
    )


def identities(config: Config) -> list[dict[str, str | None]]:
    """Name, sha256, licence and source of every model that a config loads; raises WeightsError for a missing one."""
    found = []
    for name, kind in ((config.segmenter.model, "segmenter"), (config.inpainter.model, "inpainter")):
        if name.startswith("hf:"):
            found.append({"name": name, "sha256": None, "licence": None, "source": name})
        elif _registered(name, kind) not in _WITHOUT_WEIGHTS:
            weight = weights.find(_registered(name, kind), kind)
            found.append(weights.identity(weight, weights.locate(weight, config.weights)))
    relations = weights.find("starter-relations", "relations")
    return [*found, weights.identity(relations, weights.locate(relations, config.weights))]


_WITHOUT_WEIGHTS = {"telea", "starter-inpainter"}


def _registered(name: str, kind: str) -> str:
    return f"starter-{kind}" if name == "starter" else name


def _starter_segmenter(config: Config, device: str) -> Segmenter:
    from occpipe.segmenters.starter import StarterSegmenter

    path = weights.locate(weights.find("starter-segmenter", "segmenter"), config.weights)
    # On a CPU a batch is no faster, and its sums round otherwise than those of one photo: rows would depend on neighbours.
    return StarterSegmenter(path, device, batch_size=1 if device == "cpu" else 8)


def _crop_inpainter(config: Config) -> CropInpainter:
    device = pick_device(config.inpainter.device)
    name = config.inpainter.model
    if name == "telea":
        from occpipe.inpainters.opencv import TeleaInpainter

        return TeleaInpainter()
    if name == "starter":
        from occpipe.inpainters.starter import StarterInpainter

        return StarterInpainter(device)
    weight = weights.find(name, "inpainter")
    path: Path = weights.locate(weight, config.weights)
    from occpipe.inpainters.torchscript import BigLamaInpainter, MiganInpainter

    return BigLamaInpainter(path, device) if weight.contract == "big-lama" else MiganInpainter(path, device)
