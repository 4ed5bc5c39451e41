"""Train or evaluate the starter segmenter.

python jobs/train_segmenter.py --data DIR --out FILE --minutes 75      (2 CPU cores)
python jobs/train_segmenter.py --data DIR --out FILE --steps 12000 --batch 24 --device cuda
python jobs/train_segmenter.py --data DIR --evaluate FILE
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from occpipe.models.segmenters.starter import StarterSegmenter, input_shape
from occpipe.training import evaluation as ev
from occpipe.training.segmentation import TrainConfig, Trainer, export, exported_state
from occpipe.training.segmentation_data import LabelSpace, Photo, read_photos
from occpipe.training.stuff_tagger import fit_tagger, read_prior, read_together

TEMPERATURES = (0.7, 0.85, 1.0, 1.2, 1.4, 1.7)


def finish(trainer: Trainer, photos: list[Photo], held_out: list[Photo], lists: Path, out: Path) -> None:
    """Fit the tagger and the temperature of the averaged net and write it; held-out photos are left out of the lists."""
    net = trainer.averaged().to(trainer.device)
    own = {p.name.removeprefix("coco_") for p in held_out}
    prior = read_prior(lists, trainer.space, leave_out=own)
    tagger = fit_tagger(net, photos, prior, read_together(lists, trainer.space, leave_out=own), device=trainer.device)
    export(net, trainer.space, out, **tagger, steps=trainer.step)
    segmenter = StarterSegmenter(out, trainer.device)
    temperature = ev.fit_temperature(segmenter, held_out[::4], trainer.space, TEMPERATURES)
    export(net, trainer.space, out, **tagger, steps=trainer.step, temperature=temperature)
    print(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB, temperature {temperature}", flush=True)


def evaluate(weights: Path, photos: list[Photo], training: list[Photo], space: LabelSpace, device: str) -> None:
    """Print IoU per class, calibration and the tagger's Jaccard on held-out photos."""
    segmenter = StarterSegmenter(weights, device)
    iou = ev.evaluate_iou(segmenter, photos, space)
    for name, value in sorted(iou.items(), key=lambda item: -item[1]):
        print(f"{name:16} {value:.3f}{' *' if name in ev.KEY_CLASSES else ''}")
    print(
        f"photos {len(photos)}; mean IoU over {len(iou)} classes with held-out pixels {np.mean(list(iou.values())):.3f}"
    )
    print(f"mean IoU over the 20 classes marked * {ev.key_mean(iou):.3f}")
    unseen = [p for i, p in enumerate(photos) if i % 4]  # the temperature was fitted on every fourth
    (confidence, right), *_ = ev.pixel_confidence(segmenter, unseen, space)
    error = ev.calibration_error(confidence, right)
    print(f"pixels: accuracy {right.mean():.3f} confidence {confidence.mean():.3f} ECE {error:.3f}")
    listed = [p for p in photos if (p.tags >= 0).all()]
    truth = np.stack([p.tags for p in listed]) == 1
    tags = np.stack(
        [segmenter.probabilities([p.image], input_shape(p.image.shape[:2], segmenter.max_side))[1][0] for p in listed]
    )
    base = np.mean([p.tags == 1 for p in training if (p.tags >= 0).all()], axis=0)
    base_cut, _ = ev.best_cut(np.tile(base, (len(listed), 1)).astype(np.float32), truth)
    print(
        f"tagger: Jaccard {ev.jaccard(tags >= segmenter.meta.tag_cut, truth):.3f} at cut {segmenter.meta.tag_cut:.3f}, "
        f"{ev.jaccard(tags >= 0.1, truth):.3f} at 0.1; base rates at their best cut "
        f"{ev.jaccard(np.tile(base >= base_cut, (len(listed), 1)), truth):.3f}; {len(listed)} photos"
    )


def main(
    data: Annotated[Path, typer.Option(help="Folder with index.jsonl, images, labels and label_space.json.")],
    out: Annotated[Path | None, typer.Option(help="Weights to write; a checkpoint stands beside them.")] = None,
    evaluate_file: Annotated[Path | None, typer.Option("--evaluate", help="Weights to evaluate instead.")] = None,
    lists: Annotated[Path | None, typer.Option(help="Folder of the COCO lists [default: DATA/../labels].")] = None,
    start: Annotated[Path | None, typer.Option(help="Weights to go on from, instead of ImageNet features.")] = None,
    variant: Annotated[str, typer.Option(help="Backbone: lite0 or lite2.")] = "lite2",
    rate: Annotated[float, typer.Option(help="Factor on the learning rates.")] = 1.0,
    minutes: Annotated[float, typer.Option(help="Wall time of training.")] = 75.0,
    steps: Annotated[int | None, typer.Option(help="Steps of training, reproducible, instead of minutes.")] = None,
    batch: Annotated[int, typer.Option(help="Crops per step.")] = 12,
    crop: Annotated[int, typer.Option(help="Side of a crop in pixels, a multiple of 32.")] = 256,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads of torch; 1 on a machine whose cores are shared.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint beside --out.")] = False,
) -> None:
    """Train for --minutes or --steps and write --out, or print the figures of --evaluate on the held-out photos."""
    if (out is None) == (evaluate_file is None):
        raise typer.BadParameter("give either --out FILE to train or --evaluate FILE")
    torch.set_num_threads(threads)
    space = LabelSpace.read(data)
    photos, held_out = (read_photos(data, space, held_out=side) for side in (False, True))
    print(f"{len(photos)} training photos, {len(held_out)} held out, {len(space.classes)} classes", flush=True)
    if evaluate_file is not None:
        evaluate(evaluate_file, held_out, photos, space, device)
        return
    if out is None:
        return
    config = TrainConfig(variant=variant, steps=steps, minutes=minutes, batch=batch, crop=crop, rate=rate)
    begin = None if start is None else exported_state(start, space, variant)
    trainer = Trainer(space, photos, config, device=device, start=begin)
    checkpoint = out.with_suffix(".ckpt")
    if resume:
        trainer.resume(checkpoint)
    trainer.run(checkpoint)
    finish(trainer, photos, held_out, lists or data.parent / "labels", out)
    evaluate(out, held_out, photos, space, device)


if __name__ == "__main__":
    typer.run(main)
