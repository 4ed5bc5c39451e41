"""The whole job on a real Ray, with the starter models, over photos, composed scenes and broken files."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from jobs.make_demo import photos, scenes
from occpipe.core.config_file import load_config
from occpipe.core.errors import CapacityError, ConfigError, RunError, StorageError
from occpipe.dataset.layout import METADATA, SUMS
from occpipe.dataset.reader import Published
from occpipe.dataset.verdicts import Review
from occpipe.io.storage import open_store
from occpipe.pipeline.apply import apply_corpus
from occpipe.pipeline.job import corpus_job
from occpipe.pipeline.monitoring.run_result import RunResult
from occpipe.pipeline.run import clean_corpus, scan_corpus
from occpipe.pipeline.scan_settings import settings_for
from occpipe.pipeline.units import Unit
from tests.helpers.s3 import KEY, SECRET, s3_environment, s3_server
from tests.helpers.scenes import encoded, gradient, moving
from tests.helpers.stages import keep_to_declarations
from tests.hostile.files import hostile_files
from tests.unit.io.test_images import png_claiming, sixteen_bit_png, with_mode

pytestmark = pytest.mark.usefixtures("ray_cluster")

BAD = {
    "zero.jpg": (b"", "error", "empty_file"),
    "truncated.jpg": (encoded(gradient(300, 400))[:2000], "error", "truncated"),
    "text.jpg": (b"not a picture", "error", "not_an_image"),
    "one pixel.png": (encoded(gradient(1, 1), "PNG"), "skipped", "too_small"),
    "moving.webp": (moving("WEBP"), "skipped", "multiple_frames"),
    "print.jpg": (with_mode("CMYK", "JPEG"), "skipped", "colour_model"),
    "deep.png": (sixteen_bit_png(), "skipped", "bit_depth"),
    "bomb.png": (png_claiming(30_000, 30_000), "error", "too_many_pixels"),
    "large.bmp": (encoded(gradient(1200, 1200), "BMP"), "error", "too_many_bytes"),
}
GOOD = ("with space.jpg", "100%25.jpg", "Zürich/猫.jpg", "a..b.jpg", "#1?.jpg")


def rows_of(output: str) -> dict[str, dict[str, Any]]:
    store = open_store(output)
    rows = []
    for entry in store.walk(METADATA):
        if entry.key.endswith(".parquet"):
            rows += pq.read_table(io.BytesIO(store.read(entry.key))).to_pylist()
    found = {row["uri"]: row for row in rows}
    assert len(found) == len(rows), "one row an image"
    return found


BOLD = load_config("local", ["policy.cut=0.24"])  # as `make demo`: 5% of what belongs would go


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    for name, rgb in (*photos(), *scenes()):
        Pil.fromarray(rgb).save(folder / f"{name}.jpg", quality=92)
    return folder


@pytest.fixture(scope="module")
def cleaned(demo: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Path, RunResult]:
    output = tmp_path_factory.mktemp("cleaned") / "out"
    return output, clean_corpus(BOLD, str(demo), str(output))


def test_each_photo_has_one_row_and_its_image(demo: Path, cleaned: tuple[Path, RunResult]) -> None:
    output, summary = cleaned
    rows = rows_of(str(output))
    assert rows.keys() == {path.name for path in demo.iterdir()}
    assert summary.statuses.total() == summary.manifest["images"] == len(rows)
    for uri, row in rows.items():
        assert row["status"] in ("cleaned", "unchanged"), (uri, row["error"])
        with Pil.open(demo / uri) as before, Pil.open(output / row["output"]) as after:
            assert (after.size, after.format) == (before.size, before.format) == ((row["width"], row["height"]), "JPEG")
        if row["status"] == "unchanged":
            assert (output / row["output"]).read_bytes() == (demo / uri).read_bytes()


def test_the_cat_at_the_palace_is_removed_and_the_palace_is_not(demo: Path, cleaned: tuple[Path, RunResult]) -> None:
    output, _ = cleaned
    row = rows_of(str(output))["cat_at_the_palace.jpg"]
    removed = [item for item in row["objects"] if item["verdict"] == "remove"]
    assert [item["label"] for item in removed] == ["cat"]
    assert removed[0]["reason"] == "unrelated"
    assert len(removed[0]["evidence"]) >= 2
    before = np.asarray(Pil.open(demo / "cat_at_the_palace.jpg")).astype(int)
    after = np.asarray(Pil.open(output / row["output"])).astype(int)
    changed = np.abs(after - before).max(axis=2)
    assert changed[300:, :150].mean() > 20, "the cat's corner is another picture"
    assert changed[:200, 300:].mean() < 3, "the sky is as it was, but for the encoder"


def test_the_same_cat_belongs_in_the_garage(cleaned: tuple[Path, RunResult]) -> None:
    rows = rows_of(str(cleaned[0]))
    (cat,) = (item for item in rows["cat_in_the_garage.jpg"]["objects"] if item["label"] == "cat")
    assert (cat["verdict"], cat["reason"]) == ("keep", "related")
    (cat,) = (item for item in rows["cat_in_the_trees.jpg"]["objects"] if item["label"] == "cat")
    assert (cat["verdict"], cat["reason"]) == ("remove", "unrelated")


def test_a_protected_person_stays(cleaned: tuple[Path, RunResult]) -> None:
    rows = rows_of(str(cleaned[0]))
    people = [item for row in rows.values() for item in row["objects"] if item["label"] == "person"]
    assert people
    assert {item["reason"] for item in people} == {"kept_by_policy"}


def test_others_read_the_parquet_without_us(cleaned: tuple[Path, RunResult]) -> None:
    metadata = cleaned[0] / "metadata"
    frame = pd.read_parquet(metadata)
    assert {"image_id", "uri", "status", "reason", "width", "height", "objects"} <= {*frame.columns}
    assert len(frame) == 13
    query = f"SELECT o.label, count(*) FROM (SELECT unnest(objects) AS o FROM '{metadata}/*.parquet') GROUP BY 1"  # noqa: S608
    with duckdb.connect() as database:
        counts = dict(database.execute(query).fetchall())
    assert counts["cat"] >= 2


def test_a_second_run_does_nothing(demo: Path, cleaned: tuple[Path, RunResult]) -> None:
    output, _ = cleaned
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.jpg")}
    again = clean_corpus(BOLD, str(demo), str(output))
    assert (again.statuses.total(), again.done_before) == (0, 13)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.jpg")} == before


def test_apply_after_scan_is_clean(demo: Path, cleaned: tuple[Path, RunResult], tmp_path: Path) -> None:
    """Byte for byte, and without a segmenter: it would have to be loaded to a GPU that is not there."""
    summary = scan_corpus(BOLD, str(demo), str(tmp_path / "scanned"))
    statuses = dict(cleaned[1].statuses)
    assert summary.statuses == {"scanned": statuses.pop("cleaned"), **statuses}
    assert {path.name for path in (tmp_path / "scanned").iterdir()} == {"manifest", "metadata", "state"}
    manifest = tmp_path / "scanned" / "metadata" / "_manifest.json"
    nowhere = json.loads(manifest.read_bytes())
    nowhere["config"]["segmenter"]["device"] = "cuda:7"
    manifest.write_text(json.dumps(nowhere))
    scan, output = Published(str(tmp_path / "scanned")), tmp_path / "out"
    assert scan.config.digest == BOLD.digest
    applied = apply_corpus(settings_for(scan), scan, str(output))
    assert (applied.statuses, applied.counts.copied) == (cleaned[1].statuses, 0)
    assert rows_of(str(output)) == rows_of(str(cleaned[0]))
    assert applied.manifest["models"] == cleaned[1].manifest["models"]
    for row in rows_of(str(output)).values():
        assert (output / row["output"]).read_bytes() == (cleaned[0] / row["output"]).read_bytes()


def test_a_review_of_a_clean_inpaints_what_it_changes_and_copies_the_rest(
    demo: Path, cleaned: tuple[Path, RunResult], tmp_path: Path
) -> None:
    before, output, table = Published(str(cleaned[0])), tmp_path / "out", tmp_path / "verdicts.csv"
    table.write_text("image,object,verdict\ncat_at_the_palace.jpg,cat,keep\ncat_in_the_garage.jpg,cat,remove\n")
    config = settings_for(before)
    summary = apply_corpus(config, before, str(output), Review.read(table))
    assert summary.counts.copied == summary.statuses["cleaned"] - 1 == cleaned[1].statuses["cleaned"] - 1 > 0
    rows, old = rows_of(str(output)), rows_of(str(cleaned[0]))
    assert rows["cat_at_the_palace.jpg"]["status"] == "unchanged"
    assert (output / "images/cat_at_the_palace.jpg").read_bytes() == (demo / "cat_at_the_palace.jpg").read_bytes()
    (cat,) = (item for item in rows["cat_in_the_garage.jpg"]["objects"] if item["label"] == "cat")
    assert (cat["verdict"], cat["reason"]) == ("remove", "removed_by_review")
    for uri in rows.keys() - {"cat_at_the_palace.jpg", "cat_in_the_garage.jpg"}:
        assert {**rows[uri], "config": ""} == {**old[uri], "config": ""}
    assert apply_corpus(config, before, str(output), Review.read(table)).statuses.total() == 0
    for other, what in ((None, "verdicts"), (Review({}, "0"), "verdicts")):
        with pytest.raises(ConfigError, match=f"made with another {what}.*--new-version"):
            apply_corpus(config, before, str(output), other)
    with pytest.raises(ConfigError, match="made with another command"):
        clean_corpus(BOLD, str(demo), str(output))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "in"
    for name, (data, _, _) in BAD.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    exif = Pil.Exif()
    exif[0x0112] = 6
    for name in GOOD:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(gradient(80, 120), "JPEG", exif=exif.tobytes()))
    listed = [*BAD, *GOOD, "vanished.jpg", "../outside.jpg", "x/../../outside.jpg"]
    (folder.parent / "outside.jpg").write_bytes(encoded(gradient()))
    (folder / "list.txt").write_text("\n".join(listed))
    return folder


def test_bad_input_gets_a_row_with_its_reason(hostile: Path, tmp_path: Path) -> None:
    output = tmp_path / "a" / "out"
    summary = clean_corpus(load_config("local", ["corpus.max_bytes=1000000"]), f"{hostile}/list.txt", str(output))
    rows = rows_of(str(output))
    for name, (_, status, reason) in BAD.items():
        assert (rows[name]["status"], rows[name]["reason"]) == (status, reason), name
        assert rows[name]["error"]["message"]
        assert rows[name]["output"] is None
        assert not (output / "images" / name).exists(), "an original is never written as cleaned"
    for name in GOOD:
        assert rows[name]["status"] == "unchanged"
        assert (rows[name]["width"], rows[name]["height"]) == (80, 120), "upright size"
        assert (output / "images" / name).exists()
    assert rows["vanished.jpg"]["reason"] == "missing"
    assert rows["../outside.jpg"]["reason"] == rows["x/../../outside.jpg"]["reason"] == "unsafe_path"
    assert summary.statuses["error"] == 8
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_error_rows_run_again_when_asked(hostile: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(hostile, source)
    output = tmp_path / "out"
    assert clean_corpus(load_config(), f"{source}/*.jpg", str(output)).statuses["error"] == 3
    assert clean_corpus(load_config(), f"{source}/*.jpg", str(output)).statuses.total() == 0
    retried = clean_corpus(load_config("local", ["output.retry=errors"]), f"{source}/*.jpg", str(output))
    assert retried.statuses == {"error": 3}
    assert retried.examples["empty_file"] == "zero.jpg: the file has no bytes"
    (source / "zero.jpg").write_bytes(encoded(gradient()))  # mended: a new size, so a new tag
    mended = clean_corpus(load_config(), f"{source}/*.jpg", str(output))
    assert mended.statuses == {"unchanged": 1}
    assert rows_of(str(output))["zero.jpg"]["status"] == "unchanged"


def test_each_hostile_file_has_a_row_and_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    files = dict(list(hostile_files().items())[::3])  # all of them are read in test_hostile.py
    assert len(files) > 240
    for name, data in files.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    config = load_config("local", ["corpus.hidden=true"])  # one of the names begins with a dot
    summary = clean_corpus(config, str(tmp_path / "in"), str(tmp_path / "out"))
    rows = rows_of(str(tmp_path / "out"))
    assert rows.keys() == files.keys()
    assert summary.statuses.keys() == {"unchanged", "skipped", "error"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images", "manifest", "metadata", "state"]
    inside = {path.relative_to(tmp_path / "in").as_posix() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    assert inside == files.keys()
    for name, data in files.items():
        assert (tmp_path / "in" / name).read_bytes() == data


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.jxl").write_bytes(b"another format")
    with pytest.raises(StorageError, match="no image there"):
        clean_corpus(load_config(), str(tmp_path / "in"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_older_version_stays_published_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(encoded(gradient(64, 96 + number)))
    corpus, output = str(tmp_path / "in"), str(tmp_path / "out")
    first = clean_corpus(load_config(), corpus, output, limit=1)
    assert (first.manifest["version"], first.manifest["images"]) == (1, 1)
    part = clean_corpus(BOLD, corpus, output, limit=2, new_version=True)
    assert part.statuses.total() == 2
    assert part.manifest == first.manifest, "two of three are made, and one of the older version is still published"
    whole = clean_corpus(BOLD, corpus, output)
    assert whole.statuses.total() == 1
    assert (whole.manifest["version"], whole.manifest["images"]) == (2, 3)
    assert {row["output"].split("/")[0] for row in rows_of(output).values()} == {"images.v2"}


def test_a_run_that_is_told_to_stop_says_so_and_the_next_goes_on(demo: Path, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    summary = clean_corpus(load_config(), str(demo), str(tmp_path / "out"), stop=stop)
    assert summary.stopped
    left = len(list(demo.iterdir())) - summary.statuses.total()
    assert left > 0
    assert clean_corpus(load_config(), str(demo), str(tmp_path / "out")).statuses.total() == left


def test_unchanged_images_can_be_left_out(hostile: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    clean_corpus(load_config("local", ["output.unchanged=skip"]), f"{hostile}/Zürich", str(output))
    row = rows_of(str(output))["猫.jpg"]
    assert (row["status"], row["output"]) == ("unchanged", None)
    assert not (output / "images").exists()


def test_too_small_a_cluster_is_said_at_once(demo: Path, tmp_path: Path) -> None:
    greedy = load_config("local", ["placement.segment.num_gpus=2", "placement.segment.num_cpus=0.5"])
    with pytest.raises(CapacityError, match=r"at least 2 GPUs \(segment 1 x 2, inpaint 1 x 0\), the cluster has 0"):
        clean_corpus(greedy, str(demo), str(tmp_path / "out"))


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real S3 server on loopback over a folder whose sub-folders are its buckets."""
    root = tmp_path / "s3"
    (root / "bucket").mkdir(parents=True)
    with s3_server(root) as address:
        for name, value in s3_environment(address).items():
            monkeypatch.setenv(name, value)
        yield root


def comparable(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows without the tag that each store gives in its own way."""
    return {uri: {key: value for key, value in row.items() if key != "etag"} for uri, row in rows.items()}


def test_s3_gives_the_same_rows_and_bytes(
    s3: Path, demo: Path, cleaned: tuple[Path, RunResult], tmp_path: Path
) -> None:
    shutil.copytree(demo, s3 / "bucket" / "corpus")
    command = [sys.executable, "jobs/clean_corpus.py", "s3://bucket/corpus", "s3://bucket/out", "--config", "local"]
    command += ["--set", "policy.cut=0.24", "--log-json", str(tmp_path / "log.jsonl")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stderr
    assert "13/13" in done.stderr
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["stages"]["segment"]["rows"] == 13
    local, remote = rows_of(str(cleaned[0])), rows_of("s3://bucket/out")
    assert comparable(remote) == comparable(local)
    for row in local.values():
        assert (s3 / "bucket" / "out" / row["output"]).read_bytes() == (cleaned[0] / row["output"]).read_bytes()
    for text in (KEY, SECRET):
        assert text not in done.stdout + done.stderr
        for file in (s3 / "bucket" / "out").rglob("*"):
            assert file.is_dir() or text.encode() not in file.read_bytes(), f"a credential stands in {file.name}"


def test_a_missing_bucket_is_one_line(s3: Path) -> None:
    with pytest.raises(StorageError, match="no such bucket"):
        clean_corpus(load_config(), "s3://nowhere/x", "s3://bucket/out")


def test_stages_keep_to_their_declarations(demo: Path, tmp_path: Path) -> None:
    output = open_store(str(tmp_path / "out"))
    job = corpus_job(BOLD, f"{demo}/cat_at_the_palace.jpg", output.uri)
    listed = job.source.list(output, 10, None, ThreadPoolExecutor, lambda _: None)
    assert [(shard.number, shard.rows) for step in listed for shard in step.added] == [(0, 1)]
    batch = job.source.read(output, Unit(0, np.array([0], np.int32)))
    stages = [stage for step in job.steps for stage in step.build(job.setup).stages]
    assert keep_to_declarations(stages, batch).to_pylist()[0]["status"] == "cleaned"


def test_new_and_changed_images_are_found_and_a_run_without_listing_finds_none(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    small = load_config("local", ["shard.images=2"])
    for number in range(5):
        (source / f"{number}.jpg").write_bytes(encoded(gradient(64, 96 + number)))
    assert clean_corpus(small, str(source), str(output)).statuses == {"unchanged": 5}
    files = {path.name: path.read_bytes() for path in (output / "metadata").glob("shard-*.parquet")}
    assert sorted(files) == ["shard-000000.parquet", "shard-000001.parquet", "shard-000002.parquet"]
    (source / "0a.jpg").write_bytes(encoded(gradient(64, 200)))
    (source / "3.jpg").write_bytes(encoded(gradient(64, 300)))
    assert clean_corpus(small, str(source), str(output), listing=False).statuses.total() == 0
    again = clean_corpus(small, str(source), str(output))
    assert (again.statuses, again.done_before) == ({"unchanged": 2}, 4)
    now = {path.name: path.read_bytes() for path in (output / "metadata").glob("shard-*.parquet")}
    assert {name for name in now if now[name] != files.get(name)} == {"shard-000001.parquet", "shard-000003.parquet"}
    assert rows_of(str(output))["3.jpg"]["width"] == 300
    assert not list((output / "state" / "v1").rglob("*.parquet")), "parts of committed shards are removed"
    assert json.loads((output / SUMS).read_bytes())["shards"] == 4


def test_drivers_share_the_shards_of_one_output(tmp_path: Path) -> None:
    source, output = tmp_path / "in", str(tmp_path / "out")
    source.mkdir()
    small = load_config("local", ["shard.images=2"])
    for number in range(7):
        (source / f"{number}.jpg").write_bytes(encoded(gradient(64, 96 + number)))
    first = clean_corpus(small, str(source), output, share=(1, 2))
    assert first.statuses == {"unchanged": 3}, "shards 1 and 3"
    second = clean_corpus(small, str(source), output, share=(0, 2))
    assert (second.statuses, second.manifest["images"]) == ({"unchanged": 4}, 7)
    assert len(rows_of(output)) == 7


def test_rows_that_failed_for_a_reason_that_may_pass_are_done_again(tmp_path: Path) -> None:
    source, output = tmp_path / "in", str(tmp_path / "out")
    source.mkdir()
    for number in range(4):
        (source / f"{number}.jpg").write_bytes(encoded(gradient(64, 96 + number)))
    listing = tmp_path / "list.txt"
    listing.write_text("\n".join(f"in/{number}.jpg" for number in range(4)))
    shut = source / "2.jpg"
    data = shut.read_bytes()
    shut.unlink()
    shut.symlink_to(shut)  # a loop: it can be listed, and not be read
    assert clean_corpus(load_config(), str(listing), output).statuses == {"unchanged": 3, "error": 1}
    assert rows_of(output)["in/2.jpg"]["reason"] == "unreachable"
    shut.unlink()
    shut.write_bytes(data)
    assert clean_corpus(load_config(), str(listing), output).statuses == {"unchanged": 1}
    assert rows_of(output)["in/2.jpg"]["status"] == "unchanged"
    assert clean_corpus(load_config(), str(listing), output).statuses.total() == 0


def test_a_run_in_which_too_much_fails_stops_with_the_reason(tmp_path: Path) -> None:
    source, output = tmp_path / "in", str(tmp_path / "out")
    source.mkdir()
    for number in range(12):
        (source / f"{number:02}.jpg").symlink_to(source / f"{number:02}.jpg")
    Pil.new("RGB", (64, 64)).save(source / "12.jpg")  # a list of which nothing can be read is refused at once
    settings = load_config("local", ["errors.min_rows=3", "errors.max_failed_share=0.5"])
    (tmp_path / "list.txt").write_text("\n".join(f"in/{number:02}.jpg" for number in range(13)))
    with pytest.raises(RunError, match=r"\d+ of \d+ rows failed.*max_failed_share 0\.5 \(\d+ unreachable\)"):
        clean_corpus(settings, str(tmp_path / "list.txt"), output)
    assert 3 <= len(rows_of(output)) <= 13, "what was done is published"


def test_a_worker_that_cannot_start_is_one_line(demo: Path, tmp_path: Path) -> None:
    broken = load_config("local", ["segmenter.device=cuda:7"])
    with pytest.raises(RunError, match="a worker failed") as caught:
        clean_corpus(broken, f"{demo}/coffee.jpg", str(tmp_path / "out"))
    assert "\n" not in str(caught.value)
