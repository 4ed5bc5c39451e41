"""The commands that train, measure and calibrate what decides, and have it explain itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from occpipe.config import Policy, load_config
from occpipe.errors import ConfigError
from occpipe.types import Reason, Verdict

if TYPE_CHECKING:
    from occpipe.published import Published
    from occpipe.relations.calibration import Observation
    from occpipe.relations.scorer import EmbeddingScorer

evaluate_app = typer.Typer(help="Measure models on labelled data of your own.", no_args_is_help=True)

_Relations = Annotated[
    Path | None, typer.Option("--relations", help="A relation file (.safetensors); without it, the shipped one.")
]
_Things = Annotated[Path | None, typer.Option(help="Thing classes per image, TSV(.gz): image, classes.")]
_Stuff = Annotated[Path | None, typer.Option(help="Stuff classes per image, TSV(.gz): image, classes.")]


def train_embeddings(
    captions: Annotated[list[Path], typer.Option(help="Captions: TSV(.gz), COCO JSON or text; repeatable.")],
    out: Annotated[Path, typer.Option(help="Relation file to write, .safetensors.")],
    things: _Things = None,
    stuff: _Stuff = None,
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

    with _one_line():
        train(
            captions,
            things,
            stuff,
            out,
            seed=seed,
            alias_file=aliases,
            lists_in_vectors=lists_in_vectors,
            progress=_say,
        )


@evaluate_app.command("relations")
def evaluate_relations(
    things: Annotated[Path, typer.Option(help="Thing classes per image, TSV(.gz): image, classes.")],
    stuff: Annotated[Path, typer.Option(help="Stuff classes per image, TSV(.gz): image, classes.")],
    relations: _Relations = None,
    all_images: Annotated[
        bool, typer.Option("--all", help="Score all images, not only the 15% that training leaves out.")
    ] = False,
    per_class: Annotated[bool, typer.Option(help="A line for each thing class, too.")] = False,
    unseen: Annotated[
        int,
        typer.Option(min=0, help="Leave this many things out of a head trained anew, and score those (on the 15%)."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """The intruder benchmark: own things of images against things that were never there, in the same context.

    Beside the scorer: the paper's formula on vectors of its recipe, and NPMI statistics of the training part.
    """
    from occpipe.relations.evaluation import evaluate, lines

    with _one_line():
        result = evaluate(things, stuff, relations, all_images=all_images)
        if unseen:
            from occpipe.training.relations import evaluate_unseen

            names, among, against_all = evaluate_unseen(things, stuff, relations, count=unseen, progress=_quiet)
            result["unseen"] = {"things": names, "among": asdict(among), "against_all": asdict(against_all)}
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
        return
    for line in lines(result, per_class=per_class):
        typer.echo(line)
    if unseen:
        typer.echo(f"without {', '.join(names)} in the lists, by their caption vectors alone:")
        typer.echo(f"{'own and intruder':27} {'of these':10} {among}")
        typer.echo(f"{'own of these':27} {'any other':10} {against_all}")


@evaluate_app.command("segmenter")
def evaluate_segmenter(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="index.jsonl, label_space.json, images/ and labels/.")],
    model: Annotated[
        str | None, typer.Option(help="Instead of the config's: starter, maskrcnn-v2, hf:PATH, ...")
    ] = None,
    config: Annotated[str, typer.Option("--config", "-c", help="A config by name or path.")] = "local",
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only photos that the starter was not trained on.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="An even spread of that many photos.")] = None,
    overlays: Annotated[Path | None, typer.Option(help="Folder for a picture of each photo with its segments.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure a segmenter on labelled photos: IoU per class, whether scores can be trusted, and stuff of the image.

    The format of DIR, in which each set of photos may label some of the classes only, stands in docs/segmenters.md.
    """
    from occpipe.models import load_segmenter
    from occpipe.training import evaluation
    from occpipe.training.segmentation_data import LabelSpace, read_photos

    segmenter = load_segmenter(load_config(config, [f"segmenter.model={model}"] if model else []))
    with _one_line():
        space = LabelSpace.read(data)
        photos = read_photos(data, space, held_out=True if held_out else None, limit=limit)
    result = evaluation.evaluate_segmenter(segmenter, photos, space)
    if overlays is not None:
        from occpipe.preview import draw_segments

        overlays.mkdir(parents=True, exist_ok=True)
        for photo in photos:
            (seen,) = segmenter([photo.image])
            draw_segments(photo.image, seen).save(overlays / f"{Path(photo.name).name}.png")
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        for line in evaluation.lines(result):
            typer.echo(line)


def calibrate(
    output_uri: Annotated[
        str | None, typer.Argument(metavar="[OUTPUT]", help="The output of an earlier run, to calibrate on its things.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Relation file to write, .safetensors.")] = Path("relations.safetensors"),
    verdicts: Annotated[
        Path | None, typer.Option(help="Human verdicts on OUTPUT, CSV: image, object, verdict (keep or remove).")
    ] = None,
    things: _Things = None,
    stuff: _Stuff = None,
    relations: _Relations = None,
    false_removal: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Share of the things that belong that may be removed.")
    ] = 0.02,
    per_class: Annotated[bool, typer.Option(help="Hold that share within each class, not over all of them.")] = False,
) -> None:
    """Turn scores into the probability that a thing belongs, and pick the cut for a wanted share of false removals.

    From label lists (--things, --stuff), from an earlier run alone (its things are taken to belong, and the share is
    held within each class), or from an earlier run with human verdicts. Use the file with --set relations.vectors=FILE.
    """
    from occpipe.published import Published
    from occpipe.relations.calibration import calibrate as fit
    from occpipe.relations.scorer import EmbeddingScorer
    from occpipe.relations.vectors import check_target, read_asset, write_asset

    with _one_line():
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


def explain(
    thing: Annotated[str, typer.Argument(metavar="THING", help="A class name.")],
    context: Annotated[
        str, typer.Option(help="The other classes of the photo: a,b,c, or with confidences: a=0.9,b=0.4")
    ],
    relations: _Relations = None,
) -> None:
    """Print how far a thing belongs to a context, what each context class adds, and the verdict at the default cut."""
    from occpipe.relations.scorer import EmbeddingScorer
    from occpipe.relations.vectors import read_asset

    with _one_line():
        scorer = EmbeddingScorer.from_arrays(*read_asset(relations))
        around = _parse_context(context)
        score = scorer.relation(thing, around)
        shares = scorer.shares(thing, around)
        prior = scorer.prior(thing)
        alone = {item.context: item.relation for item in scorer.score(thing, around).evidence}
    table = Table("context", "confidence", "adds (log-odds)", "alone")
    for name, share in sorted(shares.items(), key=lambda pair: -pair[1]):
        table.add_row(escape(name), f"{around[name]:g}", f"{share:+.2f}", f"{alone[name]:.2f}")
    Console().print(table)
    for name in around:
        if name not in shares:
            typer.echo(f"not heard: {name} ({_why_unheard(scorer, thing, name, around)})")
    if len(shares) < Policy().min_context:
        verdict, reason = Verdict.KEEP, Reason.NO_CONTEXT
    elif score < scorer.default_cut:
        verdict, reason = Verdict.REMOVE, Reason.UNRELATED
    else:
        verdict, reason = Verdict.KEEP, Reason.RELATED
    cut = f"cut {scorer.default_cut:.4f}"
    typer.echo(f"{thing}: {prior:.2f} with nothing around it, {score:.2f} here; {cut}: {verdict}, {reason}")


def _why_unheard(scorer: EmbeddingScorer, thing: str, name: str, around: dict[str, float]) -> str:
    key = scorer.vectors.key(name)
    if key is None:
        return "unknown"
    if key == scorer.vectors.key(thing):
        return "the thing itself"
    return f"another name of {key}, counted once" if around[name] else "confidence 0"


def _from_lists(
    scorer: EmbeddingScorer, verdicts: Path | None, things: Path | None, stuff: Path | None
) -> list[Observation]:
    from occpipe.relations.benchmark import read_labels
    from occpipe.relations.calibration import observe_lists

    if verdicts is not None or things is None or stuff is None:
        raise ConfigError("give OUTPUT, OUTPUT with --verdicts, or --things and --stuff")
    return observe_lists(read_labels(things, stuff), scorer)


def _from_output(
    scorer: EmbeddingScorer, published: Published, verdicts: Path | None, things: Path | None, stuff: Path | None
) -> list[Observation]:
    from occpipe.observations import ROWS, observe_rows, observe_verdicts, read_verdicts

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


@contextmanager
def _one_line() -> Iterator[None]:
    """What is wrong with the user's files and values, as one line and exit code 2."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(next(iter(str(error).splitlines()), repr(error))) from error


def _say(line: str) -> None:
    """A progress line, at once also where the output is a file."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _quiet(_: str) -> None:
    """Progress that nobody asked for."""
