"""The commands that train, calibrate and explain the relation scorer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from occpipe.cli.common import ConfigOption, RelationFile, SetOption, StuffLists, ThingLists, one_line, print_line
from occpipe.core.classes import is_thing
from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError

if TYPE_CHECKING:
    from occpipe.core.config import Config, Policy
    from occpipe.core.types import ClassShare, Segmentation
    from occpipe.dataset.reader import Published
    from occpipe.models.relations.calibration import Observation
    from occpipe.models.relations.scorer import EmbeddingScorer


def train_embeddings(
    captions: Annotated[list[Path], typer.Option(help="Captions: TSV(.gz), COCO JSON or text; repeatable.")],
    out: Annotated[Path, typer.Option(help="Relation file to write, .safetensors.")],
    things: ThingLists = None,
    stuff: StuffLists = None,
    aliases: Annotated[
        Path | None, typer.Option(help="Your own aliases beside the shipped ones, CSV: alias, token.")
    ] = None,
    lists_in_vectors: Annotated[bool, typer.Option(help="Train the vectors on the label lists, too.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of vectors and scoring head.")] = 1,
) -> None:
    """Train class vectors from image captions and a scoring head from label lists; same input, same bytes.

    Without lists, the classes named together in a caption stand for those of an image. Use the file with
    --set relations.vectors=FILE.
    """
    from occpipe.training.relations import train

    with one_line():
        train(
            captions,
            things,
            stuff,
            out,
            seed=seed,
            alias_file=aliases,
            lists_in_vectors=lists_in_vectors,
            progress=print_line,
        )


def calibrate(
    output_uri: Annotated[
        str | None, typer.Argument(metavar="[OUTPUT]", help="The output of an earlier run, to calibrate on its things.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Relation file to write, .safetensors.")] = Path("relations.safetensors"),
    verdicts: Annotated[
        Path | None, typer.Option(help="Human verdicts on OUTPUT, CSV: image, object, verdict (keep or remove).")
    ] = None,
    things: ThingLists = None,
    stuff: StuffLists = None,
    relations: RelationFile = None,
    false_removal: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Share of the things that belong that may be removed.")
    ] = 0.02,
    per_class: Annotated[bool, typer.Option(help="Hold that share within each class, not over all of them.")] = False,
    scenes: Annotated[
        Path | None, typer.Option(help="Labelled photos to compose scenes of, for the chance that a thing goes by.")
    ] = None,
    ordinary: Annotated[
        Path | None, typer.Option(help="With --scenes: a folder of photos in which all belongs.")
    ] = None,
    count: Annotated[int, typer.Option(min=20, help="With --scenes: scenes to compose.")] = 400,
    config: ConfigOption = "local",
    overrides: SetOption = None,
) -> None:
    """Turn scores into the probability that a thing belongs, and choose the cut for a share of false removals.

    From label lists (--things, --stuff), from an earlier run alone (its things are taken to belong, and the share is
    held within each class), or from an earlier run with human verdicts. With --scenes and --ordinary (and the lists) the
    chance that a thing does not belong is fitted instead, on what the config's segmenter sees; photos must not have trained
    it. Use the file with --set relations.vectors=FILE.
    """
    if scenes is not None:
        settings = load_config(config, overrides or ())
        with one_line():
            _calibrate_on_scenes(settings, scenes, ordinary, things, stuff, relations, count, out)
        return
    from occpipe.dataset.reader import Published
    from occpipe.models.relations.calibration import calibrate as fit
    from occpipe.models.relations.scorer import EmbeddingScorer
    from occpipe.models.relations.vectors import check_target, read_asset, write_asset

    with one_line():
        check_target(out)
        published = None if output_uri is None else Published(output_uri)
        arrays, description = read_asset(relations or (published.relations if published else None))
        scorer = EmbeddingScorer.from_arrays(arrays, description)
        if published is None:
            observed = _from_lists(scorer, verdicts, things, stuff)
        else:
            observed = _from_output(scorer, published, verdicts, things, stuff)
        result = fit(scorer, observed, false_removal, per_class=per_class)
        write_asset(arrays, result.apply(description), out)
    typer.echo(f"{result.things} things, {result.strange} of them judged not to belong")
    typer.echo(
        f"log-odds x {result.scale:.3f} {result.shift:+.3f}; cut {result.default_cut:.4f} for {false_removal:.1%}"
    )
    moved = sorted(((abs(p), t, p) for t, p in result.priors.items() if abs(p) >= 0.05), reverse=True)
    typer.echo("class priors: " + (", ".join(f"{token} {prior:+.2f}" for _, token, prior in moved[:12]) or "none"))
    typer.echo(f"wrote {out}")


def _calibrate_on_scenes(
    settings: Config,
    scenes: Path,
    ordinary: Path | None,
    things: Path | None,
    stuff: Path | None,
    relations: Path | None,
    count: int,
    out: Path,
) -> None:
    from occpipe.models.loading import load_segmenter
    from occpipe.models.relations.scorer import EmbeddingScorer
    from occpipe.models.relations.vectors import check_target, read_asset, write_asset
    from occpipe.training.scene_calibration import fit, lines, observe
    from occpipe.training.scene_evaluation import read_folder
    from occpipe.training.scenes import compose, read_statistics

    if ordinary is None or things is None or stuff is None:
        raise ConfigError("--scenes needs --ordinary, --things and --stuff")
    check_target(out)
    arrays, description = read_asset(relations or settings.relations.vectors)
    scorer = EmbeddingScorer.from_arrays(arrays, description)
    composed = compose(scenes, read_statistics(things, stuff), count, held_out=None)
    photos = (image for _, image in read_folder(ordinary))
    segmenter = load_segmenter(settings)
    decision = fit(observe(segmenter, scorer, settings.policy, composed, photos, typer.echo))
    decisions = dict(description.get("decisions", {})) | {settings.segmenter.model: decision.as_json()}
    write_asset(arrays, dict(description) | {"decisions": decisions}, out)
    for line in lines(decision):
        typer.echo(line)
    typer.echo(f"wrote {out}")


def explain(
    thing: Annotated[str, typer.Argument(metavar="THING", help="A class name, or what it may be: cat=0.5,dog=0.3")],
    context: Annotated[
        str, typer.Option(help="The other classes of the photo: a,b,c, or with confidences: a=0.9,b=0.4")
    ],
    relations: RelationFile = None,
    config: ConfigOption = "local",
    overrides: SetOption = None,
) -> None:
    """Print how far a thing belongs to a context, what each context class adds, and the verdict.

    The decision is that of `clean` with this config: doubtful classes are no context, and another thing counts as far as
    it belongs to the stuff. A thing without a probability has full confidence, and a size between the limits.
    """
    from occpipe.core.types import ClassShare
    from occpipe.models.relations.decide import context_of, decide, rule_of
    from occpipe.models.relations.scorer import EmbeddingScorer
    from occpipe.models.relations.vectors import read_asset

    settings = load_config(config, overrides or ())
    policy, file = settings.policy, relations or settings.relations.vectors
    if settings.relations.method != "default":
        raise ConfigError(f"only the default relations can be explained, not {settings.relations.method}")
    with one_line():
        scorer = EmbeddingScorer.from_arrays(*read_asset(file))
        confidences = _parse_context(context)
        classes = sorted((ClassShare(*pair) for pair in _parse_context(thing).items()), key=lambda c: -c.probability)
        thing, confidence = classes[0]
        things = [(name, confidence) for name, confidence in confidences.items() if is_thing(name)]
        stuff = {name: confidence for name, confidence in confidences.items() if not is_thing(name)}
        around = context_of([(thing, confidence), *things], stuff, policy, scorer).around(thing)
        if not around:
            raise ConfigError("nothing in --context was seen surely enough: policy.min_score, min_stuff_confidence")
        score = scorer.relation(thing, around)
        shares = scorer.shares(thing, around)
        prior = scorer.prior(thing)
        relation = scorer.score(thing, around)
        alone = {item.context: item.relation for item in relation.evidence}
    table = Table("context", "counts as", "adds (log-odds)", "alone")
    for name, share in sorted(shares.items(), key=lambda pair: -pair[1]):
        table.add_row(escape(name), f"{around[name]:.2f}", f"{share:+.2f}", f"{alone[name]:.2f}")
    Console().print(table)
    for name in confidences:
        if name not in shares:
            typer.echo(f"not counted: {name} ({_why_not_counted(scorer, thing, name, around)})")
    for name, probability in classes[1:]:
        other = scorer.score(name, around).score
        typer.echo(f"or {name}, {probability:.2f}: {'unknown' if other is None else f'{other:.2f} here'}")
    rule = rule_of(policy, scorer, settings.segmenter.model)
    found = decide(_scene(classes, things, stuff, policy), scorer, policy, rule)[0]
    typer.echo(f"{thing}: {prior:.2f} with nothing around it, {score:.2f} here")
    typer.echo(f"relation {found.relation:.4f}, cut {rule.cut:.4f}: {found.verdict}, {found.reason}")


def _scene(
    classes: Sequence[ClassShare], things: Iterable[tuple[str, float]], stuff: Mapping[str, float], policy: Policy
) -> Segmentation:
    """A scene with a thing that has these classes and a size between the policy's limits, and with other things."""
    import numpy as np

    from occpipe.core.types import Segment, Segmentation

    height = 1000
    mask = np.zeros((height, height), np.uint8)
    mask[: round((policy.min_area + policy.max_area) / 2 * height)] = 1
    chance = min(1.0, sum(share.probability for share in classes))
    thing = Segment.from_mask(classes[0].label, True, classes[0].probability, mask, classes, chance)
    others = (Segment.from_mask(name, True, score, 1 - mask) for name, score in things)
    return Segmentation(height, height, (thing, *others), dict(stuff))


def _why_not_counted(scorer: EmbeddingScorer, thing: str, name: str, around: dict[str, float]) -> str:
    key = scorer.vectors.key(name)
    if key is None:
        return "unknown"
    if key == scorer.vectors.key(thing):
        return "the thing itself"
    return f"another name of {key}, counted once" if around.get(name) else "seen with too little confidence"


def _from_lists(
    scorer: EmbeddingScorer, verdicts: Path | None, things: Path | None, stuff: Path | None
) -> list[Observation]:
    from occpipe.models.relations.benchmark import read_labels
    from occpipe.models.relations.calibration import observe_lists

    if verdicts is not None or things is None or stuff is None:
        raise ConfigError("give OUTPUT, OUTPUT with --verdicts, or --things and --stuff")
    return observe_lists(read_labels(things, stuff), scorer)


def _from_output(
    scorer: EmbeddingScorer, published: Published, verdicts: Path | None, things: Path | None, stuff: Path | None
) -> list[Observation]:
    from occpipe.models.relations.observations import ROWS, observe_rows, observe_verdicts, read_verdicts

    if things is not None or stuff is not None:
        raise ConfigError("give OUTPUT or label lists, not both")
    rows, policy = published.rows(list(ROWS)), published.config.policy
    if verdicts is None:
        return observe_rows(rows, policy, scorer)
    judged, missed = observe_verdicts(rows, policy, scorer, read_verdicts(verdicts))
    if missed:
        typer.echo(f"{len(missed)} verdicts match no object of {published.uri}, the first: {missed[0]}", err=True)
    if not judged:
        raise ConfigError(f"{verdicts}: no verdict matches an object of {published.uri}")
    return judged


def _parse_context(text: str) -> dict[str, float]:
    """`sea, sand=0.4` as class to confidence, 1 where none is given."""
    context = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, confidence = part.partition("=")
        try:
            context[name.strip()] = float(confidence) if confidence else 1.0
        except ValueError:
            raise ConfigError(f"--context: {confidence!r} is no confidence") from None
    return context
