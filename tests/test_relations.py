"""The relation scorers: the paper's formula to the bit, what the shipped vectors know, and the benchmark's rules."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from occpipe.classes import coco_stuff
from occpipe.relations import ClassVectors, EmbeddingScorer, PaperScorer, RelationScorer, load_relations
from occpipe.relations.benchmark import LabelledImage, Npmi, figures, make_cases, read_labels, run
from occpipe.relations.vectors import read_asset

LABELS = Path(__file__).parents[2] / "shared/data/labels"


@pytest.fixture(scope="module")
def scorer() -> EmbeddingScorer:
    loaded = load_relations()
    assert isinstance(loaded, EmbeddingScorer)
    return loaded


@pytest.fixture
def vectors() -> ClassVectors:
    tokens = ["person", "surfboard", "sea", "sand", "wall", "couch"]
    return ClassVectors(tokens, np.random.default_rng(3).normal(size=(6, 128)).astype(np.float32))


def cosine(a: np.ndarray, b: np.ndarray) -> np.float64:
    a, b = a.astype(np.float64), b.astype(np.float64)
    result: np.float64 = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return result


def test_the_papers_formula_is_exact_to_the_bit(vectors: ClassVectors) -> None:
    m = vectors.matrix
    expected = np.mean([(cosine(m[1], m[i]) - -0.357849798828) / (0.81298648546 - -0.357849798828) for i in (2, 3, 0)])
    assert PaperScorer(vectors).relation("surfboard", ["sea", "sand", "person"]) == float(expected)


def test_the_papers_formula_is_not_clamped_but_its_evidence_is(vectors: ClassVectors) -> None:
    paper = PaperScorer(vectors, cos_min=0.5, cos_max=0.9)
    assert paper.relation("surfboard", ["sea", "sand"]) < 0
    assert all(e.relation == 0 for e in paper.score("surfboard", ["sea", "sand"]).evidence)


def test_the_paper_counts_kinds_of_wall_apart_unless_told_otherwise(vectors: ClassVectors) -> None:
    walls = ["wall-brick", "wall-tile", "wall-other", "sea"]
    sea, wall = (PaperScorer(vectors).relation("surfboard", [c]) for c in ("sea", "wall"))
    assert PaperScorer(vectors).relation("surfboard", walls) == pytest.approx((3 * wall + sea) / 4)
    once = PaperScorer(vectors, deduplicate_tokens=True)
    assert once.relation("surfboard", walls) == pytest.approx((wall + sea) / 2)
    assert [e.context for e in once.score("surfboard", walls).evidence].count("wall-tile") == 0


@pytest.mark.parametrize(
    ("thing", "home", "away"),
    [
        ("surfboard", ["sea", "sand", "person"], ["bed", "pillow", "wall-other"]),
        ("cat", ["couch", "pillow"], ["sea", "boat"]),
        ("zebra", ["grass-merged", "tree-merged"], ["floor-wood", "cabinet-merged", "wall-tile"]),
        ("toilet", ["wall-tile", "sink", "floor-other-merged"], ["sea", "sky-other-merged"]),
        ("car", ["road", "building-other-merged"], ["bed", "blanket", "pillow"]),
        ("pizza", ["dining table", "food-other-merged"], ["road", "car", "sky-other"]),
        ("airplane", ["sky-other-merged"], ["carpet", "cupboard"]),
        ("skis", ["snow", "person"], ["keyboard", "desk-stuff"]),
    ],
)
def test_things_belong_at_home(scorer: EmbeddingScorer, thing: str, home: list[str], away: list[str]) -> None:
    at_home, elsewhere = scorer.relation(thing, home), scorer.relation(thing, away)
    assert at_home > 0.5 > elsewhere
    assert at_home > scorer.default_cut


@pytest.mark.parametrize(
    ("thing", "home", "away"),
    [
        ("tractor", ["grass", "dirt"], ["bed", "pillow"]),
        ("camel", ["sand", "person"], ["bed", "wall"]),
        ("piano", ["wall", "chair"], ["sea", "sand"]),
        ("shoe", ["person", "road"], ["fork", "plate"]),
    ],
)
def test_classes_of_no_label_list_are_scored_by_their_captions(
    scorer: EmbeddingScorer, thing: str, home: list[str], away: list[str]
) -> None:
    assert scorer.relation(thing, home) > scorer.relation(thing, away)


def test_one_context_class_alone_rarely_condemns(scorer: EmbeddingScorer) -> None:
    things = [c.name for c in coco_stuff() if c.is_thing]
    for context in ("wall-other", "floor-other", "person"):
        scores = [scorer.relation(t, [context]) for t in things if t != context]
        assert np.mean([s < scorer.default_cut for s in scores]) < 0.05, context
    for thing in ("person", "car", "dog", "chair", "handbag"):
        worst = min(scorer.relation(thing, [c.name]) for c in coco_stuff() if c.token != thing)
        assert worst > 0.01, thing  # even the strangest neighbour leaves a doubt


def test_evidence_is_sorted_and_stays_in_range(scorer: EmbeddingScorer) -> None:
    relation = scorer.score("surfboard", ["bed", "sea", "qwxyz", "sand", "wall-brick", "wall-tile"])
    values = [e.relation for e in relation.evidence]
    assert relation.evidence[0].context == "sea"
    assert {e.context for e in relation.evidence} == {"bed", "sea", "sand", "wall-brick"}
    assert values == sorted(values, reverse=True)
    assert all(0 <= v <= 1 for v in values)
    assert relation.score is not None
    assert 0 <= relation.score <= 1


def test_evidence_of_a_class_is_the_relation_to_it_alone(scorer: EmbeddingScorer) -> None:
    for item in scorer.score("dog", ["grass", "sea", "person"]).evidence:
        assert item.relation == pytest.approx(scorer.relation("dog", [item.context]), abs=1e-6)


def test_shares_say_what_each_class_changes(scorer: EmbeddingScorer) -> None:
    context = ["sea", "sand", "bed"]
    shares = scorer.shares("surfboard", context)
    assert shares["sea"] > 0 > shares["bed"]

    def log_odds(score: float) -> float:
        return math.log(score / (1 - score))

    lost = log_odds(scorer.relation("surfboard", context)) - log_odds(scorer.relation("surfboard", ["sea", "sand"]))
    assert shares["bed"] == pytest.approx(lost, abs=1e-4)


def test_order_and_duplicates_of_the_context_do_not_matter(scorer: EmbeddingScorer) -> None:
    once = scorer.relation("dog", ["grass", "tree", "person"])
    assert once == scorer.relation("dog", ["person", "tree-merged", "grass", "tree", "grass-merged", "person"])
    assert scorer.relation("sofa", ["tv"]) == scorer.relation("couch", ["television"])


def test_a_class_is_no_context_for_itself(scorer: EmbeddingScorer) -> None:
    assert scorer.relation("dog", ["dog", "grass"]) == scorer.relation("dog", ["grass"])
    assert scorer.score("dog", ["dog"]).score is None


@pytest.mark.parametrize("method", ["default", "paper2019"])
def test_unknown_classes_are_named(method: str) -> None:
    loaded: RelationScorer = load_relations(method)  # type: ignore[arg-type]  # one of the two, by parametrisation
    with pytest.raises(ValueError, match="qwxyz"):
        loaded.relation("qwxyz", ["sea"])
    with pytest.raises(ValueError, match="qwxyz"):
        loaded.relation("dog", ["qwxyz"])
    with pytest.raises(ValueError, match="dog"):
        loaded.relation("dog", [])
    assert loaded.score("qwxyz", ["sea"]).score is None
    assert loaded.score("dog", ["qwxyz"]) == loaded.score("dog", [])
    assert loaded.score("dog", []).score is None


def test_every_class_of_coco_stuff_has_a_score(scorer: EmbeddingScorer) -> None:
    for c in coco_stuff():
        assert 0 <= scorer.relation(c.name, ["person" if c.token != "person" else "tree"]) <= 1  # noqa: S105 - a word


def test_many_at_once_score_as_one_by_one(scorer: EmbeddingScorer) -> None:
    context = np.zeros((2, len(scorer.vectors)), np.float32)
    context[0, [scorer.vectors.row(t) for t in ("sea", "sand")]] = 1
    context[1, [scorer.vectors.row(t) for t in ("bed", "wall", "light")]] = 1
    rows = np.array([scorer.vectors.row("surfboard"), scorer.vectors.row("cat")])
    odds = scorer.logits(rows, context)
    assert 1 / (1 + np.exp(-odds[0])) == pytest.approx(scorer.relation("surfboard", ["sea", "sand"]), abs=1e-5)
    assert 1 / (1 + np.exp(-odds[1])) == pytest.approx(scorer.relation("cat", ["bed", "wall", "lamp"]), abs=1e-5)


def test_word2vec_files_are_read_without_pickle(vectors: ClassVectors, tmp_path: Path) -> None:
    keyed = vectors.keyed_vectors()
    for name, binary in (("v.bin", True), ("v.txt", False)):
        keyed.save_word2vec_format(str(tmp_path / name), binary=binary)
        read = ClassVectors.from_word2vec(tmp_path / name)
        assert read.tokens == vectors.tokens
        np.testing.assert_allclose(read.matrix, vectors.matrix, rtol=1e-5)
    loaded = load_relations("paper2019", tmp_path / "v.bin")
    assert loaded.relation("surfboard", ["sea"]) == PaperScorer(vectors).relation("surfboard", ["sea"])
    with pytest.raises(ValueError, match="word2vec"):
        load_relations("paper2019", tmp_path / "v.kv")
    with pytest.raises(ValueError, match="no head"):
        load_relations("default", tmp_path / "v.bin")


def test_the_asset_is_small_and_loads_without_gensim_or_torch() -> None:
    arrays, description = read_asset()
    assert sum(a.nbytes for a in arrays.values()) < 3_000_000
    assert description["default_cut"] == description["cuts"]["0.03"]
    code = (
        "import sys; from occpipe.relations import load_relations; load_relations();"
        "sys.exit('gensim' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_benchmark_draws_intruders_from_other_images() -> None:
    images = [
        LabelledImage("a", ("boat",), ("sea", "sky")),
        LabelledImage("b", ("bed", "cat"), ("pillow", "wall")),
        LabelledImage("c", ("dog",), ("grass",)),
    ]
    cases = make_cases(images, rounds=20)
    assert len(cases) == 40
    assert {c.own for c in cases} == {"boat", "bed", "cat"}
    assert all(c.intruder in ({"bed", "cat"} if c.own == "boat" else {"boat"}) for c in cases)
    assert all(c.own not in c.context for c in cases)
    dropped = make_cases(images, rounds=20, drop_stuff=0.5, add_stuff=1)
    assert all(c.context for c in dropped)
    assert {len(c.context) for c in make_cases(images, at_most=1)} == {1}
    assert sum(map(len, (c.context for c in dropped))) < sum(len(c.context) + 1 for c in cases)


def test_figures_of_known_scores() -> None:
    perfect = figures(np.arange(10.0) + 20, np.arange(10.0))
    assert (perfect.auc, perfect.recall5) == (1.0, 1.0)
    assert figures(np.ones(5), np.ones(5)).auc == 0.5


def test_npmi_knows_what_occurs_together() -> None:
    images = [LabelledImage(str(i), ("boat",), ("sea",)) for i in range(20)]
    images += [LabelledImage(str(i), ("bed",), ("wall",)) for i in range(20)]
    npmi = Npmi(images)
    assert npmi("boat", ["sea"]) > 0 > npmi("boat", ["wall"])


@pytest.mark.skipif(not LABELS.exists(), reason="needs ../shared/data/labels beside the repository")
def test_held_out_intruders_are_found(scorer: EmbeddingScorer) -> None:
    from occpipe.training.relations import score_cases

    images = [
        i
        for i in read_labels(LABELS / "things_train10k.tsv.gz", LABELS / "stuff_train2017.tsv.gz")
        if i.part == "test" and i.things and i.stuff
    ]
    cases = make_cases(images, seed=11)
    ours = figures(*score_cases(scorer, cases))
    paper = figures(*run(load_relations("paper2019").relation, cases))
    assert ours.auc > 0.93
    assert ours.recall5 > 0.66
    assert ours.auc > paper.auc + 0.1
    noisy = figures(*score_cases(scorer, make_cases(images, seed=11, drop_stuff=0.3, add_stuff=1)))
    assert noisy.auc > ours.auc - 0.04
