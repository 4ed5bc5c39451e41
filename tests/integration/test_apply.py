"""Deciding again, stage by stage without Ray; the whole of it runs in test_pipeline.py and in tests/chaos."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from occpipe.cli.main import app
from occpipe.core.config import Config
from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError, StorageError
from occpipe.core.masks import Rle
from occpipe.core.schemas import MANIFEST, PIPELINE, PUBLISHED
from occpipe.core.types import Image, Mask, Segment, Segmentation
from occpipe.dataset.layout import Layout, manifest_key
from occpipe.dataset.manifest import image_id
from occpipe.dataset.parquet import to_parquet
from occpipe.dataset.reader import Published
from occpipe.dataset.shards import commit_shard, write_part
from occpipe.dataset.sums import write_sums
from occpipe.dataset.verdicts import Review
from occpipe.dataset.versions import Origin
from occpipe.io.images import Limits, decode
from occpipe.io.storage import open_store
from occpipe.models.inpainters import Inpainter
from occpipe.models.inpainters.opencv import OpenCvInpainter
from occpipe.pipeline.apply import apply_corpus
from occpipe.pipeline.dry_run import Forecast, forecast
from occpipe.pipeline.scan_settings import settings_for
from occpipe.stages.close_scan import CloseScan
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.load import Load
from occpipe.stages.load_detections import LoadDetections
from occpipe.stages.relate import Relate
from occpipe.stages.reuse_results import ReuseResults, base_of
from occpipe.stages.segment import SegmentStage
from occpipe.stages.write import Write
from tests.helpers.published import publish_scan, seen_row
from tests.helpers.scenes import encoded, photo
from tests.helpers.stages import keep_to_declarations

SIZE = (120, 160)
SETTINGS = (
    *("inpainter.model=telea", "policy.max_area=1", "ray.address='10.0.0.1:6379'", "output.retry=errors"),
    "storage.input.endpoint=https://stranger.example",
)


def box(top: int, left: int, height: int = 30, width: int = 40) -> Mask:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


ERROR = ("stage", "type", "message")
CAT, DOG, PERSON = ("cat", box(70, 10)), ("dog", box(20, 100)), ("person", box(60, 60))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos of 160 x 120."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rgb = photo("chelsea", 300)[: SIZE[0], : SIZE[1]]
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(encoded(np.roll(rgb, 7 * number, axis=1)))
    return folder


@pytest.fixture
def scan(photos: Path, tmp_path: Path) -> Published:
    """Of the first three, each with a cat, a dog and a person, but one could not be filled; the last one is no image."""
    rows = [seen_row(photos, f"{n}.jpg", [CAT, DOG, PERSON]) for n in range(3)]
    broken = {"stage": "segment", "type": "ImageError", "message": "cut off"}
    rows.append({**seen_row(photos, "3.jpg", []), "status": "error", "reason": "truncated", "error": broken})
    rows[2] |= {"status": "error", "reason": "stage_failed", "error": broken | {"stage": "inpaint"}}
    rows[3] |= {"objects": None, "stuff": None, "format": None, "width": None, "height": None, "removed": None}
    return publish_scan(tmp_path / "scanned", photos, rows, *SETTINGS)


def stages(scan: Published, output: Path, config: Config, review: Review | None = None, *bases: str) -> list[Any]:
    """The stages of an apply, in their order."""
    root = scan.manifest["input"]
    found = [base_of(Published(uri), config, [], root) for uri in bases]
    decide = Relate(config, lambda: review.verdicts, review.digest(config)) if review else Relate(config)
    return [
        LoadDetections(config.corpus.max_pixels),
        decide,
        ReuseResults(tuple(base for base in found if base), config.policy, 2),
        InpaintStage(config, root, Inpainter(OpenCvInpainter())),
        Write(root, str(output), "images", config.output.unchanged, 2),
    ]


def rows_of(scan: Published) -> pa.Table:
    """The rows of the only shard of a scan, as its reader gives them to the first stage."""
    rows = pa.concat_tables(scan.tables(PUBLISHED.names))
    places = {"shard": [0] * len(rows), "row": list(range(len(rows))), "earlier": [None] * len(rows)}
    for name, values in places.items():
        rows = rows.append_column(name, pa.array(values, PIPELINE[name]))
    return rows


def decided(
    scan: Published, output: Path, config: Config, review: Review | None = None, *bases: str
) -> dict[str, dict[str, Any]]:
    """The rows of an apply that is run in this process, by URI; `copied` says which pictures were."""
    batch = rows_of(scan)
    for stage in stages(scan, output, config, review, *bases):
        batch = stage(batch)
    store, table = open_store(str(output)), batch.select(PUBLISHED.names).cast(PUBLISHED)
    store.write(manifest_key(0), to_parquet(table.select(MANIFEST.names).cast(MANIFEST)))
    write_part(store, Layout(), 1, 0, 0, table)
    copied = batch.column("copied").to_pylist()
    return {row["uri"]: row | {"copied": bool(made)} for row, made in zip(table.to_pylist(), copied, strict=True)}


def published(output: Path, config: Config, root: str) -> str:
    """Publish what `decided` has left."""
    store = open_store(str(output))
    commit_shard(store, Layout(), 0)
    write_sums(store, config, [], root, origin=Origin("apply", "s"))
    return str(output)


def reasons(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["verdict"], item["reason"]) for item in row["objects"]]


def review(tmp_path: Path, *lines: str) -> Review:
    table = tmp_path / "verdicts.csv"
    table.write_text("\n".join(["image,object,verdict,grade,rater", *lines]) + "\n")
    return Review.read(table)


def test_stages_keep_to_their_declarations(scan: Published, tmp_path: Path) -> None:
    config = settings_for(scan, overrides=["policy.remove=[cat]"])
    batch = keep_to_declarations(stages(scan, tmp_path / "out", config), rows_of(scan))
    assert batch.column("status").to_pylist().count("cleaned") == 3
    assert {*batch.column_names} == {*PUBLISHED.names, "shard", "row", "copied"}


def test_a_removal_is_filled_and_what_had_ended_stays_so(scan: Published, photos: Path, tmp_path: Path) -> None:
    config = settings_for(scan, overrides=["policy.remove=[cat]"])
    rows = decided(scan, tmp_path / "out", config)
    before = {row["uri"]: row for row in scan.rows()}
    for uri in ("0.jpg", "1.jpg", "2.jpg"):
        assert rows[uri]["status"] == "cleaned"
        assert reasons(rows[uri]) == [
            ("remove", "removed_by_policy"),
            ("keep", "related"),
            ("keep", "kept_by_policy"),
        ]
        was, now = (decode((folder / uri).read_bytes(), Limits()) for folder in (photos, tmp_path / "out" / "images"))
        changed = np.abs(was.astype(int) - now).max(2) > 12
        assert changed[CAT[1] == 1].mean() > 0.2
        assert not changed[:40].any()
    assert {**before["3.jpg"], "config": config.digest, "copied": False} == rows["3.jpg"]


def test_verdicts_beat_the_policy_both_ways_and_a_tie_changes_nothing(scan: Published, tmp_path: Path) -> None:
    votes = review(
        tmp_path,
        *("0.jpg,cat,keep,,a", "0.jpg,1,remove,,a"),  # the dog by its place
        *("1.jpg,cat,keep,,a", "1.jpg,cat,remove,,b", "1.jpg,,,4,a"),  # a tie, and a grade
        *("2.jpg,person,remove,,a", "2.jpg,person,keep,,b", "2.jpg,person,remove,,c"),
        "9.jpg,cat,keep,,a",
    )
    config = settings_for(scan, overrides=["policy.remove=[cat]"])
    rows = decided(scan, tmp_path / "out", config, votes)
    by_policy = [("remove", "removed_by_policy"), ("keep", "related"), ("keep", "kept_by_policy")]
    assert reasons(rows["0.jpg"]) == [("keep", "kept_by_review"), ("remove", "removed_by_review"), by_policy[2]]
    assert reasons(rows["1.jpg"]) == by_policy
    assert reasons(rows["2.jpg"]) == [*by_policy[:2], ("remove", "removed_by_review")]
    filled = Rle(*SIZE, rows["2.jpg"]["mask"].encode())
    assert filled.area >= CAT[1].sum() + PERSON[1].sum(), "a protected person that people remove is filled whole"
    assert {row["config"] for row in rows.values()} == {votes.digest(config)} != {config.digest}


def test_a_scan_and_an_apply_are_a_clean(tmp_path: Path) -> None:
    """Rows and images, byte for byte, of photos that are larger than what the model sees, and of one that is none."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(encoded(np.roll(photo("chelsea", 420), 9 * number, axis=1)))
    (photos / "3.jpg").write_bytes(b"no photo")
    config = load_config("local", [*SETTINGS, "segmenter.decode_side=160", "policy.remove=[cat]"])

    def see(images: Sequence[Image]) -> list[Segmentation]:
        """A cat in the first two photos, a person beside it."""
        scenes: list[Segmentation] = []
        for image in images:
            height, width, _ = image.shape
            cat, person = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
            cat[30:60, 20:70], person[20:90, 74:100] = 1, 1
            segments = [Segment.from_mask("person", True, 0.95, person)]
            segments += [Segment.from_mask("cat", True, 0.9, cat)] * (len(scenes) < 2)
            scenes.append(Segmentation(height, width, tuple(segments), {"sea": 0.75}))
        return scenes

    listed = sorted(path.name for path in photos.iterdir())
    entries = [open_store(str(photos)).find(name) for name in listed]
    columns: dict[str, list[Any]] = {"uri": listed, "image_id": [image_id(name) for name in listed]}
    columns |= {"size": [e and e.size for e in entries], "etag": [e and e.etag for e in entries]}
    columns |= {"shard": [0] * 4, "row": [0, 1, 2, 3], "earlier": [None] * 4}
    manifest = pa.table({name: pa.array(values, PIPELINE[name]) for name, values in columns.items()})
    begin = [Load(str(photos), config.corpus, config.segmenter.decode_side, 2), SegmentStage(config, see)]
    fill = InpaintStage(config, str(photos), Inpainter(OpenCvInpainter()))
    write = Write(str(photos), str(tmp_path / "c"), "images", "copy", 2)
    clean = keep_to_declarations([*begin, Relate(config), fill, write], manifest)
    scan_rows = keep_to_declarations([*begin, Relate(config), CloseScan()], manifest)
    assert scan_rows.column("status").to_pylist() == ["scanned", "scanned", "unchanged", "error"]
    scan = publish_scan(tmp_path / "scanned", photos, scan_rows.select(PUBLISHED.names).to_pylist(), *SETTINGS)
    applied = decided(scan, tmp_path / "applied", config)
    rows = {row["uri"]: row for row in clean.select(PUBLISHED.names).to_pylist()}
    assert [row["status"] for row in rows.values()] == ["cleaned", "cleaned", "unchanged", "error"]
    assert {uri: {**row, "copied": False} for uri, row in rows.items()} == applied
    assert (rows["0.jpg"]["width"], rows["0.jpg"]["mask_width"]) == (420, 160)
    for name in listed[:3]:
        assert (tmp_path / "c/images" / name).read_bytes() == (tmp_path / "applied/images" / name).read_bytes()


def test_only_what_changed_is_filled_again(scan: Published, photos: Path, tmp_path: Path) -> None:
    config = settings_for(scan, overrides=["policy.remove=[cat]"])
    first = decided(scan, tmp_path / "first", config)
    base = published(tmp_path / "first", config, scan.manifest["input"])
    (photos / "0.jpg").unlink()  # what is copied needs no photo
    second = decided(scan, tmp_path / "second", config, review(tmp_path, "1.jpg,dog,remove"), base)
    assert [second[f"{n}.jpg"]["copied"] for n in range(4)] == [True, False, True, False]
    for uri in ("0.jpg", "2.jpg"):
        assert (tmp_path / "second/images" / uri).read_bytes() == (tmp_path / "first/images" / uri).read_bytes()
        assert {**second[uri], "config": 0, "copied": 0} == {**first[uri], "config": 0, "copied": 0}
    assert second["1.jpg"]["removed"] > first["1.jpg"]["removed"]


@pytest.mark.parametrize(
    ("change", "copies"),
    [
        ("policy.cut=0.05", True),
        ("policy.protect=[person,dog]", False),  # the dog's pixels are now out of reach
        ("policy.protect=[person,horse]", True),  # there is none
        ("inpainter.dilation=0.05", False),
        ("inpainter.model=navier-stokes", False),
        ("output.mark=none", False),
    ],
)
def test_a_picture_is_copied_only_where_its_fill_would_be_the_same(
    change: str, copies: bool, scan: Published, tmp_path: Path
) -> None:
    settings = ["policy.remove=[cat]"]
    before, now = (settings_for(scan, overrides=[*settings, *more]) for more in ((), (change,)))
    decided(scan, tmp_path / "first", before)
    base = published(tmp_path / "first", before, scan.manifest["input"])
    rows = decided(scan, tmp_path / "second", now, None, base)
    assert [row["copied"] for row in rows.values() if row["status"] == "cleaned"] == [copies] * 3
    assert base_of(Published(base), before, [], "elsewhere") is None
    assert base_of(scan, before, [], scan.manifest["input"]) is None, "a scan has no pictures"


def test_a_picture_that_is_damaged_is_made_again(scan: Published, tmp_path: Path) -> None:
    config = settings_for(scan, overrides=["policy.remove=[cat]"])
    first = decided(scan, tmp_path / "first", config)
    base = published(tmp_path / "first", config, scan.manifest["input"])
    (tmp_path / "first/images/0.jpg").write_bytes(b"other bytes")
    (tmp_path / "first/images/1.jpg").unlink()
    second = decided(scan, tmp_path / "second", config, None, base)
    assert [second[f"{n}.jpg"]["copied"] for n in range(3)] == [False, False, True]
    assert all(second[uri]["output_sha256"] == first[uri]["output_sha256"] for uri in second)


def test_another_photo_under_the_name_is_an_error_and_is_not_touched(
    scan: Published, photos: Path, tmp_path: Path
) -> None:
    data = (photos / "0.jpg").read_bytes()
    (photos / "0.jpg").write_bytes(data + b"\0")  # another size
    same_size = bytearray((photos / "1.jpg").read_bytes())
    same_size[-10] ^= 1
    (photos / "1.jpg").write_bytes(same_size)
    (photos / "2.jpg").unlink()
    for settings in (["policy.remove=[cat]"], []):  # to be filled, and to be copied as unchanged
        output = tmp_path / f"out{len(settings)}"
        rows = decided(scan, output, settings_for(scan, overrides=settings))
        assert [rows[f"{n}.jpg"]["reason"] for n in range(4)] == ["source_changed"] * 2 + ["missing", "truncated"]
        assert rows["0.jpg"]["error"]["message"] == f"it had {len(data)} bytes when it was seen, and has more"
        assert rows["1.jpg"]["error"]["message"] == "its bytes are not those that were seen"
        assert not [path for path in (output / "images").rglob("*") if path.is_file()]
    skipped = decided(scan, tmp_path / "skip", settings_for(scan, overrides=["output.unchanged=skip"]))
    assert skipped["0.jpg"]["status"] == "unchanged", "nothing of the photo is needed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"height": 100_000, "width": 100_000}, "too_many_pixels"),
        ({"height": -1, "width": -1000}, "too_many_pixels"),
        ({"mask_height": 60}, "stage_failed"),
        ({"mask_height": 100_000, "mask_width": 100_000}, "too_many_pixels"),
        ({"mask_width": 0}, "too_many_pixels"),
        ({"mask_height": None}, "stage_failed"),
        ({"size": None}, "stage_failed"),
        ({"height": 60}, "stage_failed"),
        ({"uri": "../outside.jpg"}, "unsafe_path"),
        ({"uri": "../../x", "objects": None}, "unsafe_path"),
        ({"uri": "../../x", "objects": None, "status": "unchanged"}, "unsafe_path"),
        ({"objects": None, "status": "cleaned"}, "stage_failed"),
        ({"objects": None, "status": "error", "reason": "truncated"}, "stage_failed"),
        ({"objects": None, "status": "error", "reason": "made up", "error": dict.fromkeys(ERROR, "x")}, "stage_failed"),
        ({"mask": "0"}, "stage_failed"),
        ({"mask": "zzzz"}, "stage_failed"),
        ({"mask": "é"}, "stage_failed"),
    ],
)
def test_rows_of_strangers_end_as_error_rows(
    changes: dict[str, Any], reason: str, photos: Path, tmp_path: Path
) -> None:
    row = seen_row(photos, "0.jpg", [CAT])
    if "mask" in changes:
        row["objects"][0]["mask"] = changes["mask"]
    else:
        row |= changes
        row["image_id"] = image_id(row["uri"])
    scan = publish_scan(tmp_path / "scanned", photos, [row], *SETTINGS)
    rows = decided(scan, tmp_path / "a" / "out", settings_for(scan, overrides=["policy.remove=[cat]"]))
    (row,) = rows.values()
    assert (row["status"], row["reason"]) == ("error", reason)
    assert not (tmp_path / "a" / "out" / "images").exists()
    assert not (tmp_path / "a" / "x").exists()


def test_the_same_bytes_under_another_tag_are_the_same_photo(scan: Published, photos: Path, tmp_path: Path) -> None:
    for path in photos.iterdir():
        os.utime(path, (1, 1))
    for settings, status in ((["policy.remove=[cat]"], "cleaned"), ([], "unchanged")):
        rows = decided(scan, tmp_path / status, settings_for(scan, overrides=settings))
        assert [rows[f"{n}.jpg"]["status"] for n in range(4)] == [status] * 3 + ["error"]
    assert (tmp_path / "unchanged/images/0.jpg").read_bytes() == (photos / "0.jpg").read_bytes()


def test_a_row_without_a_hash_is_known_by_its_tag(photos: Path, tmp_path: Path) -> None:
    rows = [seen_row(photos, f"{n}.jpg", [CAT]) | {"sha256": None} for n in range(2)]
    scan = publish_scan(tmp_path / "scanned", photos, rows, *SETTINGS)
    os.utime(photos / "1.jpg", (1, 1))
    for settings, status in ((["policy.remove=[cat]"], "cleaned"), ([], "unchanged")):
        made = decided(scan, tmp_path / status, settings_for(scan, overrides=settings))
        assert (made["0.jpg"]["status"], made["1.jpg"]["reason"]) == (status, "source_changed")
        assert "its tag is" in made["1.jpg"]["error"]["message"]
    data = (photos / "0.jpg").read_bytes()
    assert made["0.jpg"]["output_sha256"] == hashlib.sha256(data).hexdigest()


def test_rows_of_equal_ids_are_decided_each_for_itself(photos: Path, tmp_path: Path) -> None:
    rows = [seen_row(photos, f"{n}.jpg", things) | {"image_id": 7} for n, things in enumerate(([CAT], [DOG]))]
    scan = publish_scan(tmp_path / "scanned", photos, rows, *SETTINGS)
    config = settings_for(scan, overrides=["policy.remove=[cat,dog]"])
    first = decided(scan, tmp_path / "first", config)
    assert [[item["label"] for item in row["objects"]] for row in first.values()] == [["cat"], ["dog"]]
    base = published(tmp_path / "first", config, scan.manifest["input"])
    second = decided(scan, tmp_path / "second", config, None, base)
    assert [row["copied"] for row in second.values()] == [True, True]
    assert [row["output_sha256"] for row in second.values()] == [row["output_sha256"] for row in first.values()]


def test_a_dry_run_says_what_apply_would_do(scan: Published, tmp_path: Path) -> None:
    votes = review(tmp_path, "1.jpg,dog,remove", "1.jpg,cat,keep", "9.jpg,cat,keep")
    config = settings_for(scan, overrides=["policy.remove=[cat]"])
    seen = Forecast()
    images = list(forecast(scan, config, votes, seen))
    rows = decided(scan, tmp_path / "out", config, votes)
    assert {image["uri"]: image["status"] for image in images} == {
        uri: row["status"] for uri, row in rows.items() if row["status"] == "cleaned"
    }
    (dog,) = next(image["things"] for image in images if image["uri"] == "1.jpg")
    assert (dog["object"], dog["label"], dog["verdict"], dog["reason"]) == (1, "dog", "remove", "removed_by_review")
    assert dog["was"] == {"verdict": "keep", "reason": "no_context", "relation": None}
    assert seen.statuses == {"cleaned": 3, "error": 1}
    assert seen.changed == 3
    assert seen.things == {
        ("cat", "no_context", "remove", "removed_by_policy"): 2,
        ("dog", "no_context", "remove", "removed_by_review"): 1,
    }
    assert seen.missed == ["9.jpg, cat"]
    first = Forecast()
    assert len(list(forecast(scan, config, votes, first, limit=1))) <= 1
    assert first.statuses.total() == 1
    assert first.missed == [], "who has looked at one image cannot tell"
    base = Published(published(tmp_path / "out", config, scan.manifest["input"]))
    assert list(forecast(base, config, votes, Forecast())) == [], "that is what it is"
    near = settings_for(scan, overrides=["policy.remove=[cat]", "inpainter.dilation=0.2"])
    assert [image["things"] for image in forecast(base, near, votes, Forecast())] == [[], [], []], "larger masks"


def test_the_dry_run_of_the_command_writes_nothing_and_reads_no_image(
    scan: Published, photos: Path, tmp_path: Path
) -> None:
    review(tmp_path, "1.jpg,dog,remove")
    for path in photos.iterdir():
        path.unlink()
    before = sorted(path for path in tmp_path.rglob("*"))
    wrong = CliRunner().invoke(app, ["apply", scan.uri, f"{tmp_path}/out", "--json"]).exception
    assert isinstance(wrong, ConfigError)
    assert str(wrong) == "--json needs --dry-run"
    command = ["apply", scan.uri, f"{tmp_path}/out", "--remove", "cat", "--dry-run"]
    command += ["--verdicts", f"{tmp_path}/verdicts.csv"]
    shown = CliRunner().invoke(app, command)
    assert "3 images would change; then 3 cleaned, 1 error" in " ".join(shown.stdout.split()), shown.output
    *images, totals = map(json.loads, CliRunner().invoke(app, [*command, "--json"]).stdout.splitlines())
    assert {image["uri"] for image in images} == {"0.jpg", "1.jpg", "2.jpg"}
    assert totals["totals"]["status"] == {"cleaned": 3, "unchanged": 0, "skipped": 0, "error": 1}
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_dry_run_reads_no_further_than_its_limit(photos: Path, tmp_path: Path) -> None:
    rows = [seen_row(photos, f"{n}.jpg", [CAT]) for n in range(4)]
    scan = publish_scan(tmp_path / "scanned", photos, rows, *SETTINGS, shard_images=2)
    _, second = scan.files
    (tmp_path / "scanned" / "metadata" / second.name).unlink()
    seen = Forecast()
    list(forecast(scan, settings_for(scan), None, seen, limit=2))
    assert seen.statuses.total() == 2


def test_a_dry_run_loads_no_ray(scan: Published, tmp_path: Path) -> None:
    command = ["apply", scan.uri, f"{tmp_path}/out", "--remove", "cat", "--dry-run"]
    code = f"import sys; from occpipe.cli.main import app; app({command}, standalone_mode=False)"
    code += "; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "3 images would change" in done.stdout


def test_what_was_seen_stays_and_lists_grow(scan: Published, tmp_path: Path) -> None:
    config = settings_for(scan, overrides=["policy.cut=0.3"], more={"protect": ["dog"], "keep": ["cat", "cat"]})
    assert (config.policy.cut, config.policy.protect, config.policy.keep) == (0.3, ("person", "dog"), ("cat",))
    assert config.inpainter.model == "telea", "the scan's"
    assert config.ray.address is None, "that of a stranger would be told our code and read our photos"
    assert config.storage == load_config().storage, "that of a stranger would be told how we sign"
    assert settings_for(scan, "gpu").inpainter.model == "big-lama"
    assert settings_for(scan, "gpu").segmenter == scan.config.segmenter
    assert config.output.retry == "none"
    for override in ("segmenter.decode_side=512", "corpus.min_side=8"):
        with pytest.raises(ConfigError, match="are those of the scan"):
            settings_for(scan, overrides=[override])
    with pytest.raises(ConfigError, match="both kept and removed: person"):
        settings_for(scan, more={"remove": ["person"]})
    with pytest.raises(ConfigError, match="did you mean person"):
        settings_for(scan, more={"protect": ["persn"]})


def test_an_output_may_lie_neither_over_the_photos_nor_over_the_scan(scan: Published, photos: Path) -> None:
    with pytest.raises(StorageError, match="over its own input"):
        apply_corpus(load_config(), scan, str(photos))
    with pytest.raises(StorageError, match="choose another output"):
        apply_corpus(load_config(), scan, scan.uri)
    with pytest.raises(StorageError, match="lies inside the input"):
        apply_corpus(load_config(), scan, f"{photos}/out")
    assert sorted(path.name for path in photos.iterdir()) == [f"{n}.jpg" for n in range(4)]


def test_the_output_of_a_list_may_lie_beside_it(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [seen_row(photos, f"{n}.jpg", [CAT]) | {"etag": ""} for n in range(2)]
    listed = publish_scan(tmp_path / "scanned", photos, rows, *SETTINGS)
    begun: list[str] = []
    monkeypatch.setattr("occpipe.pipeline.apply.run", lambda job, **_: begun.append(job.output))
    apply_corpus(listed.config, listed, f"{photos}/out")
    assert begun == [f"{photos}/out"]


def test_the_digest_of_a_scan_is_that_of_its_rows(scan: Published, photos: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{**row} for row in scan.rows()]
    again = publish_scan(tmp_path / "again", photos, rows, *SETTINGS)
    fewer = publish_scan(tmp_path / "fewer", photos, rows[:2], *SETTINGS)
    assert again.digest == scan.digest != fewer.digest


def test_verdicts_are_known_by_the_bytes_of_their_table(tmp_path: Path) -> None:
    votes = review(tmp_path, "a.jpg,cat,keep")
    assert votes.sha256 == hashlib.sha256((tmp_path / "verdicts.csv").read_bytes()).hexdigest()
    stored = votes.store(open_store(str(tmp_path / "out")))
    assert stored()["a.jpg"] == [("cat", True)]
