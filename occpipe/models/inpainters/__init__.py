"""Inpainters behind one interface: a model that fills crops, and the engine that cuts them out of photos.

The models are not imported here: the decision about a mask needs its growth, and must not wait for torch.
"""

from occpipe.models.inpainters.base import CropInpainter
from occpipe.models.inpainters.crops import Crop, Inpainter, check_fill
from occpipe.models.inpainters.growth import MaskGrowth, grow_mask

__all__ = ["Crop", "CropInpainter", "Inpainter", "MaskGrowth", "check_fill", "grow_mask"]
