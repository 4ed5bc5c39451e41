from __future__ import annotations

import re

import pytest

from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError, StorageError
from occpipe.dataset.layout import FIRST, METADATA, Layout
from occpipe.dataset.shards import commit_shard, write_part
from occpipe.dataset.sums import write_sums
from occpipe.dataset.versions import SCAN, Origin, open_version
from occpipe.io.storage import Store
from occpipe.models.weights import ModelIdentity
from tests.helpers.memory import MemoryStore
from tests.unit.dataset.test_shards import list_images, rows_of


@pytest.fixture
def store() -> Store:
    return MemoryStore()


def publish(store: Store, layout: Layout = FIRST) -> None:
    list_images(store, 0, ["1.jpg"])
    write_part(store, layout, 1, 0, 0, rows_of(["1.jpg"]))
    commit_shard(store, layout, 0)


def identity(sha256: str) -> ModelIdentity:
    return {"name": "starter-segmenter", "sha256": sha256, "licence": "MIT", "source": "shipped with occpipe"}


def test_one_way_of_making_an_output(store: Store) -> None:
    models = [identity("aa")]
    assert open_version(store, load_config(), models, "in") == FIRST
    same = load_config("local", ["placement.segment.batch_size=2", "shard.images=10", "errors.min_rows=1"])
    assert open_version(store, same, models, "in", new=True) == FIRST, "the same settings begin nothing new"
    publish(store)
    with pytest.raises(ConfigError, match=r"another config \(policy\.cut was None, now 0\.1\).*--new-version"):
        open_version(store, load_config("local", ["policy.cut=0.1"]), models, "in")
    with pytest.raises(ConfigError, match="another weights"):
        open_version(store, load_config(), [identity("bb")], "in")


def test_an_output_has_one_input(store: Store) -> None:
    open_version(store, load_config(), [], "in")
    publish(store)
    for new in (False, True):
        with pytest.raises(ConfigError, match=r"another input \(in, now elsewhere\); choose another output$"):
            open_version(store, load_config(), [], "elsewhere", new=new)


def test_images_of_somebody_else_are_not_written_over(store: Store) -> None:
    store.write("images/1.jpg", b"mine")
    for origin in (Origin(), Origin("apply", "s")):
        with pytest.raises(StorageError, match="has files that no run has written; choose another output"):
            open_version(store, load_config(), [], "in", origin)
    assert open_version(store, load_config(), [], "in", SCAN) == FIRST  # which writes no images


def test_an_output_is_made_by_one_command(store: Store) -> None:
    origin = Origin("apply", "5ca9", None)
    assert open_version(store, load_config(), [], "in", origin) == FIRST
    publish(store)
    assert open_version(store, load_config(), [], "in", origin) == FIRST
    for other, what in (
        (Origin(), "command (apply, now clean)"),
        (Origin("apply", "07e4"), "scan (5ca9, now 07e4)"),
        (Origin("apply", "5ca9", "ab"), "verdicts (None, now ab)"),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"another {what}")):
            open_version(store, load_config(), [], "in", other)
    second = open_version(store, load_config(), [], "in", Origin("apply", "07e4"), new=True)
    assert (second.number, second.metadata, second.images) == (2, "metadata.v2", "images.v2")


def test_a_new_version_is_made_beside_the_old_one_and_takes_its_place(store: Store) -> None:
    open_version(store, load_config(), [], "in")
    publish(store)
    write_sums(store, load_config(), [], "in", listed=1)
    bolder = load_config("local", ["policy.cut=0.3"])
    second = open_version(store, bolder, [], "in", new=True)
    assert open_version(store, bolder, [], "in") == second == Layout(2, "metadata.v2"), "the next run goes on with it"
    publish(store, second)
    write_sums(store, bolder, [], "in", second, listed=1)
    assert open_version(store, bolder, [], "in") == Layout(2, METADATA), "what comes later is published at once"


def test_settings_under_which_nothing_was_made_bind_nobody(store: Store) -> None:
    open_version(store, load_config("gpu"), [], "in")
    assert open_version(store, load_config(), [], "in") == FIRST
    publish(store)
    with pytest.raises(ConfigError, match="another config"):
        open_version(store, load_config("gpu"), [], "in")
