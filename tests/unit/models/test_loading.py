"""A new model is one entry of weights.yaml and one class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
from numpy.typing import NDArray

from occpipe.core.config_file import load_config
from occpipe.core.errors import WeightsError
from occpipe.core.provenance import SourceType
from occpipe.core.types import Image, Segmentation
from occpipe.models import weights
from occpipe.models.loading import check_models, identities, load_inpainter, load_segmenter, source_type
from occpipe.models.segmenters import Segmenter

COLOUR = bytes([10, 20, 30])
ENTRIES = f"""
toy-fill:
  kind: inpainter
  loader: {__name__}:ToyInpainter
  file: https://example.invalid/toy.bin
  md5: {hashlib.md5(COLOUR, usedforsecurity=False).hexdigest()}
  options: {{boost: 2}}
  licence: MIT
toy-eyes:
  kind: segmenter
  loader: {__name__}:ToySegmenter
  takes: [tagger, workers]
  licence: MIT
toy-absent:
  kind: inpainter
  loader: {__name__}:ToyInpainter
  package: no_such_package
  extra: toys
  licence: MIT
"""


class ToyInpainter:
    """Fills holes with the colour that is its weights."""

    multiple, fixed_size, max_side = 1, None, 64

    def __init__(self, path: Path, device: str, boost: int) -> None:
        self.colour, self.device = np.frombuffer(path.read_bytes(), np.uint8) * np.uint8(boost), device

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.where(masks[..., None] == 1, self.colour, images).astype(np.uint8)


class ToySegmenter:
    """Sees no thing, and the stuff of its tagger."""

    def __init__(self, tagger: Segmenter, workers: int) -> None:
        self.tagger, self.workers = tagger, workers

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:
        return [Segmentation(scene.height, scene.width, stuff=scene.stuff) for scene in self.tagger(images)]


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {**weights.registry(), **weights.read_entries(ENTRIES)}
    monkeypatch.setattr(weights, "registry", lambda: entries)


def test_a_toy_inpainter_loads_and_fills(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_bytes(COLOUR)
    config = load_config("local", ["inpainter.model=toy-fill", "inpainter.device=cpu", f"weights.dir={tmp_path}"])
    image, mask = np.full((48, 48, 3), 200, np.uint8), np.zeros((48, 48), np.uint8)
    mask[20:28, 20:28] = 1
    filled = load_inpainter(config).model.fill(image[None], mask[None])[0]
    assert filled[24, 24].tolist() == [20, 40, 60], "the colour, multiplied by the option of the entry"
    assert (filled[mask == 0] == 200).all()
    assert identities(config, parts=("inpainter",)) == [
        {
            "name": "toy-fill",
            "sha256": hashlib.sha256(COLOUR).hexdigest(),
            "licence": "MIT",
            "source": "https://example.invalid/toy.bin",
        }
    ]
    assert source_type(config) is SourceType.COMPOSITE_WITH_TRAINED


def test_damaged_weights_of_a_toy_are_refused(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="is not toy-fill: its md5 is"):
        load_inpainter(load_config("local", ["inpainter.model=toy-fill", f"weights.dir={tmp_path}"]))


def test_a_toy_segmenter_gets_what_it_takes() -> None:
    config = load_config("local", ["segmenter.model=toy-eyes", "segmenter.device=cpu"])
    segmenter = load_segmenter(config, workers=3)
    assert isinstance(segmenter, ToySegmenter)
    assert segmenter.workers == 3
    image = np.full((64, 64, 3), 128, np.uint8)
    assert segmenter([image])[0].stuff == load_segmenter(load_config("local"))([image])[0].stuff
    assert [model["name"] for model in identities(config, parts=("segmenter",))] == ["starter-segmenter"]


def test_a_missing_package_names_its_extra() -> None:
    with pytest.raises(WeightsError, match=r"toy-absent needs no_such_package: pip install 'occpipe\[toys\]'"):
        check_models(load_config("local", ["inpainter.model=toy-absent"]))


def test_every_loader_of_the_registry_exists() -> None:
    for entry in weights.registry().values():
        if entry.package is None or entry.package == "transformers":
            assert callable(resolve_name(entry.loader)), entry.name
