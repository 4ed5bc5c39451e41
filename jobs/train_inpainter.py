"""Train the net of the starter inpainter, which corrects what patches have filled.

python jobs/train_inpainter.py --photos DIR --labelled DIR --out FILE --minutes 120      (2 CPU cores)
python jobs/train_inpainter.py --photos DIR --labelled DIR --out FILE --steps 40000 --batch 32 --crop 192 --device cuda
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from occpipe.training.fills import FillSampler, HoleSampler, make_fills, read_scenes
from occpipe.training.holes import read_cutouts
from occpipe.training.inpainting import InpaintConfig, InpaintTrainer, export


def main(
    photos: Annotated[Path, typer.Option(help="Folder of photos, *.jpg.")],
    out: Annotated[Path, typer.Option(help="Weights to write; a checkpoint stands beside them.")],
    labelled: Annotated[
        Path | None, typer.Option(help="Labelled photo folder: more photos, and outlines of things.")
    ] = None,
    fills: Annotated[int, typer.Option(help="Crops filled with patches first, in a folder beside --out.")] = 4096,
    minutes: Annotated[float, typer.Option(help="Wall time of training.")] = 84.0,
    steps: Annotated[int | None, typer.Option(help="Steps of training, reproducible, instead of minutes.")] = None,
    batch: Annotated[int, typer.Option(help="Crops per step.")] = 16,
    crop: Annotated[int, typer.Option(help="Side of a crop in pixels, a multiple of 16.")] = 128,
    margin: Annotated[int, typer.Option(help="Pixels by which the crops that are filled are larger.")] = 16,
    start: Annotated[Path | None, typer.Option(help="Weights to go on from; they guide the fills, too.")] = None,
    lr: Annotated[float, typer.Option(help="Learning rate; the encoder's is a fifth of it.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of the crops and holes.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads of torch; 1 on a machine whose cores are shared.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint beside --out.")] = False,
) -> None:
    """Train for --minutes or --steps and write --out. Held-out photos are never read."""
    torch.set_num_threads(threads)
    if crop % 16:
        raise typer.BadParameter("--crop must be a multiple of 16")
    config = InpaintConfig(steps=steps, minutes=minutes, batch=batch, crop=crop, lr=lr, lr_backbone=lr / 5, seed=seed)
    stored = crop + margin
    scenes = read_scenes(photos, labelled, crop=stored)
    outlines = [] if labelled is None else [c.mask for c in read_cutouts(labelled, held_out=False)]
    print(f"{len(scenes)} photos, {len(outlines)} outlines", flush=True)
    make_fills(HoleSampler(scenes, outlines, stored, config.seed), fills, out.with_suffix(".fills"), start)
    sampler = FillSampler(out.with_suffix(".fills"), crop, config.seed)
    trainer = InpaintTrainer(sampler, config, device=device, start=start)
    checkpoint = out.with_suffix(".ckpt")
    if resume:
        trainer.resume(checkpoint)
    trainer.run(checkpoint)
    export(trainer.average, out)
    print(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    typer.run(main)
