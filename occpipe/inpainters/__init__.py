"""Inpainters behind one interface: a model that fills crops, and the engine that cuts them out of photos."""

from occpipe.inpainters.base import CropInpainter
from occpipe.inpainters.crops import Crop, Inpainter, MaskGrowth, check_fill, grow_mask
from occpipe.inpainters.opencv import TeleaInpainter
from occpipe.inpainters.starter import StarterInpainter
from occpipe.inpainters.torchscript import BigLamaInpainter, MiganInpainter

__all__ = [
    "BigLamaInpainter",
    "Crop",
    "CropInpainter",
    "Inpainter",
    "MaskGrowth",
    "MiganInpainter",
    "StarterInpainter",
    "TeleaInpainter",
    "check_fill",
    "grow_mask",
]
