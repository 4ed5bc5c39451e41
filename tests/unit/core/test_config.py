from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from occpipe.core.config import Config
from occpipe.core.config_file import config_names, config_text, load_config, overrides_of
from occpipe.core.config_section import Section
from occpipe.core.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"


def test_local_yaml_is_generated_from_the_fields() -> None:
    assert (CONFIGS / "local.yaml").read_text(encoding="utf-8") == config_text(Config())  # `occpipe config local`
    assert load_config("local") == Config()


def test_every_field_has_a_description() -> None:
    sections: list[type[Section]] = [Config]
    for section in sections:
        for name, field in section.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                sections.append(field.annotation)
            else:
                assert field.description, f"{section.__name__}.{name}"


@pytest.mark.parametrize("name", ["gpu", "paper2019"])
def test_other_configs_name_only_what_differs(name: str) -> None:
    keys = [override.partition("=")[0] for override in overrides_of(load_config(name))]
    assert sorted(keys) == sorted(_leaves(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))))


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_a_printed_config_reads_as_the_same_config(tmp_path: Path) -> None:
    overrides = ["segmenter.model='hf:a b: #c'", "policy.keep=[dog]", "policy.cut=1e-05", "weights.dir='null'"]
    config = load_config("gpu", [*overrides, "placement.segment.labels={zone: '!in(a, b)'}"])
    (tmp_path / "printed.yaml").write_text(config_text(config))
    assert load_config(tmp_path / "printed.yaml") == config


def test_every_shipped_config_loads() -> None:
    assert config_names() == ["gpu", "local", "paper2019"]
    assert load_config("gpu").placement.segment.num_gpus > 0
    paper = load_config("paper2019")
    assert (paper.policy.cut, paper.policy.min_area, paper.policy.max_area) == (0.4, 0.02, 0.15)
    assert (paper.inpainter.dilation_pixels, paper.inpainter.dilation_iterations) == (2, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.cutt=0.3", "unknown key policy.cutt, did you mean policy.cut?"),
        ("polici.cut=0.3", "unknown key polici, did you mean policy?"),
        ("policy.cut=3", "policy.cut: Input should be less than or equal to 1"),
        ("policy.cut", "--set takes section.key=value"),
        ("policy.remove=[person]", "both kept and removed: person"),
        ("policy.min_area=0.9", "min_area 0.9 is above max_area"),
        ("placement.segment.min_size=3", "must not fall: 3, 1, 1"),
        ("segmenter.device=tpu", "segmenter.device"),
        ("policy=[", "is not a YAML value"),
    ],
)
def test_wrong_settings_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("local", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.protect=[persn]", "policy.protect: there is no class 'persn', did you mean person?"),
        ("policy.keep=[aeroplane]", "policy.keep: there is no class 'aeroplane', did you mean airplane?"),
        ("policy.remove=[qwxyz]", "policy.remove: there is no class 'qwxyz'"),
        ("policy.keep=dog", "policy.keep: a list is needed, such as [dog, cat] (got 'dog')"),
    ],
)
def test_a_misspelt_class_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("local", [override])
    assert str(caught.value) == f"config local: {message}"


@pytest.mark.parametrize("name", ["person", "building", "wall", "tree-merged", "stop sign", "table-merged"])
def test_classes_may_be_named_as_segmenters_name_them(name: str) -> None:
    assert load_config("local", [f"policy.keep=[{name}]"]).policy.keep == (name,)


def test_a_model_of_the_hub_may_have_other_classes() -> None:
    load_config("local", ["segmenter.model=hf:somebody/street-signs", "policy.keep=[milestone]"])


def test_overrides_and_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("policy:\n  cut: 0.25\n  keep: [dog]\n")
    config = load_config(file, ["policy.cut=0.3", "policy.protect=[]"])
    assert (config.policy.cut, config.policy.keep, config.policy.protect) == (0.3, ("dog",), ())


BOMB = "a: &a [x, x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijklm"))


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "- 1",
        "!!python/object/apply:os.system [ls]",
        "policy: {cut: 2001-99-99}",
        "policy: " + "[" * 3000,
        BOMB + "policy: {keep: *m}",
        "x" * 200_000,
        "a\0b",
        "? [a]\n: b",
        "1: 2",
    ],
)
def test_hostile_or_broken_yaml_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_missing_config_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="gpu, local, paper2019"):
        load_config("gpus")


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load_config("local").policy.cut = 0.1


def test_digest_covers_what_decides_and_nothing_else() -> None:
    base = load_config("local").digest
    assert load_config("local", ["placement.segment.batch_size=2", "ray.block_mb=8"]).digest == base
    assert load_config("local", ["output.retry=errors", "segmenter.device=cpu"]).digest == base
    assert load_config("local", ["policy.cut=0.2"]).digest != base
    assert load_config("local", ["output.unchanged=skip"]).digest != base


def test_a_config_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.yaml").write_text("policy: {cut: 0.3}")
    assert load_config("~/my.yaml").policy.cut == 0.3  # `--config=~/my.yaml`, which no shell expands
