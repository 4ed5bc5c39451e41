"""`hf:PATH` and `hf:OWNER/NAME`: segmenters of transformers that a user names, beside those of the registry."""

from __future__ import annotations

import json
import re
from pathlib import Path

from occpipe.core.classes import is_thing
from occpipe.core.errors import WeightsError, first_line
from occpipe.models.weights import ModelEntry, find_hub

PREFIX = "hf:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_hub(model: str) -> bool:
    """Whether a name of the config is that of a user's own model."""
    return model.startswith(PREFIX)


def hub_folder(model: str) -> Path | None:
    """The folder of `hf:PATH`; None for `hf:OWNER/NAME`, unless a folder of that name exists."""
    name = model.removeprefix(PREFIX)
    folder = Path(name).expanduser()
    return folder if folder.is_dir() or not _HUB_ID.fullmatch(name) else None


def hub_entry(model: str) -> ModelEntry:
    """The entry of such a model, with the licence of a registered one; raises WeightsError if the folder holds no model."""
    folder = hub_folder(model)
    if folder and not (folder / "config.json").is_file():
        raise WeightsError(
            f"{model}: there is no model of transformers in {folder} (config.json and model.safetensors)"
        )
    registered = find_hub(model.removeprefix(PREFIX))
    return ModelEntry(
        name=model,
        kind="segmenter",
        loader="occpipe.models.segmenters.huggingface:HuggingFaceSegmenter",
        licence=registered.licence if registered else None,
        file=str(folder) if folder else None,
        hub=None if folder else model.removeprefix(PREFIX),
        takes=("tagger",) if _needs_tagger(model) else (),
        package="transformers",
        extra="hf",
    )


def hub_labels(model: str) -> list[str] | None:
    """The class names of a model in a local folder; None for one on the hub."""
    folder = hub_folder(model)
    if folder is None:
        return None
    try:
        labels = json.loads((folder / "config.json").read_bytes()).get("id2label") or {}
        return [str(name) for name in labels.values()]
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{model}: {folder / 'config.json'} cannot be read: {first_line(error)}") from error


def _needs_tagger(model: str) -> bool:
    """Whether the starter gives the stuff: the model has no stuff classes, or its classes are not known here."""
    labels = hub_labels(model)
    if labels is None:
        return find_hub(model.removeprefix(PREFIX)) is None
    return all(is_thing(name) for name in labels)
