"""Methods: what is learnt from the views of an image, behind one contract."""

from .losses import nt_xent_loss, vicreg_loss
from .methods import METHODS, Batch, Method, Target, get_options

__all__ = [
    "METHODS",
    "Batch",
    "Method",
    "Target",
    "get_options",
    "nt_xent_loss",
    "vicreg_loss",
]
