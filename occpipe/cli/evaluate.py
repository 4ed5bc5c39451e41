"""`occpipe evaluate`: measure models on data of your own."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from occpipe.cli.common import ConfigOption, RelationFile, SetOption, one_line
from occpipe.core.config_file import load_config

evaluate_app = typer.Typer(help="Measure models on labelled data of your own.", no_args_is_help=True)


@evaluate_app.command("relations")
def evaluate_relations(
    things: Annotated[Path, typer.Option(help="Thing classes per image, TSV(.gz): image, classes.")],
    stuff: Annotated[Path, typer.Option(help="Stuff classes per image, TSV(.gz): image, classes.")],
    relations: RelationFile = None,
    all_images: Annotated[
        bool, typer.Option("--all", help="Score all images, not only the 15% that training leaves out.")
    ] = False,
    per_class: Annotated[bool, typer.Option(help="A line for each thing class, too.")] = False,
    unseen: Annotated[
        int,
        typer.Option(min=0, help="Train a head without this many things, and score those (on the 15%)."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """The intruder benchmark: an image's own things against things of other images, in the same context.

    Baselines: the paper's formula on vectors of its recipe, and NPMI statistics of the training part.
    """
    from occpipe.models.relations.evaluation import evaluate, lines

    with one_line():
        result = evaluate(things, stuff, relations, all_images=all_images)
        if unseen:
            from occpipe.training.relations import evaluate_unseen

            names, among, against_all = evaluate_unseen(things, stuff, relations, count=unseen, progress=lambda _: None)
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
    """Measure a segmenter on labelled photos: IoU per class, calibration of scores, and stuff of the image.

    docs/segmenters.md has the format of DIR. Each set of photos may label only some of the classes.
    """
    from occpipe.models.loading import load_segmenter
    from occpipe.training import evaluation
    from occpipe.training.segmentation_data import LabelSpace, read_photos

    segmenter = load_segmenter(load_config(config, [f"segmenter.model={model}"] if model else []))
    with one_line():
        space = LabelSpace.read(data)
        photos = read_photos(data, space, held_out=True if held_out else None, limit=limit)
    result = evaluation.evaluate_segmenter(segmenter, photos, space)
    if overlays is not None:
        from occpipe.analysis.pages.drawing import draw_segments

        overlays.mkdir(parents=True, exist_ok=True)
        for photo in photos:
            (seen,) = segmenter([photo.image])
            draw_segments(photo.image, seen).save(overlays / f"{Path(photo.name).name}.png")
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        for line in evaluation.lines(result):
            typer.echo(line)


@evaluate_app.command("inpainter")
def evaluate_inpainter(
    photos: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of photos, *.jpg or *.png.")],
    models: Annotated[str, typer.Option(help="Inpainters to compare, by name.")] = "starter,telea,navier-stokes",
    things: Annotated[
        Path | None, typer.Option(help="Labelled photos: outlines for the holes, and things to paste and remove again.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Photos, an even spread of the folder's.")] = 24,
    min_pixels: Annotated[int, typer.Option(min=0, help="Only photos of so many pixels, width times height.")] = 0,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only photos and things that the starter was not trained on.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the holes and of the pasted things.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="A contact sheet to write: original, hole, each result.")] = None,
    config: Annotated[str, typer.Option("--config", "-c", help="A config by name or path.")] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure inpainters side by side: holes in photos whose content is known, and pasted things that are removed again.

    All see the same holes, and run as in a job. The perceptual distance needs the extra `train`.
    """
    from occpipe.training.inpaint_report import compare, lines

    with one_line():
        result = compare(
            photos,
            models.split(","),
            things,
            config=config,
            count=count,
            min_pixels=min_pixels,
            held_out=held_out,
            seed=seed,
            sheet=sheet,
            progress=lambda line: typer.echo(line, err=True),
        )
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
        return
    for line in lines(result):
        typer.echo(line)


@evaluate_app.command("scenes")
def evaluate_scenes(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="index.jsonl, label_space.json, images/ and labels/.")],
    things: Annotated[Path, typer.Option(help="Thing classes per image, TSV(.gz): image, classes.")],
    stuff: Annotated[Path, typer.Option(help="Stuff classes per image, TSV(.gz): image, classes.")],
    ordinary: Annotated[Path | None, typer.Option(help="A folder of photos from which nothing should go.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Scenes to compose.")] = 220,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only photos that the starter was not trained on.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="A contact sheet to write: outlined intruders, what goes.")] = None,
    config: ConfigOption = "local",
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure the whole way from pixels to what is removed, on scenes with a thing that does not belong.

    Things are cut out of labelled photos and pasted where the label lists say that they do not belong. The format of DIR
    stands in docs/segmenters.md, what the figures mean in docs/scenes.md. Nothing is filled, so no inpainter is loaded.
    """
    from occpipe.training import scene_evaluation
    from occpipe.training.scenes import compose, digest, read_statistics

    settings = load_config(config, overrides or ())
    with one_line():
        scenes = compose(data, read_statistics(things, stuff), count, held_out=held_out or None, seed=seed)
        photos = scene_evaluation.read_folder(ordinary) if ordinary else ()
        judge = scene_evaluation.Judge(settings)
        result = scene_evaluation.evaluate_scenes(judge, scenes, photos, lambda line: typer.echo(line, err=True))
    result["digest"] = digest(scenes)
    if sheet is not None:
        drawn = scenes[: scene_evaluation.MAX_DRAWN]
        scene_evaluation.sheet((s.image, s.outline, judge(s.image)[1]) for s in drawn).save(sheet)
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
        return
    for line in scene_evaluation.lines(result):
        typer.echo(line)
    typer.echo(f"digest of the scenes {result['digest']}")
