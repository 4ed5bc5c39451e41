"""From names in the config to loaded models. Heavy packages are imported only by what is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from occpipe.core.classes import is_thing
from occpipe.core.config import Config, Relations
from occpipe.core.config_placement import threads_on
from occpipe.core.errors import ConfigError, WeightsError, first_line
from occpipe.core.provenance import SourceType
from occpipe.core.resources import cores
from occpipe.models import weights
from occpipe.models.inpainters import CropInpainter, Inpainter
from occpipe.models.relations import RelationScorer
from occpipe.models.segmenters import Segmenter

WITHOUT_WEIGHTS = ("telea", "navier-stokes", "pypatchmatch")
"""Inpainters that are nothing but code."""
PARTS = ("segmenter", "inpainter", "relations")
"""What a config loads; `scan` loads no inpainter, `apply` no segmenter."""


def pick_device(wanted: str) -> str:
    """The torch device for a setting; `auto` is CUDA where there is one."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def set_threads(threads: int) -> int:
    """Set torch's threads in this process and say how many; 0 gives the cores that it may run on."""
    import torch

    threads = threads_on(cores(), threads)
    torch.set_num_threads(threads)
    return threads


def load_segmenter(config: Config, *, workers: int = 1) -> Segmenter:
    """The segmenter of a config, with its weights, on its device. Raises WeightsError.

    `workers` is how many images of a call may be looked at at the same time, where a segmenter can do that.
    """
    settings = config.segmenter
    device = pick_device(settings.device)
    if settings.model.startswith("hf:"):
        _check_hf(config)
        from occpipe.models.segmenters.huggingface import HuggingFaceSegmenter

        source = hf_folder(settings.model) or settings.model.removeprefix("hf:")
        tagger = _starter_segmenter(config, device) if _needs_tagger(settings.model) else None
        return HuggingFaceSegmenter(source, device, tagger=tagger)
    weight = _find(settings.model, "segmenter")
    path = weights.locate(weight, config.weights)
    match weight.contract:
        case "hf":
            from occpipe.models.segmenters.huggingface import HuggingFaceSegmenter

            return HuggingFaceSegmenter(path, device)
        case "maskrcnn":
            from occpipe.models.segmenters.maskrcnn import MaskRcnnSegmenter

            return MaskRcnnSegmenter(path, device, tagger=_starter_segmenter(config, device))
        case _:
            return _starter_segmenter(config, device, workers)


def load_inpainter(config: Config, *, workers: int = 1) -> Inpainter:
    """The crop engine around the inpainter of a config, which fills so many batches at a time. Raises WeightsError."""
    settings = config.inpainter
    calls = workers if pick_device(settings.device) == "cpu" else 1
    model = _crop_inpainter(config)
    return Inpainter(model, context=settings.context, batch_size=settings.crop_batch, workers=workers, calls=calls)


def load_relations(settings: Relations) -> RelationScorer:
    """The relation scorer of a config.

    Raises WeightsError where its vectors cannot be read or do not fit the method, ConfigError for an empty cosine range.
    """
    from occpipe.models.relations import load_relations as load

    if settings.method == "paper2019" and not settings.cos_min < settings.cos_max:
        raise ConfigError(f"relations: cos_min {settings.cos_min} is not below cos_max {settings.cos_max}")
    try:
        return load(
            settings.method,
            vectors=settings.vectors,
            cos_min=settings.cos_min,
            cos_max=settings.cos_max,
            deduplicate_tokens=settings.deduplicate_tokens,
        )
    except Exception as error:  # numpy, gzip, gensim and safetensors each fail in their own ways on a foreign file
        source = settings.vectors or _RELATIONS
        raise WeightsError(f"relations.vectors: {source} cannot be used: {first_line(error)}") from error


def needed(config: Config, *, parts: Sequence[str] = PARTS) -> list[weights.Weight]:
    """The entries of the registry that these parts of a config load, those that come with the package among them.

    Raises WeightsError for an unknown name.
    """
    segmenter, inpainter = config.segmenter.model, config.inpainter.model
    found = []
    if "segmenter" in parts:
        found = [] if segmenter.startswith("hf:") else [_find(segmenter, "segmenter")]
        if _needs_tagger(segmenter):
            found.append(weights.registry()["starter-segmenter"])
    if "inpainter" in parts and inpainter not in WITHOUT_WEIGHTS:
        found.append(_find(inpainter, "inpainter"))
    if "relations" in parts and config.relations.vectors is None:
        found.append(weights.registry()[_RELATIONS])
    return found


def named(names: Sequence[str]) -> list[weights.Weight]:
    """The entries of the registry that a user names; `starter` is all that comes with the package.

    Raises WeightsError for an unknown name, and for a model that has no weights.
    """
    known = weights.registry()
    found: dict[str, weights.Weight] = {}
    for name in names:
        if name in WITHOUT_WEIGHTS:
            raise WeightsError(f"{name} has no weights: there is nothing to fetch or verify")
        if name != "starter" and name not in known:
            raise WeightsError(f"no weights {name!r}; known: starter, {', '.join(known)}")
        found |= {w.name: w for w in known.values() if w.name == name or (name == "starter" and w.shipped)}
    return list(found.values())


def check_models(config: Config, *, parts: Sequence[str] = PARTS) -> None:
    """Raise WeightsError for what can be known of a config's models, or some of them, without reading or loading weights.

    That is: an unknown name, a licence that is not accepted, a package that is missing, a `hf:` folder that is not there.
    """
    if "segmenter" in parts and config.segmenter.model.startswith("hf:"):
        _check_hf(config)
    if "inpainter" in parts and config.inpainter.model == "pypatchmatch" and find_spec("patchmatch") is None:
        raise WeightsError("pypatchmatch is not installed: pip install 'occpipe[peers]'")
    for weight in needed(config, parts=parts):
        weights.check_consent(weight, config.weights)
        if weight.contract == "hf":
            _check_transformers()


def source_type(config: Config) -> SourceType:
    """The mark of an edited file; where the config leaves it open, it says whether a trained model filled the holes."""
    if config.output.mark is not SourceType.AUTO:
        return config.output.mark
    untrained = config.inpainter.model in WITHOUT_WEIGHTS
    return SourceType.COMPOSITE if untrained else SourceType.COMPOSITE_WITH_TRAINED


def identities(config: Config, *, parts: Sequence[str] = PARTS) -> list[dict[str, str | None]]:
    """Name, sha256, licence and source of every model that these parts load; raises WeightsError for a missing one.

    The licence of a user's own file is not known and None; so is the sha256 of a model that each node gets from the hub.
    """
    check_models(config, parts=parts)
    loaded = needed(config, parts=parts)
    found = [weights.identity(weight, weights.locate(weight, config.weights)) for weight in loaded]
    if "segmenter" in parts and config.segmenter.model.startswith("hf:"):
        found.insert(0, _hf_identity(config.segmenter.model))
    if "relations" in parts and config.relations.vectors:
        path = Path(config.relations.vectors)
        try:
            digest = weights.sha256(path)
        except OSError as error:
            raise WeightsError(f"relations.vectors: {path} cannot be read: {error}") from error
        if digest is None:
            raise WeightsError(f"relations.vectors: {path} is not a file")
        found.append({"name": path.name, "sha256": digest, "licence": None, "source": str(path)})
    return found


_RELATIONS = "starter-relations"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def hf_folder(model: str) -> Path | None:
    """The folder of `hf:<path>`; None for `hf:<owner>/<name>`, unless a folder of that name is there."""
    name = model.removeprefix("hf:")
    folder = Path(name).expanduser()
    return folder if folder.is_dir() or not _HUB_ID.fullmatch(name) else None


def _check_hf(config: Config) -> None:
    model = config.segmenter.model
    known = weights.find_hub(model.removeprefix("hf:"))
    if known:
        weights.check_consent(known, config.weights)
    folder = hf_folder(model)
    if folder and not (folder / "config.json").is_file():
        raise WeightsError(
            f"{model}: there is no model of transformers in {folder} (config.json and model.safetensors)"
        )
    _check_transformers()
    if labels := _hf_labels(model):
        try:
            config.check_classes(labels)
        except ValueError as error:
            raise ConfigError(str(error)) from None


def _check_transformers() -> None:
    if find_spec("transformers") is None:
        raise WeightsError("transformers is not installed: pip install 'occpipe[hf]'")


def _hf_identity(model: str) -> dict[str, str | None]:
    folder = hf_folder(model)
    known = weights.find_hub(model.removeprefix("hf:"))
    return {
        "name": model,
        "sha256": weights.sha256(folder) if folder else None,
        "licence": known.licence if known else None,
        "source": str(folder) if folder else model,
    }


def _needs_tagger(model: str) -> bool:
    """Whether the starter's stuff stands in: the model knows none, or is on the hub and its labels are not known here."""
    if not model.startswith("hf:"):
        return model == "maskrcnn-v2"
    labels = _hf_labels(model)
    if labels is None:
        return weights.find_hub(model.removeprefix("hf:")) is None
    return all(is_thing(name) for name in labels)


def _hf_labels(model: str) -> list[str] | None:
    """The class names of a model in a local folder; None for one on the hub."""
    folder = hf_folder(model)
    if folder is None:
        return None
    try:
        labels = json.loads((folder / "config.json").read_bytes()).get("id2label") or {}
        return [str(name) for name in labels.values()]
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{model}: {folder / 'config.json'} cannot be read: {first_line(error)}") from error


def _find(name: str, kind: str) -> weights.Weight:
    """The entry of a model by the name that a config gives it; raises WeightsError naming those there are."""
    known = {w.name.removesuffix(f"-{kind}"): w for w in weights.registry().values() if w.kind == kind}
    if name not in known:
        others = ("hf:PATH or hf:OWNER/NAME",) if kind == "segmenter" else WITHOUT_WEIGHTS
        raise WeightsError(f"no {kind} {name!r}; known: {', '.join((*known, *others))}")
    return known[name]


def _starter_segmenter(config: Config, device: str, workers: int = 1) -> Segmenter:
    from occpipe.models.segmenters.starter import StarterSegmenter

    path = weights.locate(weights.registry()["starter-segmenter"], config.weights)
    # On a CPU a batch is no faster, and its sums round otherwise than those of one photo: rows would depend on neighbours.
    return StarterSegmenter(path, device, batch_size=1 if device == "cpu" else 8, workers=workers)


def _crop_inpainter(config: Config) -> CropInpainter:
    device = pick_device(config.inpainter.device)
    name = config.inpainter.model
    if name in ("telea", "navier-stokes"):
        from occpipe.models.inpainters.opencv import OpenCvInpainter

        return OpenCvInpainter(name)
    if name == "pypatchmatch":
        from occpipe.models.inpainters.pypatchmatch import PyPatchMatchInpainter

        return PyPatchMatchInpainter()
    weight = _find(name, "inpainter")
    path: Path = weights.locate(weight, config.weights)
    if weight.contract == "starter":
        from occpipe.models.inpainters.starter import StarterInpainter

        return StarterInpainter(path, device)
    from occpipe.models.inpainters.torchscript import BigLamaInpainter, MiganInpainter

    return BigLamaInpainter(path, device) if weight.contract == "big-lama" else MiganInpainter(path, device)
