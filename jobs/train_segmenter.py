"""Train or evaluate the starter segmenter.

    python jobs/train_segmenter.py --data DIR --out FILE --minutes 75
    python jobs/train_segmenter.py --data DIR --evaluate FILE
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from occpipe.training.segmentation import TrainConfig, Trainer, export
from occpipe.training.segmentation_data import LabelSpace, read_photos


def main(
    data: Annotated[Path, typer.Option(help="Folder with index.jsonl, images, labels and label_space.json.")],
    out: Annotated[Path | None, typer.Option(help="Weights to write, .safetensors; its checkpoint stands beside it.")],
    minutes: Annotated[float, typer.Option(help="Wall time of training.")] = 75.0,
    steps: Annotated[int | None, typer.Option(help="Steps of training; a reproducible bound, instead of minutes.")] = None,
    batch: Annotated[int, typer.Option(help="Crops per step.")] = 12,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads of torch.")] = 2,
    resume: Annotated[bool, typer.Option(help="Continue from the checkpoint beside --out.")] = False,
) -> None:
    torch.set_num_threads(threads)
    space = LabelSpace.read(data)
    photos = read_photos(data, space, held_out=False)
    print(f"{len(photos)} training photos, {len(space.classes)} classes", flush=True)
    trainer = Trainer(space, photos, TrainConfig(steps=steps, minutes=minutes, batch=batch), device=device)
    checkpoint = out.with_suffix(".ckpt")
    if resume:
        trainer.resume(checkpoint)
    trainer.run(checkpoint)
    export(trainer.averaged(), space, out)


if __name__ == "__main__":
    typer.run(main)
