"""What a page is made of: figures of all rows, the choice of rows, pictures that fit, and markup that stays text."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as Pil

from occpipe.analysis.audit import audit
from occpipe.analysis.pages import page, types
from occpipe.analysis.pages.entries import ByteLimits, Pictures, page_entry
from occpipe.analysis.pages.figures import MAX_NAMES, figures_of
from occpipe.analysis.pages.page import assemble, escaped
from occpipe.analysis.pages.pictures import SIDE, outline, thumbnails, view_of
from occpipe.analysis.pages.rows import read_rows
from occpipe.analysis.pages.sample import COLUMNS, Places, Sampler
from occpipe.analysis.pages.why import Why
from occpipe.core.config import Config, Policy, Relations
from occpipe.core.masks import Rle
from occpipe.core.schemas import PUBLISHED
from occpipe.dataset.reader import Published
from occpipe.io.images import Limits
from occpipe.io.storage import TooLargeError, open_store
from occpipe.io.storage.local import LocalStore
from tests.helpers.published import publish_rows
from tests.helpers.scenes import encoded, gradient

HOSTILE = "</script><img src=x onerror=alert(1)>"


def thing(label: str, relation: float | None, reason: str, **more: Any) -> dict[str, Any]:
    verdict = "remove" if reason in ("unrelated", "removed_by_policy") else "keep"
    box = {"x": 10, "y": 5, "width": 20, "height": 10}
    base = {"label": label, "score": 0.9, "area": 200, "bbox": box, "mask": "", "relation": relation, "evidence": []}
    return base | {"verdict": verdict, "reason": reason} | more


def row(number: int, status: str = "unchanged", *objects: dict[str, Any], **more: Any) -> Any:
    base: dict[str, Any] = dict.fromkeys(PUBLISHED.names)
    size = {} if status in ("error", "skipped") else {"width": 96, "height": 64, "mask_width": 96, "mask_height": 64}
    known = {"image_id": number, "uri": f"{number}.jpg", "status": status, "config": "c", "objects": list(objects)}
    return base | size | known | {"removed": 0.0, "stuff": []} | more


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), PUBLISHED)


MIXED = (
    row(1, "cleaned", thing("cat", 0.05, "unrelated"), thing("dog", 0.9, "related"), removed=0.1),
    row(2, "cleaned", thing("cat", None, "removed_by_policy"), removed=0.3),
    row(3, "unchanged", thing("dog", 0.2, "related")),
    row(4, "error", objects=None, removed=None, reason="truncated"),
    row(5, "skipped", objects=None, removed=None, reason="bit_depth"),
    row(6),
)


SCANNED = row(7, "scanned", thing("cat", 0.04, "unrelated"), removed=0.6)


def empty_page(title: str = "") -> types.PageData:
    return {"id": "", "title": title, "about": [], "blind": False, "policy": None, "entries": []}


def figures(folder: Path, *rows: dict[str, Any]) -> types.Figures:
    return figures_of(audit(str(publish_rows(folder / "out", rows))))


def test_figures_are_of_all_rows(tmp_path: Path) -> None:
    entry = figures(tmp_path, *MIXED)
    assert entry["images"] == 6
    assert entry["status"] == {"cleaned": 2, "unchanged": 2, "scanned": 0, "skipped": 1, "error": 1}
    assert entry["failures"] == [("bit_depth", 1), ("truncated", 1)]
    assert (entry["things"], entry["gone"], entry["removed"]) == (4, 2, [("cat", 2)])
    assert entry["reasons"] == [("related", 2), ("removed_by_policy", 1), ("unrelated", 1)]
    assert entry["area"] == pytest.approx(0.2)
    bars = {kind: [n for n, count in enumerate(counts) if count] for kind, counts in entry["histogram"].items()}
    assert bars == {"unrelated": [2], "related": [10, 45], "other": []}


def test_of_a_scan_it_is_what_would_be_filled(tmp_path: Path) -> None:
    entry = figures(tmp_path, SCANNED, *MIXED[2:])
    assert (entry["gone"], entry["removed"]) == (1, [("cat", 1)])
    assert entry["area"] == pytest.approx(0.6)


def test_of_many_classes_the_rare_ones_are_summed_and_long_names_cut_as_in_entries(tmp_path: Path) -> None:
    things = [thing(f"class {n}", 0.05, "unrelated") for n in range(MAX_NAMES + 7)]
    long = thing("x" * 1000, 0.05, "unrelated")
    entry = figures(tmp_path, row(1, "cleaned", *things, long, long, removed=0.1))["removed"]
    assert len(entry) == MAX_NAMES + 1
    assert entry[0] == ("x" * 400, 2)
    assert entry[-1] == (None, 8)


def test_places_keep_the_best_across_tables() -> None:
    places = Places(2)
    places.offer(np.array([3.0, 1.0, np.nan]), np.array([0, 1, 2]))
    places.offer(np.array([2.0, 1.0]), np.array([3, 4]))
    assert list(places) == [1, 4]


def test_the_sample_shows_what_is_worth_a_look() -> None:
    sampler = Sampler(0.19, 20)
    sampler.add(table(*MIXED[:2]))
    sampler.add(table(*MIXED[2:]))
    chosen = sampler.chosen()
    assert chosen.keys() == set(range(6)), "each once"
    assert "near the cut" in chosen[2]
    assert chosen[1] == ["removed: cat", "large area"]
    assert chosen[3] == ["error: truncated"]
    assert chosen[4] == ["skipped: bit_depth"]
    assert chosen[5] == ["unchanged"]


def test_no_kind_crowds_out_another() -> None:
    """A thousand removed cats, one removed kite, one error: all three are there among ten."""
    rows = [row(n, "cleaned", thing("cat", 0.01, "unrelated"), removed=0.1) for n in range(1000)]
    rows += [row(1000, "cleaned", thing("kite", 0.02, "unrelated"), removed=0.01)]
    rows += [row(1001, "error", objects=None, reason="truncated"), *(row(n) for n in range(1002, 1500))]
    sampler = Sampler(0.1, 10)
    sampler.add(table(*rows))
    chosen = sampler.chosen()
    assert len(chosen) == 10
    shown = [what for shows in chosen.values() for what in shows]
    assert {"removed: cat", "removed: kite", "error: truncated", "unchanged"} <= set(shown)
    again = Sampler(0.1, 10)
    again.add(table(*rows))
    assert again.chosen() == chosen


def test_what_nobody_can_judge_is_left_out_of_a_review() -> None:
    sampler = Sampler(0.19, 20, rated=True)
    sampler.add(table(*MIXED))
    assert sampler.chosen().keys() == {0, 1, 2}


@pytest.mark.parametrize("rated", [False, True])
def test_what_a_scan_would_remove_is_no_removal_and_has_not_stayed(rated: bool) -> None:
    sampler = Sampler(0.19, 20, rated=rated)
    sampler.add(table(SCANNED, MIXED[2]))
    would = ["would be removed: cat", "large area", "near the cut"]
    assert sampler.chosen() == {0: would, 1: ["near the cut", "unchanged"]}


def test_only_the_chosen_rows_are_read(tmp_path: Path) -> None:
    published = Published(str(publish_rows(tmp_path / "out", MIXED)))
    entry = read_rows(published, [4, 0])
    assert {place: entry[place]["image_id"] for place in entry} == {0: 1, 4: 5}
    read = list(published.batches(COLUMNS, 4))
    assert [len(batch) for batch in read] == [4, 2]
    assert read[0].column("objects").type.value_type.names == ["label", "relation", "verdict", "reason"]


def decoded(uri: str) -> Pil.Image:
    return Pil.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))


def test_thumbnails_shrink_until_they_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (450, 600, 3), np.uint8)
    for most in (200_000, 20_000, 4_000):
        before, after = thumbnails([noise, gradient(450, 600)], most)
        assert max(len(before), len(after)) <= most
        assert decoded(before).size == decoded(after).size, "or the slider would show a jump"
    assert thumbnails([noise], 100) == [], "too small to tell anything"
    (small,) = thumbnails([gradient()], 50_000)
    assert decoded(small).size == (96, 64), "nothing is blown up"


def test_an_outline_is_that_of_the_mask() -> None:
    mask = np.zeros((400, 800), np.uint8)
    mask[100:300, 200:600] = 1
    mask[150:250, 300:500] = 0
    path = outline(mask, view_of(400, 800))
    width, height = view_of(400, 800)
    assert (width, height) == (SIDE, SIDE // 2)
    shapes = [np.array([[int(v) for v in p.split()] for p in part[:-1].split("L")]) for part in path.split("M")[1:]]
    drawn = cv2.fillPoly(np.zeros((height, width), np.uint8), shapes, (1,))  # even-odd, as the page fills it
    small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    assert (drawn != small).mean() < 0.01
    assert outline(np.zeros((10, 10), np.uint8), (640, 640)) == ""
    speck = np.zeros((4000, 4000), np.uint8)
    speck[7, 7] = 1
    assert outline(speck, (640, 640)).startswith("M1 1")
    torn = np.random.default_rng(0).integers(0, 2, (300, 300)).astype(np.uint8)
    assert len(outline(torn, (640, 640))) < 3000, "a torn mask is drawn roughly, not at length"


@pytest.fixture
def stores(tmp_path: Path) -> Pictures:
    corpus, output = open_store(str(tmp_path / "in")), open_store(str(tmp_path / "out"))
    for store, key in ((corpus, "1.jpg"), (output, "images/1.jpg"), (corpus, HOSTILE.replace("/", ""))):
        store.write(key, encoded(gradient()))
    (tmp_path / "secret.jpg").write_bytes(encoded(gradient()))
    return Pictures(corpus, output, Limits(), 1_000_000)


def shown(stores: Pictures, text: int = 30_000, picture: int = 30_000, **more: Any) -> types.PageEntry:
    counts = Rle.encode(np.pad(np.ones((10, 20), np.uint8), ((5, 49), (10, 66)))).counts.decode()
    evidence = [{"context": "grass", "relation": 0.6}, {"context": "sea", "relation": 0.1}]
    classes = [{"label": c, "probability": p} for c, p in (("cat", 0.5), ("dog", 0.3), ("bear", 0.1), ("bird", 0.05))]
    cat = thing("cat", 0.05, "unrelated", mask=counts, evidence=evidence, classes=classes)
    one = row(1, "cleaned", thing("dog", 0.9, "related"), cat, output="images/1.jpg", mask=counts, removed=0.03)
    limits = ByteLimits(text, picture)
    return page_entry(one | more, ["removed: cat"], {"cat": {"grass": 0.5}}, stores.before_and_after, limits)


def test_an_entry_has_pictures_outlines_and_reasons(stores: Pictures) -> None:
    entry = shown(stores)
    assert [decoded(str(uri)).size for uri in (entry["before"], entry["after"])] == [(96, 64), (96, 64)]
    cat, dog = entry["objects"]
    assert (cat["label"], cat["index"], dog["index"]) == ("cat", 1, 0), "removed first, by their place in the row"
    assert cat["why"] == [("grass", 0.6, 0.5), ("sea", 0.1, None)]
    assert cat["outline"].startswith("M")
    assert cat["area"] == pytest.approx(200 / (96 * 64), abs=1e-4)
    assert cat["classes"] == [("cat", 0.5), ("dog", 0.3), ("bear", 0.1)], "the three most probable"
    assert dog["classes"] == [], "a row of an earlier version"
    assert entry["mask"] == cat["outline"]


def test_an_outline_of_a_small_mask_is_drawn_on_the_whole_picture(stores: Pictures) -> None:
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 12:36] = 1
    counts = Rle.encode(mask).counts.decode()
    entry = shown(stores, mask=counts, mask_width=48, mask_height=32, objects=[])
    points = np.array([[int(v) for v in point.split()] for point in entry["mask"][1:-1].split("L")])
    assert entry["view"] == (640, 427)
    assert points.min(0) == pytest.approx((160, 107), abs=4)
    assert points.max(0) == pytest.approx((480, 320), abs=4)
    assert shown(stores, mask=counts, mask_width=None)["mask"] == "", "of what size, nobody knows"


def test_an_entry_says_why_it_has_no_picture(stores: Pictures, tmp_path: Path) -> None:
    assert shown(stores, uri="gone.jpg")["note"] == "no picture: its file is not there"
    assert shown(stores, width=64, height=96)["note"] == "no picture: the photo was replaced by another one"
    assert shown(stores, uri="../secret.jpg")["note"] == "no picture: its name leads out of the folder"
    assert shown(stores, uri=str(tmp_path / "secret.jpg"))["note"] == "no picture: its name leads out of the folder"
    assert shown(stores, output="../secret.jpg")["before"] is None
    assert shown(stores, picture=10)["note"] == "no room for its picture in this page"
    (tmp_path / "in" / "text.jpg").write_bytes(b"no picture")
    assert str(shown(stores, uri="text.jpg")["note"]).startswith("no picture: not one of JPEG")
    failed = row(4, "error", objects=None, reason="truncated", error={"stage": "s", "type": "t", "message": "x" * 9999})
    entry = page_entry(failed, [], {}, stores.before_and_after, ByteLimits(9000, 9000))
    assert (entry["view"], entry["note"], entry["error"]) == (None, None, "x" * 400)


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (PermissionError("http://10.0.0.1:9000/bucket/1.jpg: AccessDenied"), "may not be read"),
        (TooLargeError("9 bytes"), "is too large"),
        (ConnectionError("http://10.0.0.1:9000/bucket"), "cannot be read now"),
    ],
)
def test_an_entry_names_no_address_of_a_store(stores: Pictures, error: OSError, note: str) -> None:
    """What S3 says of a failure has the endpoint in it, and a page is mailed."""

    class Failing(LocalStore):
        def read(self, key: str, limit: int | None = None) -> bytes:
            raise error

    failing = dataclasses.replace(stores, corpus=Failing(stores.corpus.uri))
    assert shown(failing)["note"] == f"no picture: its file {note}"


def test_an_entry_of_long_texts_keeps_within_its_bytes_as_they_are_written(stores: Pictures) -> None:
    """`<` takes six bytes in a page, and so does each letter that is not ASCII."""
    long = ["<" * 1000, "\u732b" * 340, "\N{CAT FACE}" * 250]
    for uri in long:
        error = {"stage": "s", "type": "t", "message": uri}
        failed = row(4, "error", objects=None, reason=uri, uri=uri, error=error)
        entry = page_entry(failed, [uri] * 9, {}, stores.before_and_after, ByteLimits(2_000, 5_000))
        assert len(escaped(entry)) <= 2_000
        assert (uri.startswith(entry["uri"]), entry["cut"]) == (True, True)
    assert not shown(stores)["cut"]


def test_an_entry_keeps_within_its_bytes(stores: Pictures) -> None:
    many = [thing("x" * 5000, 0.5, "related", evidence=[{"context": "y" * 900, "relation": 0.1}] * 40)] * 300
    entry = shown(stores, 20_000, 5_000, objects=many, stuff=[{"label": "z" * 900, "confidence": 1.0}] * 99)
    pictures = len(entry["before"] or "") + len(entry["after"] or "")
    assert len(escaped(entry)) - pictures <= 20_000
    assert len(entry["objects"]) + entry["more"] == 300


def test_shares_are_those_of_the_scorer_that_decided() -> None:
    why = Why(Config())
    assert why.cut == pytest.approx(0.330, abs=0.001), "that of the calibrated decision"
    assert Why(Config(policy=Policy(cut=0.117))).cut == 0.117
    assert why.limits["cut"] == why.cut
    stuff: list[dict[str, Any]] = [{"label": label, "confidence": 0.9} for label in ("sea", "sand", "sky-other")]
    board = row(1, "unchanged", thing("surfboard", None, "related"), stuff=stuff)
    assert why.shares(board) == {}, "no relation, no shares"
    from occpipe.models.relations import load_relations

    relation = load_relations().score("surfboard", {s["label"]: s["confidence"] for s in stuff})
    evidence: list[dict[str, Any]] = [{"context": e.context, "relation": e.relation} for e in relation.evidence]
    board["objects"][0] |= {"relation": relation.score, "evidence": evidence}
    shares = why.shares(board)["surfboard"]
    assert shares.keys() == {"sea", "sand", "sky-other"}
    assert shares["sea"] > 0
    evidence[0]["relation"] -= 0.1
    assert why.shares(board) == {}, "another scorer decided"


def test_without_the_scorer_the_cut_of_the_policy_is_shown() -> None:
    elsewhere = Relations(vectors="/elsewhere/mine.safetensors")
    assert Why(Config(relations=elsewhere)).cut is None
    assert Why(Config(relations=elsewhere, policy=Policy(cut=0.3))).cut == 0.3
    paper = Why(Config(relations=Relations(method="paper2019")))
    assert paper.cut == 0.4
    assert paper.shares(row(1, "unchanged", thing("cat", 0.5, "related"))) == {}


def test_the_scripts_have_the_types_of_the_pages_data() -> None:
    text = (page.PARTS / "types.d.ts").read_text(encoding="utf-8")
    interfaces = dict(re.findall(r"^export interface (\w+) \{\n(.*?)^\}", text, re.M | re.S))
    fields = {name: set(re.findall(r"^  (\w+):", body, re.M)) for name, body in interfaces.items()}
    ours = (types.PageThing, types.PageEntry, types.PagePolicy, types.Figures, types.PageData)
    for theirs, own in zip(("Thing", "Entry", "Policy", "Figures", "PageData"), ours, strict=True):
        assert fields[theirs] == own.__annotations__.keys()


@pytest.mark.parametrize("kind", ["report", "review", "preview"])
def test_a_page_is_one_module_of_scripts_with_no_links(kind: str) -> None:
    text = assemble(kind, "x", empty_page())
    script = text[text.index('<script type="module">') :]
    assert not re.search(r"^(import|export) ", script, re.M)
    names = re.findall(r"^(?:const|class|function) (\w+)", script, re.M)
    assert len(names) == len(set(names)), "one scope holds all of them"


@pytest.mark.parametrize("kind", ["report", "review", "preview"])
def test_a_page_runs_its_own_scripts_only(kind: str) -> None:
    text = assemble(kind, HOSTILE, empty_page(HOSTILE + "<!--"))
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    assert "<title>&lt;/script&gt;" in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert json.loads(data) == empty_page(HOSTILE + "<!--")
    assert "default-src &#x27;none&#x27;" in text
    assert not re.findall(r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function)\b", text)
    addresses = set(re.findall(r"https?://[^\s\"')]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "a name, not an address that is loaded"
