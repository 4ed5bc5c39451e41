"""The relation scorers: the paper's formula to the bit, what the shipped vectors know, and the benchmark's rules."""

from __future__ import annotations

import gzip
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from occpipe.core.classes import coco_stuff
from occpipe.models.relations import ClassVectors, Context, EmbeddingScorer, PaperScorer, RelationScorer, load_relations
from occpipe.models.relations.benchmark import LabelledImage, Npmi, as_seen, figures, make_cases, read_labels
from occpipe.models.relations.evaluation import evaluate, lines
from occpipe.models.relations.vectors import read_aliases, read_asset

LABELS = Path(__file__).parents[4] / "shared/data/labels"


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


def log_odds(score: float) -> float:
    return math.log(score / (1 - score))


def test_shares_are_exact_shapley_values_of_a_small_context(scorer: EmbeddingScorer) -> None:
    def value(*context: str) -> float:
        return log_odds(scorer.relation("surfboard", context) if context else scorer.prior("surfboard"))

    shares = scorer.shares("surfboard", ["sea", "bed"])
    assert shares["sea"] > 0 > shares["bed"]
    expected = (value("bed") - value() + value("bed", "sea") - value("sea")) / 2
    assert shares["bed"] == pytest.approx(expected, abs=1e-4)


def test_shares_add_up_to_the_score(scorer: EmbeddingScorer) -> None:
    many = {
        "sea": 0.9,
        "sand": 0.4,
        "person": 1.0,
        "bed": 0.3,
        "wall-other": 0.2,
        "rock": 0.5,
        "boat": 0.6,
        "wall": 0.1,
    }
    for context in (["sea", "sand", "bed"], many):
        shares = scorer.shares("surfboard", context)
        assert shares == scorer.shares("surfboard", context)
        total = log_odds(scorer.relation("surfboard", context)) - log_odds(scorer.prior("surfboard"))
        assert sum(shares.values()) == pytest.approx(total, abs=1e-3)
    assert "wall" not in scorer.shares("surfboard", many)  # one token, one share, under its first name


def test_a_doubtful_context_class_counts_less(scorer: EmbeddingScorer) -> None:
    sure, doubtful, without = (
        scorer.relation("surfboard", {"sea": 1.0, "sand": 1.0} | extra)
        for extra in ({"bed": 1.0}, {"bed": 0.3}, {"bed": 0.0})
    )
    assert sure < doubtful < without == scorer.relation("surfboard", ["sand", "sea"])
    with pytest.raises(ValueError, match=r"1\.5 is not in \[0, 1\]"):
        scorer.relation("surfboard", {"bed": 1.5})


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
    context = np.zeros((2, len(scorer.vectors)), np.float64)
    context[0, [scorer.vectors.row(t) for t in ("sea", "sand")]] = 1
    context[1, [scorer.vectors.row(t) for t in ("bed", "wall", "light")]] = 1
    rows = np.array([scorer.vectors.row("surfboard"), scorer.vectors.row("cat")])
    odds = scorer.logits(rows, context)
    named: list[Context] = [{"sea": 1.0, "sand": 1.0, "surfboard": 0.9, "qwxyz": 0.5}, ["bed", "wall", "lamp", "light"]]
    assert scorer.log_odds(["surfboard", "cat"], named).tolist() == pytest.approx(odds.tolist(), abs=1e-5)
    assert float(scorer.log_odds(["cat"], [[]])[0]) == pytest.approx(log_odds(scorer.prior("cat")), abs=1e-4)
    with pytest.raises(ValueError, match="not in"):
        scorer.log_odds(["cat"], [{"bed": float("nan")}])
    assert 1 / (1 + np.exp(-odds[0])) == pytest.approx(scorer.relation("surfboard", ["sea", "sand"]), abs=1e-5)
    assert 1 / (1 + np.exp(-odds[1])) == pytest.approx(scorer.relation("cat", ["bed", "wall", "lamp"]), abs=1e-5)


def test_word2vec_files_are_read_without_pickle(vectors: ClassVectors, tmp_path: Path) -> None:
    from gensim.models import KeyedVectors  # seconds of imports that no other test here needs

    keyed = KeyedVectors(vectors.matrix.shape[1])
    keyed.add_vectors(list(vectors.tokens), vectors.matrix)
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
    assert description["default_cut"] == description["cuts"]["0.02"]
    code = (
        "import sys; from occpipe.models.relations import load_relations; load_relations();"
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
    result = evaluate(LABELS / "things_train10k.tsv.gz", LABELS / "stuff_train2017.tsv.gz", rounds=1)
    contexts = result["contexts"]
    ours, paper, npmi = (contexts["complete"][name] for name in ("default", "paper2019", "NPMI"))
    assert ours["auc"] > 0.935
    assert ours["recall5"] > 0.68
    assert ours["auc"] > max(paper["auc"], npmi["auc"]) + 0.08
    assert contexts["30% missed, one wrong"]["default"]["auc"] > ours["auc"] - 0.04
    weighted, plain = contexts["as a segmenter sees it"], contexts["the same, unweighted"]
    assert weighted["default"]["auc"] > plain["default"]["auc"]
    assert result["at_cut"]["complete"]["own_removed"] < 0.03
    printed = "\n".join(lines(result, per_class=True))
    assert "paper2019" in printed
    assert "surfboard" in printed


def test_a_calibrated_segmenter_is_imitated() -> None:
    names = [f"stuff{i}" for i in range(300)]
    images = [LabelledImage(str(i), (f"thing{i % 7}",), tuple(names[i : i + 8])) for i in range(290)]
    cases = make_cases(images, rounds=12)
    pairs = [
        (confidence, name in case.context)
        for case, seen in zip(cases, as_seen(cases, images), strict=True)
        for name, confidence in dict(seen.context).items()  # type: ignore[arg-type]  # it is a mapping here
    ]
    assert min(confidence for confidence, _ in pairs) >= 0.3
    for low in (0.5, 0.6, 0.7, 0.8):
        there = [is_there for confidence, is_there in pairs if low <= confidence < low + 0.1]
        assert np.mean(there) == pytest.approx(low + 0.05, abs=0.05)


def test_lists_of_one_domain_end(tmp_path: Path) -> None:
    """No stuff class is absent anywhere, so that no wrong one can be added; a thing is in all images."""
    images = [LabelledImage(str(i), ("boat", "person")[: 1 + i % 2], ("sea", "sky")) for i in range(4)]
    cases = make_cases(images, drop_stuff=0.3, add_stuff=2)
    assert {c.own for c in cases} == {"boat"}
    assert as_seen(cases, images)


def test_lists_name_what_is_wrong_with_them(tmp_path: Path) -> None:
    table = tmp_path / "things.tsv"
    table.write_text("image\tclasses\n1\t0,16\n2\t182\n")
    with pytest.raises(ValueError, match="line 3: class 182 is not one of the 182"):
        read_labels(table, table)
    (tmp_path / "cut.tsv.gz").write_bytes(gzip.compress(b"image\tclasses\n1\t0,16\n")[:-9])
    with pytest.raises(ValueError, match="damaged"):
        read_labels(tmp_path / "cut.tsv.gz", table)


def test_a_baseline_is_measured_on_what_it_knows(tmp_path: Path) -> None:
    things = ["image\tclasses"] + [f"{n}\t{('piano', 'boat', 'cat')[n % 3]}" for n in range(300)]
    stuff = ["image\tclasses"] + [
        f"{n}\t{('wall-other,carpet', 'sea,sand', 'rug,floor-wood')[n % 3]}" for n in range(300)
    ]
    for name, rows in (("things", things), ("stuff", stuff)):
        (tmp_path / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    result = evaluate(tmp_path / "things.tsv", tmp_path / "stuff.tsv", all_images=True)["contexts"]["complete"]
    assert 0 < result["paper2019"]["cases"] < result["default"]["cases"]
    assert result["default"]["auc"] > 0.8


def test_a_users_aliases_lead_to_tokens(vectors: ClassVectors, tmp_path: Path) -> None:
    table = tmp_path / "aliases.csv"
    table.write_text("alias,token\nlilo,surfboard\nBeach Chair,couch\n")
    extended = ClassVectors(vectors.tokens, vectors.matrix, read_aliases(table))
    assert extended.key("lilo") == "surfboard"
    assert extended.key("beach chair") == "couch"
    assert vectors.key("lilo") is None
    for wrong in ("lilo,", "7up,bottle", "a big red fire engine,truck", "lilo,surf board"):
        table.write_text(f"alias,token\n{wrong}\n")
        with pytest.raises(ValueError, match="line 2"):
            read_aliases(table)
