"""The commands that train, measure and calibrate what decides, and have it explain itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from occpipe.config import load_config
from occpipe.errors import ConfigError

if TYPE_CHECKING:
    from occpipe.relations.calibration import Observation

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
    part: Annotated[
        str, typer.Option(help="test: the 15% of the images that the shipped file was not trained on; or all.")
    ] = "test",
    per_class: Annotated[bool, typer.Option(help="A line for each thing class, too.")] = False,
    unseen: Annotated[
        int, typer.Option(min=0, help="Leave this many thing classes out of a head trained anew, and score them.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """The intruder benchmark: own things of images against things that were never there, in the same context.

    Beside the scorer: the paper's formula on vectors of its recipe, and NPMI statistics of the training part.
    """
    from occpipe.relations.evaluation import evaluate, lines

    if part not in ("test", "all"):
        raise typer.BadParameter("use test or all", param_hint="--part")
    wanted: Literal["test", "all"] = "all" if part == "all" else "test"
    with _one_line():
        result = evaluate(things, stuff, relations, part=wanted)
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
        typer.echo(f"{'own and intruder':22} {'of these':10} {among}")
        typer.echo(f"{'own of these':22} {'any other':10} {against_all}")


@evaluate_app.command("segmenter")
def evaluate_segmenter(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="index.jsonl, label_space.json, images/ and labels/.")],
    model: Annotated[
        str | None, typer.Option(help="Instead of the config's: starter, maskrcnn-v2, hf:PATH, ...")
    ] = None,
    config: Annotated[str, typer.Option("--config", "-c", help="A config by name or path.")] = "local",
    part: Annotated[str, typer.Option(help="all, or held-out: what the starter was not trained on.")] = "all",
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

    if part not in ("all", "held-out"):
        raise typer.BadParameter("use all or held-out", param_hint="--part")
    segmenter = load_segmenter(load_config(config, [f"segmenter.model={model}"] if model else []))
    with _one_line():
        space = LabelSpace.read(data)
        photos = read_photos(data, space, held_out=True if part == "held-out" else None, limit=limit)
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
    from occpipe.relations.calibration import calibrate as fit
    from occpipe.relations.scorer import EmbeddingScorer
    from occpipe.relations.vectors import read_asset
    from occpipe.training.relations import write

    with _one_line():
        arrays, description = read_asset(relations)
        scorer = EmbeddingScorer.from_arrays(arrays, description)
        observed = list(_observations(output_uri, verdicts, things, stuff))
        result = fit(scorer, observed, false_removal, per_class=per_class)
        write(arrays, result.apply(description), out)
    typer.echo(f"{len(observed)} things, {sum(o.belongs is False for o in observed)} of them judged not to belong")
    typer.echo(f"log-odds x {result.scale:.3f} {result.shift:+.3f}; cut {result.default_cut} for {false_removal:.1%}")
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
    from occpipe.relations import EmbeddingScorer, load_relations

    with _one_line():
        scorer = load_relations("default", relations)
        if not isinstance(scorer, EmbeddingScorer):
            raise TypeError("the default scorer of a relation file is an EmbeddingScorer")
        around = _parse_context(context)
        score = scorer.relation(thing, around)
        shares = scorer.shares(thing, around)
        prior = scorer.prior(thing)
        alone = {item.context: item.relation for item in scorer.score(thing, around).evidence}
    table = Table("context", "confidence", "adds (log-odds)", "alone")
    for name, share in sorted(shares.items(), key=lambda pair: -pair[1]):
        table.add_row(name, f"{around[name]:g}", f"{share:+.2f}", f"{alone[name]:.2f}")
    console = Console(highlight=False)
    console.print(table)
    if ignored := [name for name in around if name not in shares]:
        console.print(f"not heard (unknown, repeated, or the thing itself): {', '.join(ignored)}")
    verdict = "remove, unrelated" if score < scorer.default_cut else "keep, related"
    console.print(f"{thing}: {prior:.2f} with nothing around it, {score:.2f} here; cut {scorer.default_cut}: {verdict}")


def _observations(
    output_uri: str | None, verdicts: Path | None, things: Path | None, stuff: Path | None
) -> Iterator[Observation]:
    from occpipe.published import Published
    from occpipe.relations import calibration
    from occpipe.relations.benchmark import read_labels

    if output_uri is None:
        if verdicts is not None or things is None or stuff is None:
            raise ConfigError("give OUTPUT, OUTPUT with --verdicts, or --things and --stuff")
        yield from calibration.observe_lists(read_labels(things, stuff))
        return
    if things is not None or stuff is not None:
        raise ConfigError("give OUTPUT or label lists, not both")
    published = Published(output_uri)
    policy = published.config.policy
    if verdicts is None:
        yield from calibration.observe_rows(published.rows(["objects", "stuff"]), policy)
    else:
        rows = published.rows(["image_id", "uri", "objects", "stuff"])
        yield from calibration.observe_verdicts(rows, policy, calibration.read_verdicts(verdicts))


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
        raise ConfigError(str(error).splitlines()[0]) from error


def _say(line: str) -> None:
    """A progress line, at once also where the output is a file."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _quiet(_: str) -> None:
    """Progress that nobody asked for."""
