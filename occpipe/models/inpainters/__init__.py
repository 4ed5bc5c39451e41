"""Inpainters behind one interface: a model that fills crops, and the engine that cuts crops out of photos.

The models are not imported here, because the decision needs the growth of masks without the import of torch.
"""

from occpipe.models.inpainters.base import CropInpainter
from occpipe.models.inpainters.crops import Crop, Inpainter, check_fill
from occpipe.models.inpainters.growth import MaskGrowth, grow_mask

__all__ = ["Crop", "CropInpainter", "Inpainter", "MaskGrowth", "check_fill", "grow_mask"]
