"""Reading captions, reducing them to tokens, and training that gives the same bytes twice."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from occpipe.models.relations import load_relations
from occpipe.models.relations.benchmark import read_labels
from occpipe.models.relations.vectors import read_asset
from occpipe.training.embeddings import (
    EmbeddingConfig,
    class_tokens,
    read_captions,
    tokenise,
    train_vectors,
)
from occpipe.training.relation_head import HeadConfig
from occpipe.training.relations import caption_lists, evaluate_unseen, train

SMALL = EmbeddingConfig(dim=8, epochs=2, min_count=2, window=4)
HEAD = HeadConfig(dim=4, hidden=8, members=1, epochs=2)


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Captions and label lists of two worlds, sea and bedroom."""
    rng = random.Random(0)
    worlds = [("surfboard person boat", "sea sand rock sky-other"), ("cat bed book", "pillow blanket wall-other rug")]
    captions, things, stuff = ["image\tcaption"], ["image\tthings"], ["image\tstuff"]
    for number in range(400):
        own, around = (part.split() for part in worlds[number % 2])
        seen, near = rng.sample(own, 2), rng.sample(around, 3)
        captions.append(f"{number}\tA {seen[0]} and a {seen[1]} near the {near[0]} and {near[1].split('-')[0]}.")
        things.append(f"{number}\t{','.join(seen)}")
        stuff.append(f"{number}\t{','.join(near)}")
    paths = tmp_path / "captions.tsv", tmp_path / "things.tsv", tmp_path / "stuff.tsv"
    for path, lines in zip(paths, (captions, things, stuff), strict=True):
        path.write_text("\n".join(lines) + "\n")
    return paths


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("Two young women ride bikes past a stop sign.", ["young", "person", "ride", "bicycle", "past", "stopsign"]),
        ("A sofa with a remote control", ["couch", "remote"]),
        ("Sheep graze; teddy bears sleep", ["sheep", "graze", "teddybear", "sleep"]),
        ("KNIVES, glasses and wine glasses", ["knife", "eyeglasses", "wineglass"]),
        ("a baseball bat on the baseball field", ["baseballbat", "playingfield"]),
        ("", []),
    ],
)
def test_captions_become_tokens(caption: str, tokens: list[str]) -> None:
    assert tokenise(caption) == tokens


def test_captions_are_read_from_tsv_json_and_text(tmp_path: Path) -> None:
    captions = ['A dog on "grass"', "Un café, [two] {cups}"]
    (tmp_path / "a.tsv").write_text("image\tcaption\tsource\n" + "".join(f"1\t{c}\tx\n" for c in captions))
    (tmp_path / "b.tsv").write_text("".join(f"1\t{c}\n" for c in captions))
    (tmp_path / "c.txt").write_text("\n".join(captions) + "\n\n")
    annotations = [{"image_id": i, "id": i, "caption": c} for i, c in enumerate(captions)]
    coco = json.dumps({"info": {"note": "x" * 70_000}, "annotations": annotations, "licenses": []})
    (tmp_path / "d.json").write_text(coco)
    with gzip.open(tmp_path / "e.tsv.gz", "wt") as out:
        out.write((tmp_path / "a.tsv").read_text())
    for path in sorted(tmp_path.iterdir()):
        assert list(read_captions(path)) == captions, path.name


def test_a_file_without_captions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match="no annotations"):
        list(read_captions(tmp_path / "x.json"))
    (tmp_path / "y.json").write_text('{"annotations": [{"caption": "a dog"}, {"capt')
    with pytest.raises(ValueError, match="cut off"):
        list(read_captions(tmp_path / "y.json"))


def test_captions_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "many.json"
    entry = json.dumps({"caption": "a dog on grass"})
    path.write_text('{"annotations": [' + ",".join([entry] * 20_000) + "]}")
    stream = read_captions(path)
    assert [next(stream) for _ in range(3)] == ["a dog on grass"] * 3
    assert sum(1 for _ in stream) == 19_997


def test_vectors_hold_the_classes_first(corpus: tuple[Path, Path, Path]) -> None:
    vectors = train_vectors(read_captions(corpus[0]), config=SMALL, progress=lambda _: None)
    assert vectors.tokens[: len(class_tokens())] == class_tokens()
    assert vectors["surfboard"].any()
    assert not vectors["zebra"].any()
    reduced = train_vectors(read_captions(corpus[0]), config=SMALL, classes_only=True, progress=lambda _: None)
    assert set(reduced.tokens) <= set(class_tokens())
    assert "zebra" not in reduced.tokens


def test_training_gives_the_same_bytes_twice_and_learns(corpus: tuple[Path, Path, Path], tmp_path: Path) -> None:
    captions, things, stuff = corpus
    for name in ("a", "b"):
        out = tmp_path / f"{name}.safetensors"
        train([captions], things, stuff, out, embedding=SMALL, paper=SMALL, head=HEAD, progress=lambda _: None)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    scorer = load_relations("default", tmp_path / "a.safetensors")
    assert scorer.relation("surfboard", ["sea", "sand"]) > scorer.relation("surfboard", ["pillow", "blanket"])


def test_no_image_is_both_trained_on_and_scored(corpus: tuple[Path, Path, Path]) -> None:
    images = read_labels(corpus[1], corpus[2])
    parts = [{i.image for i in images if i.part == p} for p in ("train", "calibration", "test")]
    assert sum(map(len, parts)) == len(images) == len(set.union(*parts))
    assert 0.1 < len(parts[2]) / len(images) < 0.2
    assert images[0].stuff == tuple(sorted(images[0].stuff))
    assert all("wall-other" not in i.stuff for i in images)


def test_captions_alone_train_a_head(corpus: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Without label lists, what a caption names stands for what an image shows."""
    out = tmp_path / "r.safetensors"
    train([corpus[0]], None, None, out, embedding=SMALL, paper=SMALL, head=HEAD, progress=lambda _: None)
    scorer = load_relations("default", out)
    assert scorer.relation("surfboard", ["sea", "sand"]) > scorer.relation("surfboard", ["pillow", "blanket"])
    lists = list(caption_lists(["A cat and a sofa", "nothing here", "two men at sea"], {"sofa": "couch"}))
    assert [(i.things, i.stuff) for i in lists] == [(("cat", "couch"), ()), (("person",), ("sea",))]
    with pytest.raises(ValueError, match="both, or neither"):
        train([corpus[0]], corpus[1], None, out)


def test_aliases_of_a_user_are_trained_on_and_kept_in_the_file(corpus: tuple[Path, Path, Path], tmp_path: Path) -> None:
    captions, things, stuff = corpus
    table = tmp_path / "aliases.csv"
    table.write_text("alias,token\nplank,surfboard\n")
    captions.write_text(captions.read_text().replace("surfboard", "plank"))
    out = tmp_path / "r.safetensors"
    settings = {"embedding": SMALL, "paper": SMALL, "head": HEAD}
    train([captions], things, stuff, out, alias_file=table, progress=lambda _: None, **settings)  # type: ignore[arg-type]  # each is of its own type
    scorer = load_relations("default", out)
    assert scorer.relation("plank", ["sea"]) == scorer.relation("surfboard", ["sea"])
    assert read_asset(out)[0]["vectors"][class_tokens().index("surfboard")].any()


def test_unseen_classes_are_scored_by_their_captions(corpus: tuple[Path, Path, Path], tmp_path: Path) -> None:
    captions, things, stuff = corpus
    out = tmp_path / "r.safetensors"
    train([captions], things, stuff, out, embedding=SMALL, paper=SMALL, head=HEAD, progress=lambda _: None)
    unseen, among, against_all = evaluate_unseen(things, stuff, out, count=2, head=HEAD, progress=lambda _: None)
    assert set(unseen) < {"surfboard", "person", "boat", "cat", "bed", "book"}
    assert among.cases
    assert against_all.cases


def occpipe(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "occpipe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def test_the_command_line_trains_measures_calibrates_and_explains(
    corpus: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    captions, things, stuff = corpus
    out, better = tmp_path / "r.safetensors", tmp_path / "better.safetensors"
    lists = ("--things", things, "--stuff", stuff)
    trained = occpipe("train-embeddings", "--captions", captions, *lists, "--out", out)
    assert trained.returncode == 0, trained.stderr
    assert "tokenised 400 captions" in trained.stdout
    table = occpipe("evaluate", "relations", *lists, "--relations", out, "--per-class", "--unseen", "2")
    assert table.returncode == 0, table.stderr
    for line in ("default", "paper2019", "NPMI", "intruder recall", "surfboard", "caption vectors alone"):
        assert line in table.stdout
    figures = json.loads(occpipe("evaluate", "relations", *lists, "--relations", out, "--json").stdout)
    assert figures["contexts"]["complete"]["default"]["cases"] > 50
    fitted = occpipe("calibrate", *lists, "--relations", out, "--out", better, "--false-removal", "0.05")
    assert fitted.returncode == 0, fitted.stderr
    assert "for 5.0%" in fitted.stdout
    assert read_asset(better)[1]["default_cut"] == read_asset(better)[1]["cuts"]["0.05"]
    explained = occpipe("explain", "surfboard", "--context", "sea=0.9, sand, qwxyz", "--relations", better)
    assert explained.returncode == 0, explained.stderr
    assert re.search(r"sea .*0\.90 .*\+", explained.stdout)
    assert "not counted: qwxyz (unknown)" in explained.stdout
    assert "keep, related" in explained.stdout
    alone = occpipe("explain", "surfboard", "--context", "sea,surfboard,[/x]", "--relations", better)
    assert "keep, no_context" in alone.stdout
    assert "not counted: surfboard (the thing itself)" in alone.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "qwxyz", "--context", "sea"), "class 'qwxyz' is unknown to the vectors"),
        (("explain", "cat", "--context", "sea=much"), "'much' is no confidence"),
        (("calibrate", "--out", "x.bin"), "x.bin: a relation file is named *.safetensors"),
        (("train-embeddings", "--captions", "{here}", "--out", "x.safetensors"), "nothing to train on"),
        (("calibrate",), "give OUTPUT, OUTPUT with --verdicts, or --things and --stuff"),
        (("evaluate", "relations", "--things", "{here}", "--stuff", "{here}"), "no image with a thing"),
        (("explain", "cat", "--context", "sea", "--relations", "{here}"), "not a relation file of occpipe"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    here = tmp_path / "empty.tsv"
    here.write_text("image\tclasses\n")
    done = occpipe(*(a.format(here=here) for a in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
