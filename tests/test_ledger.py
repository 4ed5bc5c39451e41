from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from occpipe.config_file import load_config
from occpipe.done import IndexWriter, etag_hash, index_rows, load_done
from occpipe.errors import ConfigError, OutputBusyError
from occpipe.ledger import OutputLock, next_run, part_keys, write_part
from occpipe.schemas import PUBLISHED
from occpipe.stages.publish import MANIFEST, publish
from occpipe.storage import Store, open_store
from occpipe.versions import Origin, Version, open_version


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"))


def rows(*items: tuple[int, str], etag: str = "a") -> pa.Table:
    full = [
        {"image_id": key, "uri": f"{key}.jpg", "status": status, "etag": etag, "config": "c", "objects": []}
        for key, status in items
    ]
    return pa.Table.from_pylist(full, PUBLISHED)


def published(store: Store) -> list[tuple[int, str]]:
    manifest = publish(store, load_config(), [], "in")
    table = pa.concat_tables(
        [pa.parquet.read_table(f"{store.uri}/metadata/{file['file']}") for file in manifest["files"]]
    )
    return list(zip(table.column("image_id").to_pylist(), table.column("status").to_pylist(), strict=True))


def test_equal_rows_are_one_part(store: Store) -> None:
    assert write_part(store, 1, rows((1, "cleaned"))) == write_part(store, 1, rows((1, "cleaned")))
    assert write_part(store, 2, rows((1, "cleaned"))) != write_part(store, 1, rows((2, "cleaned")))
    assert len(part_keys(store)) == 3


def covered(store: Store, retry: str, *ids: int, etag: str = "a") -> list[bool]:
    done = load_done(store, retry)
    wanted = np.array(ids, np.int64)
    covers: list[bool] = done.covers(wanted, np.full(len(ids), etag_hash(etag))).tolist()
    return covers


def test_done_by_retry(store: Store) -> None:
    write_part(store, 1, rows((5, "cleaned"), (-7, "error"), (9, "skipped")))
    assert covered(store, "none", -7, 5, 9, 11) == [True, True, True, False]
    assert covered(store, "errors", -7, 5, 9, 11) == [False, True, True, False]
    assert covered(store, "all", -7, 5, 9, 11) == [False] * 4
    assert covered(store, "none", 5, etag="b") == [False], "a changed input is done again"


def test_the_last_run_counts(store: Store) -> None:
    write_part(store, 1, rows((1, "error"), (2, "cleaned")))
    write_part(store, 2, rows((1, "cleaned")))
    assert covered(store, "errors", 1, 2) == [True, True]
    assert next_run(store) == 3


def test_publish_has_each_image_once(store: Store) -> None:
    write_part(store, 1, rows((3, "error"), (1, "cleaned"), (-2, "unchanged")))
    write_part(store, 1, rows((3, "cleaned"), (1, "cleaned")))  # a task that ran twice, better the second time
    write_part(store, 2, rows((-2, "error")))  # a newer run
    assert published(store) == [(-2, "error"), (1, "cleaned"), (3, "cleaned")]


def test_publish_does_not_depend_on_how_rows_were_cut(store: Store, tmp_path: Path) -> None:
    write_part(store, 1, rows((1, "cleaned"), (2, "error")))
    write_part(store, 1, rows((3, "cleaned")))
    other = open_store(str(tmp_path / "other"))
    write_part(other, 1, rows((3, "cleaned"), (2, "error")))
    write_part(other, 1, rows((1, "cleaned")))
    first, second = (publish(s, load_config(), [], "in") for s in (store, other))
    assert first == second


def test_publish_in_slices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.stages.publish.SLICE_ROWS", 3)
    write_part(store, 1, rows(*((key, "cleaned") for key in (8, 1, 6, 3, 5))))
    write_part(store, 1, rows(*((key, "cleaned") for key in (2, 7, 1))))
    assert [key for key, _ in published(store)] == [1, 2, 3, 5, 6, 7, 8]
    assert [file["rows"] for file in json.loads(store.read(MANIFEST))["files"]] == [3, 3, 1]


def test_a_new_publication_replaces_the_old_files(store: Store) -> None:
    write_part(store, 1, rows((1, "cleaned")))
    published(store)
    write_part(store, 1, rows((2, "cleaned")))
    published(store)
    assert len([entry for entry in store.walk("metadata") if entry.key.endswith(".parquet")]) == 1


def test_an_empty_ledger_publishes_an_empty_table(store: Store) -> None:
    assert published(store) == []


def test_one_way_of_making_an_output(store: Store) -> None:
    models: list[dict[str, str | None]] = [{"name": "starter-segmenter", "sha256": "aa"}]
    assert open_version(store, load_config(), models, "in") == Version(1, 1)
    same = load_config("local", ["placement.segment.batch_size=2"])
    assert open_version(store, same, models, "in", new=True) == Version(1, 1), "the same settings begin nothing new"
    write_part(store, 1, rows((1, "cleaned")))
    with pytest.raises(ConfigError, match=r"another config \(policy\.cut was None, now 0\.1\).*--new-version"):
        open_version(store, load_config("local", ["policy.cut=0.1"]), models, "in")
    with pytest.raises(ConfigError, match="another input"):
        open_version(store, load_config(), models, "elsewhere")
    with pytest.raises(ConfigError, match="another weights"):
        open_version(store, load_config(), [{"name": "starter-segmenter", "sha256": "bb"}], "in")


def test_an_output_is_made_by_one_command(store: Store) -> None:
    origin = Origin("apply", "5ca9", None)
    assert open_version(store, load_config(), [], "in", origin) == Version(1, 1)
    write_part(store, 1, rows((1, "cleaned")))
    assert open_version(store, load_config(), [], "in", origin) == Version(1, 1)
    for other, what in (
        (Origin(), "command (apply, now clean)"),
        (Origin("apply", "07e4"), "scan (5ca9, now 07e4)"),
        (Origin("apply", "5ca9", "ab"), "verdicts (None, now ab)"),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"another {what}")):
            open_version(store, load_config(), [], "in", other)
    assert open_version(store, load_config(), [], "in", Origin("apply", "07e4"), new=True) == Version(2, 2)


def test_a_version_of_before_there_was_scan_goes_on(store: Store) -> None:
    open_version(store, load_config(), [], "in")
    (entry,) = store.walk("ledger/versions")
    record = json.loads(store.read(entry.key))
    store.write(
        entry.key, json.dumps({k: v for k, v in record.items() if k not in ("command", "scan", "verdicts")}).encode()
    )
    write_part(store, 1, rows((1, "cleaned")))
    assert open_version(store, load_config(), [], "in") == Version(1, 1)


def test_a_new_version_begins_anew_beside_the_old_one(store: Store) -> None:
    open_version(store, load_config(), [], "in")
    made = rows((1, "cleaned"), (2, "error"))
    index = IndexWriter(store, 1)
    index.add(index_rows(made, write_part(store, 1, made)))
    index.flush()
    bolder = load_config("local", ["policy.cut=0.3"])
    second = open_version(store, bolder, [], "in", new=True)
    assert second == Version(2, 2)
    assert (Version(1, 1).images, second.images) == ("images", "images.v2")
    assert open_version(store, bolder, [], "in") == second, "the next run goes on with it"
    assert not len(load_done(store, "none", second.first_run).ids)
    before = publish(store, load_config(), [], "in", Version(1, 1))
    assert publish(store, bolder, [], "in", second, whole=False) == before, (
        "the old one stays until the new one is whole"
    )
    write_part(store, 2, rows((1, "unchanged")))
    manifest = publish(store, bolder, [], "in", second)
    assert (manifest["version"], manifest["images"]) == (2, 1)
    assert len(part_keys(store)) == 2, "what the first version knew stays"


def test_settings_under_which_nothing_was_made_bind_nobody(store: Store) -> None:
    open_version(store, load_config("gpu"), [], "in")
    assert open_version(store, load_config(), [], "in") == Version(1, 1)
    write_part(store, 1, rows((1, "cleaned")))
    with pytest.raises(ConfigError, match="another config"):
        open_version(store, load_config("gpu"), [], "in")


def test_one_writer_an_output(store: Store) -> None:
    with OutputLock(store), pytest.raises(OutputBusyError, match="pid"), OutputLock(store):
        pass
    with OutputLock(store):
        pass


def test_a_dead_writers_lock_is_taken_over(store: Store) -> None:
    silent = {"host": "elsewhere", "pid": 1, "beat": time.time() - 3600}
    gone = {"host": socket.gethostname(), "pid": 2**30, "beat": time.time()}
    for held in (silent, gone):
        store.write("ledger/lock.json", json.dumps(held).encode())
        with OutputLock(store):
            assert json.loads(store.read("ledger/lock.json"))["pid"] == os.getpid()
        assert list(store.walk("ledger")) == []


def test_a_writer_whose_lock_was_taken_over_publishes_nothing(store: Store) -> None:
    with OutputLock(store) as slept:
        slept.confirm()
        other = {"host": "elsewhere", "pid": 1, "lock_id": "other", "beat": time.time()}
        store.write("ledger/lock.json", json.dumps(other).encode())
        with pytest.raises(OutputBusyError, match="taken over by elsewhere pid 1"):
            slept.confirm()
        with pytest.raises(OutputBusyError, match="taken over"):
            slept.check()
    assert json.loads(store.read("ledger/lock.json"))["lock_id"] == "other", "it is the other's to release"


def test_a_writer_whose_successor_has_ended_publishes_nothing(store: Store) -> None:
    with OutputLock(store) as slept:
        store.delete("ledger/lock.json")
        for _ in range(2):
            with pytest.raises(OutputBusyError, match="a run that has ended"):
                slept.confirm()
        assert list(store.walk("ledger")) == []


def test_of_two_that_take_over_one_goes_on(store: Store) -> None:
    gone = {"host": "elsewhere", "pid": 1, "beat": time.time() - 3600}
    store.write("ledger/lock.json", json.dumps(gone).encode())
    went_on, refused = [], []
    ended = threading.Barrier(2)

    def run() -> None:
        try:
            with OutputLock(store):
                went_on.append(1)
                ended.wait(10)
        except OutputBusyError:
            refused.append(1)
            ended.wait(10)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(went_on), len(refused)) == (1, 1)


def test_a_living_writer_elsewhere_keeps_its_lock(store: Store) -> None:
    store.write("ledger/lock.json", json.dumps({"host": "elsewhere", "pid": 1, "beat": time.time()}).encode())
    with pytest.raises(OutputBusyError, match="elsewhere pid 1"), OutputLock(store):
        pass
