"""Peak memory of a batch of photos at 640 px in the segment actor, above that of the loaded model.

Two nets: a tiny one, whose peak is what occpipe adds by merging, and one of EoMT-L's width with six of its 24 layers, since
activations are those of one layer at a time. What is measured is a CPU in single precision. A GPU takes half of that for
the forward pass, in bfloat16, and the same for merging. EoMT-L's largest tensors are the features that its masks are made
of, photos x 1,024 x 160 x 160; two live at a time.
Run: python benchmarks/gpu_memory.py [--batch 32] [--large-batch 4]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from threading import Event, Thread

import psutil

from benchmarks.gpu_actor import TINY
from benchmarks.inpaint_large import made_up_photo
from benchmarks.shapes import EOMT_L, save_eomt
from occpipe.core.classes import coco_stuff
from occpipe.models.segmenters.huggingface import HuggingFaceSegmenter

LAYERS = {"num_hidden_layers": 6}


class PeakMemory:
    """The highest resident memory of this process while it runs, in bytes, looked at each 5 ms."""

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = psutil.Process().memory_info().rss
        self._ended = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._ended.wait(0.005):
            self.peak = max(self.peak, process.memory_info().rss)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--large-batch", type=int, default=4)
    options = parser.parse_args()
    names = [one.name for one in coco_stuff()][:133]
    photo = made_up_photo()[::5, ::5][:480, :640].copy()
    for name, shape, count in (("tiny", TINY, options.batch), ("EoMT-L's width", EOMT_L | LAYERS, options.large_batch)):
        with tempfile.TemporaryDirectory(prefix="gpu-memory-") as folder:
            save_eomt(Path(folder), shape, names)
            segmenter = HuggingFaceSegmenter(Path(folder), threshold=0.0)
        segmenter([photo[:64, :64].copy()])
        with PeakMemory() as memory:
            segmenter([photo] * count)
        above = (memory.peak - memory.before) / 2**30
        print(f"{name}, batch of {count}: {above:.2f} GB, {above / count:.3f} GB a photo, above the model")


if __name__ == "__main__":
    main()
