"""What is known of a config's models before a run: their identities, their consent, and errors of one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from occpipe.cli.main import app
from occpipe.core.config import Relations
from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError, WeightsError
from occpipe.core.provenance import SourceType
from occpipe.models import loading as models
from occpipe.models import weights
from occpipe.models.loading import (
    check_models,
    identities,
    load_relations,
    load_segmenter,
    needed,
    source_type,
)

NON_COMMERCIAL = "segmenter.model=hf:facebook/mask2former-swin-large-coco-panoptic"


def hf_folder(folder: Path, labels: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(labels))}))
    (folder / "model.safetensors").write_bytes(b"tensors")
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.safetensors", None),
        ("damaged.safetensors", b"these are no safetensors"),
        ("empty.safetensors", b""),
        ("pickled.model", b"x"),
        ("missing.bin", None),
        ("words.bin", b""),
        ("words.txt", b"3 four\n"),
        ("words.txt", b"\xff\xfe\x00"),
        ("words.bin.gz", b"not gzip"),
    ],
)
@pytest.mark.parametrize("method", ["default", "paper2019"])
def test_bad_vectors_are_one_line(method: str, name: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_relations(Relations.model_validate({"method": method, "vectors": str(path)}))
    message = str(caught.value)
    assert message.startswith(f"relations.vectors: {path} cannot be used: ")
    assert "\n" not in message
    assert not message.endswith(": ")


def test_an_empty_range_of_cosines_is_the_configs_fault() -> None:
    with pytest.raises(ConfigError, match=r"cos_min 0\.5 is not below cos_max 0\.5"):
        load_relations(Relations(method="paper2019", cos_min=0.5, cos_max=0.5))


def test_identities_name_the_vectors_of_the_config(tmp_path: Path) -> None:
    vectors = tmp_path / "mine.bin"
    vectors.write_bytes(b"words")
    found = identities(load_config("paper2019", [f"relations.vectors={vectors}"]))
    assert [model["name"] for model in found] == ["starter-segmenter", "starter-inpainter", "mine.bin"]
    digest = hashlib.sha256(b"words").hexdigest()
    assert found[2] == {"name": "mine.bin", "sha256": digest, "licence": None, "source": str(vectors)}
    with pytest.raises(WeightsError, match=r"gone\.bin is not a file"):
        identities(load_config("paper2019", [f"relations.vectors={tmp_path}/gone.bin"]))


def test_identities_name_the_tagger_of_maskrcnn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "verify", lambda weight, path: None)
    (tmp_path / "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth").write_bytes(b"state")
    found = identities(load_config("local", ["segmenter.model=maskrcnn-v2", f"weights.dir={tmp_path}"]))
    assert [model["name"] for model in found] == [
        "maskrcnn-v2",
        "starter-segmenter",
        "starter-inpainter",
        "starter-relations",
    ]


def test_identities_of_a_local_folder(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "panoptic", ["person", "sky-other-merged"])
    first, *others = identities(load_config("local", [f"segmenter.model=hf:{folder}"]))
    digest = hashlib.sha256(b"tensors").hexdigest()
    assert first == {"name": f"hf:{folder}", "sha256": digest, "licence": None, "source": str(folder)}
    assert [model["name"] for model in others] == ["starter-inpainter", "starter-relations"]
    folder = hf_folder(tmp_path / "instance", ["person", "cat"])
    found = identities(load_config("local", [f"segmenter.model=hf:{folder}"]))
    assert [model["name"] for model in found] == [
        f"hf:{folder}",
        "starter-segmenter",
        "starter-inpainter",
        "starter-relations",
    ]


def test_a_hub_id_needs_the_consent_of_its_entry() -> None:
    for model in (NON_COMMERCIAL, NON_COMMERCIAL.upper().replace("SEGMENTER.MODEL=HF:", "segmenter.model=hf:")):
        for refuses in (check_models, identities, load_segmenter):
            with pytest.raises(WeightsError, match=r"CC-BY-NC-4\.0, which forbids commercial use"):
                refuses(load_config("local", [model]))
    accepted = load_config("local", [NON_COMMERCIAL, "weights.accept_licence=[CC-BY-NC-4.0]"])
    first, *others = identities(accepted)
    assert (first["sha256"], first["licence"]) == (None, "CC-BY-NC-4.0")
    assert [model["name"] for model in others] == ["starter-inpainter", "starter-relations"], "its labels hold stuff"


@pytest.mark.parametrize("model", ["hf:/no/such/folder", "hf:./here", "hf:name", "hf:~/nowhere", "hf:", "hf:a/b/c"])
def test_a_folder_that_is_not_there(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="no model of transformers in"):
        check_models(load_config("local", [f"segmenter.model='{model}'"]))


def test_transformers_missing_is_known_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    folder = hf_folder(tmp_path / "model", ["person", "sky"])
    for model in (f"hf:{folder}", "hf:some/model", "eomt-l-640"):
        with pytest.raises(WeightsError, match=r"needs transformers: pip install 'occpipe\[hf\]'"):
            identities(load_config("local", [f"segmenter.model={model}"]))
    check_models(load_config())


def test_a_missing_peer_is_known_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"pypatchmatch needs patchmatch: pip install 'occpipe\[peers\]'"):
        check_models(load_config("local", ["inpainter.model=pypatchmatch"]))


def test_the_mark_says_whether_a_trained_model_filled() -> None:
    trained, plain = SourceType.COMPOSITE_WITH_TRAINED, SourceType.COMPOSITE
    for model, kind in (("starter", trained), ("big-lama", trained), ("telea", plain), ("pypatchmatch", plain)):
        assert source_type(load_config("local", [f"inpainter.model={model}"])) is kind
    assert source_type(load_config("local", ["output.mark=none"])) is SourceType.NONE


def test_a_config_that_is_no_json(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "model", [])
    (folder / "config.json").write_text("[")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        check_models(load_config("local", [f"segmenter.model=hf:{folder}"]))


def test_what_a_config_needs() -> None:
    assert [weight.name for weight in needed(load_config("gpu"))] == ["eomt-l-640", "big-lama", "starter-relations"]
    starters = ["starter-segmenter", "starter-inpainter", "starter-relations"]
    assert [weight.name for weight in needed(load_config())] == starters


def test_fetch_without_names_takes_those_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(weight: weights.ModelEntry, settings: object) -> Path:
        asked.append((weight.name, getattr(settings, "dir", None)))
        return tmp_path

    monkeypatch.setattr(weights, "fetch", fetch)
    config = tmp_path / "mine.yaml"
    config.write_text("segmenter: {model: eomt-l-640}\nweights: {dir: s3://bucket/weights}\n")
    done = CliRunner().invoke(app, ["models", "fetch", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert asked == [(name, "s3://bucket/weights") for name in ("eomt-l-640", "starter-inpainter", "starter-relations")]
    asked.clear()
    CliRunner().invoke(app, ["models", "fetch", "big-lama", "-c", str(config)])
    assert asked == [("big-lama", "s3://bucket/weights")]


def test_the_command_in_the_gpu_config_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "configs" / "gpu.yaml").read_text()
    command = text.partition("Fetch the weights first: ")[2].partition(". ")[0].split()
    asked = []
    monkeypatch.setattr(weights, "fetch", lambda weight, settings: asked.append(weight.name))
    assert command[0] == "occpipe"
    assert CliRunner().invoke(app, command[1:]).exit_code == 0
    assert asked == ["eomt-l-640", "big-lama", "starter-relations"]


def test_list_reads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "occpipe" / "weights").mkdir(parents=True)
    (tmp_path / "occpipe" / "weights" / "big-lama.pt").write_bytes(b"not verified by a list")

    def refuse(*_: object) -> None:
        raise AssertionError("a list is cheap")

    for name in ("_digest", "open_store"):
        monkeypatch.setattr(weights, name, refuse)
    done = CliRunner().invoke(app, ["models", "list", "-s", "weights.dir=s3://bucket/weights"])
    assert done.exit_code == 0, done.output
    here = {line.split("│")[1].strip(): line.split("│")[5].strip() for line in done.output.splitlines() if "│" in line}
    assert here["big-lama"] == here["starter-segmenter"] == "yes"
    assert here["eomt-l-640"] == here["migan-512"] == "no"


def test_verify_claims_no_more_than_it_does() -> None:
    done = CliRunner().invoke(app, ["models", "verify"])
    assert done.output.count("; no published checksum to compare") == 3
