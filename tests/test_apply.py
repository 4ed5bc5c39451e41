"""Deciding again, stage by stage without Ray; the whole of it runs in test_pipeline.py and in tests/chaos."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from occpipe.apply import APPLY_CHAIN, apply_corpus
from occpipe.cli import app
from occpipe.config import Config
from occpipe.config_file import load_config
from occpipe.dry_run import Forecast, forecast
from occpipe.errors import ConfigError, StorageError
from occpipe.images import Limits, decode
from occpipe.inpainters import Inpainter
from occpipe.inpainters.opencv import OpenCvInpainter
from occpipe.ledger import part_keys, read_parquet, write_part
from occpipe.masks import Rle
from occpipe.published import Published
from occpipe.scan_settings import settings_for
from occpipe.schemas import MANIFEST, PUBLISHED
from occpipe.stages.discover import image_id
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.publish import publish
from occpipe.stages.recall import Recall
from occpipe.stages.refetch import Refetch
from occpipe.stages.relate import Relate
from occpipe.stages.reuse import Reuse, base_of
from occpipe.stages.sink import Sink
from occpipe.storage import open_store
from occpipe.types import Mask
from occpipe.verdicts import Review
from occpipe.versions import FIRST, Origin
from tests.published import publish_scan, seen_row
from tests.scenes import encoded, photo
from tests.stages import keep_to_declarations

SIZE = (120, 160)
SETTINGS = ("inpainter.model=telea", "policy.max_area=1", "ray.address='10.0.0.1:6379'", "output.retry=errors")


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
    """The chain as `apply_corpus` builds it."""
    found = [base_of(Published(uri), config, [], scan.manifest["input"]) for uri in bases]
    decide = Relate(config, lambda: review.verdicts, review.digest(config)) if review else Relate(config)
    return [
        Recall(scan.by_id, config.corpus.max_pixels),
        decide,
        Reuse(tuple(base for base in found if base), config.policy, 2),
        Refetch(scan.manifest["input"], config.corpus, config.output.unchanged, 2),
        InpaintStage(config, Inpainter(OpenCvInpainter())),
        Sink(str(output), "images", 1, config.output.unchanged, 2),
    ]


def decided(
    scan: Published, output: Path, config: Config, review: Review | None = None, *bases: str
) -> dict[str, dict[str, Any]]:
    """The rows of an apply that is run in this process, by URI; `copied` says which pictures were."""
    batch = pa.concat_tables(scan.tables(MANIFEST.names))
    for stage in stages(scan, output, config, review, *bases):
        batch = stage(batch)
    copied = {uri for uri, made in zip(*(batch.column(n).to_pylist() for n in ("uri", "copied")), strict=True) if made}
    store = open_store(str(output))
    (part,) = part_keys(store)
    rows = {row["uri"]: row for row in read_parquet(store, part).to_pylist()}
    return {uri: row | {"copied": uri in copied} for uri, row in rows.items()}


def published(output: Path, config: Config, root: str) -> str:
    """Publish what `decided` has left."""
    publish(open_store(str(output)), config, [], root, FIRST, Origin("apply", "s"))
    return str(output)


def reasons(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["verdict"], item["reason"]) for item in row["objects"]]


def review(tmp_path: Path, *lines: str) -> Review:
    table = tmp_path / "verdicts.csv"
    table.write_text("\n".join(["image,object,verdict,grade,rater", *lines]) + "\n")
    return Review.read(table)


def test_stages_keep_to_their_declarations(scan: Published, tmp_path: Path) -> None:
    config = settings_for(scan, overrides=["policy.remove=[cat]"])
    batch = pa.concat_tables(scan.tables(MANIFEST.names))
    chain = stages(scan, tmp_path / "out", config)
    assert [type(stage) for stage in chain] == list(APPLY_CHAIN)
    batch = keep_to_declarations(chain[:-1], batch)
    assert batch.column("status").to_pylist().count("cleaned") == 3


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
    (photos / "1.jpg").write_bytes((photos / "1.jpg").read_bytes())  # the same size, written at another time
    (photos / "2.jpg").unlink()
    for settings in (["policy.remove=[cat]"], []):  # to be filled, and to be copied as unchanged
        output = tmp_path / f"out{len(settings)}"
        rows = decided(scan, output, settings_for(scan, overrides=settings))
        assert [rows[f"{n}.jpg"]["reason"] for n in range(4)] == ["source_changed"] * 2 + ["missing", "truncated"]
        assert (
            rows["0.jpg"]["error"]["message"]
            == f"it has {len(data) + 1} bytes, and had {len(data)} when it was scanned"
        )
        assert "its tag is" in rows["1.jpg"]["error"]["message"]
        assert not (output / "images").exists()
    skipped = decided(scan, tmp_path / "skip", settings_for(scan, overrides=["output.unchanged=skip"]))
    assert skipped["0.jpg"]["status"] == "unchanged", "nothing of the photo is needed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"height": 100_000, "width": 100_000}, "too_many_pixels"),
        ({"height": -1, "width": -1000}, "too_many_pixels"),
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


def test_a_row_under_the_id_of_another_ends_alone(photos: Path, tmp_path: Path) -> None:
    rows = [seen_row(photos, f"{n}.jpg", [CAT]) for n in range(2)]
    rows[0]["image_id"] += 1
    scan = publish_scan(tmp_path / "scanned", photos, rows, *SETTINGS)
    entries = [[image_id(f"{n}.jpg"), f"{n}.jpg", row["size"], row["etag"]] for n, row in enumerate(rows)]
    batch = pa.table([pa.array(column) for column in zip(*entries, strict=True)], schema=MANIFEST)
    recalled = Recall(scan.by_id, 10**6)(batch).to_pylist()
    assert [row["status"] for row in recalled] == ["error", None]
    assert recalled[0]["error"]["message"] == "the row of this name has the image_id of another one"
    assert len(recalled[1]["segments"]) == 1


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


def test_a_dry_run_reads_no_further_than_its_limit(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("occpipe.stages.publish.SLICE_ROWS", 2)
    rows = [seen_row(photos, f"{n}.jpg", [CAT]) for n in range(4)]
    scan = publish_scan(tmp_path / "scanned", photos, rows, *SETTINGS)
    _, second = scan.manifest["files"]
    (tmp_path / "scanned" / "metadata" / second["file"]).unlink()
    seen = Forecast()
    list(forecast(scan, settings_for(scan), None, seen, limit=2))
    assert seen.statuses.total() == 2


def test_a_dry_run_loads_no_ray(scan: Published, tmp_path: Path) -> None:
    command = ["apply", scan.uri, f"{tmp_path}/out", "--remove", "cat", "--dry-run"]
    code = (
        f"import sys; from occpipe.cli import app; app({command}, standalone_mode=False); print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "3 images would change" in done.stdout


def test_what_was_seen_stays_and_lists_grow(scan: Published, tmp_path: Path) -> None:
    config = settings_for(scan, overrides=["policy.cut=0.3"], more={"protect": ["dog"], "keep": ["cat", "cat"]})
    assert (config.policy.cut, config.policy.protect, config.policy.keep) == (0.3, ("person", "dog"), ("cat",))
    assert config.inpainter.model == "telea", "the scan's"
    assert config.ray.address is None, "that of a stranger would be told our code and read our photos"
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
    monkeypatch.setattr("occpipe.apply.run", lambda recipe, config, output_uri, **_: begun.append(output_uri))
    apply_corpus(listed.config, listed, f"{photos}/out")
    assert begun == [f"{photos}/out"]


def test_rows_are_found_by_id_over_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.stages.publish.SLICE_ROWS", 3)
    ids = [-(2**62), -5, -1, 0, 4, 9, 2**62]
    rows = [{"image_id": n, "uri": f"{n}.jpg", "status": "skipped", "config": "c"} for n in ids]
    store = open_store(str(tmp_path / "out"))
    write_part(store, 1, pa.Table.from_pylist([{n: r.get(n) for n in PUBLISHED.names} for r in rows], PUBLISHED))
    publish(store, load_config(), [], "in")
    found = Published(str(tmp_path / "out")).by_id
    assert len(found.files) == 3
    assert {key: row["uri"] for key, row in found(ids, ["uri"]).items()} == {n: f"{n}.jpg" for n in ids}
    assert found([-(2**63), -4, 5, 10, 2**63 - 1], ["uri"]) == {}
    assert found([], ["uri"]) == {}


def test_the_digest_of_a_scan_is_that_of_its_rows(scan: Published, photos: Path, tmp_path: Path) -> None:
    rows: Sequence[dict[str, Any]] = list(scan.rows())
    again = publish_scan(tmp_path / "again", photos, rows, *SETTINGS)
    fewer = publish_scan(tmp_path / "fewer", photos, rows[:2], *SETTINGS)
    assert again.digest == scan.digest != fewer.digest


def test_verdicts_are_known_by_the_bytes_of_their_table(tmp_path: Path) -> None:
    votes = review(tmp_path, "a.jpg,cat,keep")
    assert votes.sha256 == hashlib.sha256((tmp_path / "verdicts.csv").read_bytes()).hexdigest()
    stored = votes.store(open_store(str(tmp_path / "out")))
    assert stored()["a.jpg"] == [("cat", True)]
