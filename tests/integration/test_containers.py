"""Tars and Parquet files through the whole job on a real Ray, as `webdataset` and `datasets` read them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from jobs.make_demo import photos, scenes
from occpipe.analysis.audit import audit
from occpipe.analysis.export import export
from occpipe.analysis.pages.report import write_report
from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError
from occpipe.core.rows import Row
from occpipe.dataset.containers_commit import read_output
from occpipe.dataset.reader import Published
from occpipe.io.storage import open_store
from occpipe.pipeline.apply import apply_corpus
from occpipe.pipeline.run import clean_corpus, scan_corpus
from occpipe.pipeline.scan_settings import settings_for
from tests.helpers.containers import tar_of
from tests.helpers.s3 import s3_environment, s3_server
from tests.helpers.scenes import encoded, gradient

webdataset = pytest.importorskip("webdataset", reason="the environment is older than requirements.lock; run make")
pytestmark = pytest.mark.usefixtures("ray_cluster")
BOLD = load_config("local", ["policy.cut=0.24"])
CLEANED = {"cat_at_the_palace", "cat_in_the_trees"}
TARS = 3


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """Two scenes with a cat that goes, photos that stay, and what is no photo, by their keys."""
    found = {name: encoded(rgb, quality=92) for name, rgb in (*scenes(), *photos()) if name in {*CLEANED, "rocket"}}
    small = {f"plain_{number}": encoded(gradient(64, 96 + number)) for number in range(6)}
    return {**found, **small, "broken": found["rocket"][:2000], "text": b"no picture"}


@pytest.fixture(scope="module")
def tars(images: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as img2dataset writes it."""
    folder = tmp_path_factory.mktemp("tars")
    for number in range(TARS):
        files: list[tuple[str, bytes]] = []
        for key in list(images)[number::TARS]:
            about = {"key": key, "caption": f"a caption of {key}", "status": "success"}
            files += [(f"{key}.jpg", images[key]), (f"{key}.json", json.dumps(about).encode())]
            files += [(f"{key}.txt", about["caption"].encode())]
        (folder / f"{number:05d}.tar").write_bytes(tar_of(files))
        (folder / f"{number:05d}_stats.json").write_text(json.dumps({"count": len(files) // 3}))
        datasets.Dataset.from_dict({"url": ["https://example.org/1.jpg"], "key": ["0"]}).to_parquet(
            str(folder / f"{number:05d}.parquet")
        )
    return folder


@pytest.fixture(scope="module")
def cleaned(tars: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    output = tmp_path_factory.mktemp("cleaned") / "out"
    summary = clean_corpus(BOLD, str(tars), str(output))
    assert summary.statuses == {"cleaned": 2, "unchanged": 7, "error": 2}
    return output


def webdataset_of(folder: Path) -> list[dict[str, Any]]:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    return [
        {name: value for name, value in sample.items() if name != "__url__" and not name.startswith("__local")}
        for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    ]


def rows_of(output: Path | str) -> dict[str, Row]:
    return {row["uri"]: row for row in Published(str(output)).rows()}


def check_images(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """The images of two data sets, by key, of which those with a cat differ."""
    assert list(before) == list(after)
    assert {key for key in before if before[key] != after[key]} == CLEANED
    for key in CLEANED:
        with Pil.open(io.BytesIO(before[key])) as old, Pil.open(io.BytesIO(after[key])) as new:
            assert (old.size, old.format) == (new.size, new.format)
            assert np.abs(np.asarray(old).astype(int) - np.asarray(new)).mean() > 0.5


def test_webdataset_reads_what_was_cleaned_as_it_read_the_source(tars: Path, cleaned: Path) -> None:
    before, after = webdataset_of(tars), webdataset_of(cleaned / "images")
    side = [[{k: v for k, v in sample.items() if k != "jpg"} for sample in samples] for samples in (before, after)]
    assert side[0] == side[1]
    check_images(*({sample["__key__"]: sample["jpg"] for sample in samples} for samples in (before, after)))
    assert sorted(path.name for path in (cleaned / "images").iterdir()) == [f"{n:05d}.tar" for n in range(TARS)]


def test_each_image_of_a_tar_has_a_row_and_is_found_by_it(cleaned: Path, images: dict[str, bytes]) -> None:
    store = open_store(str(cleaned))
    rows = rows_of(cleaned)
    assert {uri.partition("#")[2] for uri in rows} == {f"{key}.jpg" for key in images}
    for uri, row in rows.items():
        key = uri.partition("#")[2].removesuffix(".jpg")
        if key in ("broken", "text"):
            assert (row["status"], row["output"]) == ("error", None)
            assert row["reason"] == {"broken": "truncated", "text": "not_an_image"}[key]
        else:
            assert row["output"] == f"images/{uri}"
            assert (read_output(store, row) == images[key]) == (key not in CLEANED)


def test_a_second_run_does_nothing_and_a_changed_tar_is_done_again(
    tars: Path, cleaned: Path, images: dict[str, bytes], tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.tar").write_bytes(tar_of([("0.jpg", images["plain_0"])]))
    (source / "b.tar").write_bytes(tar_of([("0.jpg", images["plain_1"])]))
    assert clean_corpus(BOLD, str(source), str(output)).statuses == {"unchanged": 2}
    assert clean_corpus(BOLD, str(source), str(output)).statuses.total() == 0
    (source / "b.tar").write_bytes(tar_of([("0.jpg", images["plain_2"]), ("1.jpg", images["plain_3"])]))
    again = clean_corpus(BOLD, str(source), str(output))
    assert (again.statuses, again.done_before) == ({"unchanged": 2}, 1)
    assert (output / "images/b.tar").read_bytes() == (source / "b.tar").read_bytes()
    assert set(rows_of(output)) == {"a.tar#0.jpg", "b.tar#0.jpg", "b.tar#1.jpg"}


def clean_on_s3(*options: str) -> str:
    """A run in a process of its own, whose workers know the server; what it says."""
    command = [sys.executable, "-m", "occpipe", "clean", "s3://bucket/in/{00000..00099}.tar", "s3://bucket/out"]
    command += ["--set", "policy.cut=0.24", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_run_over_braces_on_s3_goes_on_where_it_was(
    tars: Path, cleaned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = tmp_path / "s3" / "bucket"
    (bucket / "in").mkdir(parents=True)
    for path in tars.iterdir():
        (bucket / "in" / path.name).write_bytes(path.read_bytes())
    with s3_server(tmp_path / "s3") as address:
        for name, value in s3_environment(address).items():
            monkeypatch.setenv(name, value)
        assert "2/2" in clean_on_s3("--limit", "2")
        assert not (bucket / "out" / "images").exists(), "a container is written when all of its images are done"
        assert "9/9" in clean_on_s3()
        there, here = rows_of("s3://bucket/out"), rows_of(cleaned)
    assert {uri: row["status"] for uri, row in there.items()} == {uri: row["status"] for uri, row in here.items()}
    for path in (cleaned / "images").iterdir():
        assert (bucket / "out" / "images" / path.name).read_bytes() == path.read_bytes()


def test_a_scan_of_tars_is_applied_and_what_was_cleaned_is_copied(tars: Path, cleaned: Path, tmp_path: Path) -> None:
    scan_corpus(BOLD, str(tars), str(tmp_path / "scan"))
    assert not (tmp_path / "scan" / "images").exists()
    scan = Published(str(tmp_path / "scan"))
    apply_corpus(settings_for(scan, None, ()), scan, str(tmp_path / "out"))
    for path in (cleaned / "images").iterdir():
        assert (tmp_path / "out" / "images" / path.name).read_bytes() == path.read_bytes()
    again = Published(str(cleaned))
    copied = apply_corpus(settings_for(again, None, ()), again, str(tmp_path / "copied"))
    assert copied.counts.copied == 2
    for path in (cleaned / "images").iterdir():
        assert (tmp_path / "copied" / "images" / path.name).read_bytes() == path.read_bytes()


def test_reports_audits_and_exports_read_an_output_of_tars(cleaned: Path, tmp_path: Path) -> None:
    assert write_report(str(cleaned), None, tmp_path / "report.html", 20, ()) >= 2
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image") >= 2
    assert "no picture: its file" not in page
    assert audit(str(cleaned)).images == 11
    assert export(str(cleaned), str(tmp_path / "coco"), "coco")
    assert export(str(cleaned), str(tmp_path / "hf"), "hf") == 9
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "hf"))["train"]
    assert len(loaded) == 9


def test_what_a_container_cannot_leave_out_is_said_at_once(tars: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output\.unchanged=skip"):
        clean_corpus(load_config("local", ["output.unchanged=skip"]), str(tars), str(tmp_path / "out"))


@pytest.fixture(scope="module")
def parquet(images: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that `datasets` has saved."""
    folder = tmp_path_factory.mktemp("parquet")
    columns = {
        "id": list(images),
        "image": [{"bytes": data, "path": f"{key}.jpg"} for key, data in images.items()],
        "label": list(range(len(images))),
    }
    features = datasets.Features(
        {"id": datasets.Value("string"), "image": datasets.Image(), "label": datasets.Value("int64")}
    )
    saved = datasets.Dataset.from_dict(columns, features=features)
    for part in range(2):
        saved.shard(2, part).to_parquet(str(folder / f"data/train-{part:05d}-of-00002.parquet"), batch_size=3)
    return folder


def test_datasets_reads_what_was_cleaned_as_it_read_the_source(
    parquet: Path, images: dict[str, bytes], tmp_path: Path
) -> None:
    summary = clean_corpus(BOLD, str(parquet), str(tmp_path / "out"))
    assert summary.statuses == {"cleaned": 2, "unchanged": 7, "error": 2}
    loaded = []
    for folder in (parquet, tmp_path / "out" / "images"):
        found = datasets.load_dataset("parquet", data_files=str(folder / "data/*.parquet"), cache_dir=str(tmp_path))
        loaded.append(found["train"].cast_column("image", datasets.Image(decode=False)))
    before, after = loaded
    assert before.features == after.features
    for column in ("id", "label"):
        assert before[column][:] == after[column][:]
    check_images(*(dict(zip(one["id"][:], [i["bytes"] for i in one["image"][:]], strict=True)) for one in loaded))
    for path in (parquet / "data").iterdir():
        old, new = (pq.ParquetFile(folder / "data" / path.name) for folder in (parquet, tmp_path / "out" / "images"))
        assert old.schema_arrow.equals(new.schema_arrow, check_metadata=True)
        assert old.num_row_groups == new.num_row_groups == 2
    store = open_store(str(tmp_path / "out"))
    for row in rows_of(tmp_path / "out").values():
        if row["status"] == "unchanged":
            assert read_output(store, row) in images.values()
    assert export(str(tmp_path / "out"), str(tmp_path / "hf"), "hf") == 9
    assert write_report(str(tmp_path / "out"), None, tmp_path / "report.html", 20, ()) >= 2
