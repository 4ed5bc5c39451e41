"""From names in the config to loaded models: an entry of `weights.yaml` names the loader and what it takes.

Heavy packages are imported only by the loaders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from occpipe.core.config import Config, Relations
from occpipe.core.config_placement import threads_on
from occpipe.core.errors import ConfigError, WeightsError, first_line
from occpipe.core.provenance import SourceType
from occpipe.core.resources import cores
from occpipe.models import weights
from occpipe.models.hub import hub_entry, hub_labels, is_hub
from occpipe.models.inpainters import Inpainter
from occpipe.models.relations import RelationScorer
from occpipe.models.segmenters import Segmenter
from occpipe.models.segmenters.labels import is_labels, labels_entry, labels_sha256
from occpipe.models.weights import ModelEntry, ModelIdentity
from occpipe.models.words import check_words

PARTS = ("segmenter", "inpainter", "relations")
"""What a config loads; `scan` loads no inpainter, `apply` no segmenter."""
TAGGER = "starter-segmenter"
"""The model that gives the stuff of a photo to segmenters that take a tagger."""
_RELATIONS = "starter-relations"


def pick_device(setting: str) -> str:
    """The torch device for a setting; `auto` is CUDA if there is a card."""
    if setting != "auto":
        return setting
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def set_threads(threads: int) -> int:
    """Set the number of torch's threads in this process, and return it; 0 means the cores that it may run on."""
    import torch

    threads = threads_on(cores(), threads)
    torch.set_num_threads(threads)
    return threads


def load_segmenter(config: Config, *, workers: int = 1) -> Segmenter:
    """The segmenter of a config, with its weights, on its device. Raises WeightsError.

    `workers` is the number of images of a call that are segmented at the same time, if the segmenter can do that.
    """
    entries = _entries(config, ("segmenter",))
    if is_hub(entries[0].name):
        check_models(config, parts=("segmenter",))
    if config.segmenter.classes:
        return _prompted(config, entries)
    segmenter: Segmenter = _load(entries[0], config, config.segmenter.device, workers)
    return segmenter


def load_inpainter(config: Config, *, workers: int = 1) -> Inpainter:
    """The crop engine around the inpainter of a config, which fills `workers` batches at a time. Raises WeightsError."""
    settings = config.inpainter
    calls = workers if pick_device(settings.device) == "cpu" else 1
    model = _load(_entry("inpainter", settings.model), config, settings.device)
    return Inpainter(model, context=settings.context, batch_size=settings.crop_batch, workers=workers, calls=calls)


def load_relations(settings: Relations) -> RelationScorer:
    """The relation scorer of a config.

    Raises WeightsError if its vectors cannot be read or do not fit the method, ConfigError for an empty cosine range.
    """
    if settings.method == "paper2019" and not settings.cos_min < settings.cos_max:
        raise ConfigError(f"relations: cos_min {settings.cos_min} is not below cos_max {settings.cos_max}")
    try:
        scorer: RelationScorer = _loader(weights.registry()[_RELATIONS])(**settings.model_dump())
    except Exception as error:  # numpy, gzip, gensim and safetensors each have their own errors for a foreign file
        source = settings.vectors or _RELATIONS
        raise WeightsError(f"relations.vectors: {source} cannot be used: {first_line(error)}") from error
    return scorer


def needed(config: Config, *, parts: Sequence[str] = PARTS) -> list[ModelEntry]:
    """The entries of the registry whose weights these parts of a config load, with those that come with the package.

    Raises WeightsError for an unknown name.
    """
    entries = _entries(config, parts)
    if any({"tagger", "make_tagger"} & {*entry.takes} for entry in entries):
        entries.insert(1, weights.registry()[TAGGER])
    return [entry for entry in entries if entry.has_weights and not is_hub(entry.name)]


def named(names: Sequence[str]) -> list[ModelEntry]:
    """The entries of the registry that a user names; `starter` is all that comes with the package.

    Raises WeightsError for an unknown name, and for a model that has no weights.
    """
    registry = weights.registry()
    entries: dict[str, ModelEntry] = {}
    for name in names:
        if name in registry and not registry[name].has_weights:
            raise WeightsError(f"{name} has no weights: there is nothing to fetch or verify")
        if name != "starter" and name not in registry:
            choices = ", ".join(entry.name for entry in registry.values() if entry.has_weights)
            raise WeightsError(f"no weights {name!r}; known: starter, {choices}")
        entries |= {e.name: e for e in registry.values() if e.name == name or (name == "starter" and e.shipped)}
    return list(entries.values())


def check_models(config: Config, *, parts: Sequence[str] = PARTS) -> None:
    """Check a config's models, or some of them, as far as that needs no weights.

    Raises WeightsError for an unknown name, a licence that is not accepted, a package that is missing, or a `hf:` folder
    that does not exist; ConfigError for a class of the policy that the model does not have.
    """
    for entry in _entries(config, parts):
        weights.check_consent(entry, config.weights)
        if entry.package and find_spec(entry.package) is None:
            raise WeightsError(f"{entry.name} needs {entry.package}: pip install 'occpipe[{entry.extra}]'")
        if is_labels(entry.name):
            labels_sha256(config)
        if is_hub(entry.name) and (labels := config.segmenter.classes or hub_labels(entry.name)):
            try:
                config.check_classes(labels)
            except ValueError as error:
                raise ConfigError(str(error)) from None
    if "segmenter" in parts and config.segmenter.classes:
        check_words(config, load_relations(config.relations))


def source_type(config: Config) -> SourceType:
    """The mark of an edited file; with `auto` it tells whether a trained model filled the holes."""
    if config.output.mark is not SourceType.AUTO:
        return config.output.mark
    is_trained = _entry("inpainter", config.inpainter.model).has_weights
    return SourceType.COMPOSITE_WITH_TRAINED if is_trained else SourceType.COMPOSITE


def identities(config: Config, *, parts: Sequence[str] = PARTS) -> list[ModelIdentity]:
    """The identity of every model that these parts load; raises WeightsError for a missing one.

    The licence of a user's own file is not known and None; so is the sha256 of a model that each node gets from the hub.
    """
    check_models(config, parts=parts)
    own = [entry for entry in _entries(config, parts) if is_hub(entry.name)]
    models = [weights.identity(entry, Path(entry.file or entry.hub or "")) for entry in own]
    if "segmenter" in parts and is_labels(name := config.segmenter.model):
        models.append({"name": name, "sha256": labels_sha256(config), "licence": None, "source": name})
    models += [weights.identity(entry, weights.locate(entry, config.weights)) for entry in needed(config, parts=parts)]
    if "relations" in parts and config.relations.vectors:
        models.append(_vectors_identity(Path(config.relations.vectors)))
    return models


def _prompted(config: Config, entries: Sequence[ModelEntry]) -> Segmenter:
    from occpipe.models.segmenters.prompted import PromptedSegmenter

    device = pick_device(config.segmenter.device)
    tagger = _load(weights.registry()[TAGGER], config, device)
    sources = [str(entry.file or entry.hub) for entry in entries]
    return PromptedSegmenter(sources, device, classes=config.segmenter.classes, tagger=tagger)


def _vectors_identity(path: Path) -> ModelIdentity:
    try:
        digest = weights.sha256(path)
    except OSError as error:
        raise WeightsError(f"relations.vectors: {path} cannot be read: {error}") from error
    if digest is None:
        raise WeightsError(f"relations.vectors: {path} is not a file")
    return {"name": path.name, "sha256": digest, "licence": None, "source": str(path)}


def _entries(config: Config, parts: Sequence[str]) -> list[ModelEntry]:
    """The entries of the models that these parts name, in the order of PARTS."""
    entries = []
    if "segmenter" in parts:
        names = config.segmenter.models
        entries += [_entry("segmenter", name) for name in names]
    if "inpainter" in parts:
        entries.append(_entry("inpainter", config.inpainter.model))
    if "relations" in parts and config.relations.vectors is None:
        entries.append(weights.registry()[_RELATIONS])
    return entries


def _entry(kind: str, name: str) -> ModelEntry:
    """The entry of a model by the name that a config gives it; raises WeightsError with the names of this kind."""
    if kind == "segmenter" and is_hub(name):
        return hub_entry(name)
    if kind == "segmenter" and is_labels(name):
        return labels_entry(name)
    entries = {e.name.removesuffix(f"-{kind}"): e for e in weights.registry().values() if e.kind == kind}
    if name not in entries:
        choices = [*entries, *(["hf:PATH or hf:OWNER/NAME", "masks:URI", "coco:URI"] if kind == "segmenter" else [])]
        raise WeightsError(f"no {kind} {name!r}; known: {', '.join(choices)}")
    return entries[name]


def _loader(entry: ModelEntry) -> Callable[..., Any]:
    loader: Callable[..., Any] = resolve_name(entry.loader)
    return loader


def _load(entry: ModelEntry, config: Config, device: str, workers: int = 1) -> Any:
    """A model, made by its loader; see `ModelEntry` for what a loader gets."""
    device = pick_device(device)
    values: dict[str, Callable[[], object]] = {
        "workers": lambda: workers,
        # On a CPU a batch is no faster, and its sums round differently: rows would depend on their neighbours.
        "batch_size": lambda: 1 if device == "cpu" else 8,
        "tagger": lambda: _load(weights.registry()[TAGGER], config, device),
        "make_tagger": lambda: values["tagger"],
        "config": lambda: config,
    }
    place: tuple[object, ...] = ()
    if is_hub(entry.name):
        place = (entry.file or entry.hub, device)
    elif entry.has_weights:
        place = (weights.locate(entry, config.weights), device)
    return _loader(entry)(*place, **entry.options, **{name: values[name]() for name in entry.takes})
