"""Train the class vectors and the relation head, or print the intruder benchmark.

python jobs/train_embeddings.py --captions FILE --things FILE --stuff FILE --out FILE
python jobs/train_embeddings.py --things FILE --stuff FILE --evaluate [--relations FILE]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from occpipe.training.relations import evaluate, train


def say(line: str) -> None:
    """A progress line, at once also where the output is a file."""
    print(line, flush=True)


def main(
    things: Annotated[Path, typer.Option(help="Thing classes per image, TSV(.gz): image, classes.")],
    stuff: Annotated[Path, typer.Option(help="Stuff classes per image, TSV(.gz): image, classes.")],
    captions: Annotated[
        list[Path] | None, typer.Option(help="Captions: TSV(.gz), COCO JSON or text; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Relation file to write, .safetensors.")] = None,
    relations: Annotated[
        Path | None, typer.Option(help="Relation file to evaluate; without it, the shipped one.")
    ] = None,
    evaluation: Annotated[
        bool, typer.Option("--evaluate", help="Print the intruder benchmark on the test part.")
    ] = False,
    lists_in_vectors: Annotated[bool, typer.Option(help="Train the vectors on the label lists, too.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of vectors and head.")] = 1,
) -> None:
    """Train, evaluate, or both."""
    if out is None and not evaluation:
        raise typer.BadParameter("give --out to train, --evaluate to measure, or both")
    if out is not None:
        if not captions:
            raise typer.BadParameter("training needs --captions")
        train(captions, things, stuff, out, seed=seed, lists_in_vectors=lists_in_vectors, progress=say)
    if evaluation:
        evaluate(things, stuff, relations or out, progress=say)


if __name__ == "__main__":
    typer.run(main)
