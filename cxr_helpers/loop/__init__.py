"""The training loop: one step, one epoch, its feed, its optimiser, what may interrupt it."""

from .checkpoints import Keeper, discard_checkpoints, load_checkpoint
from .devices import make_fabric, mixed_precision
from .guards import DivergedError, Progress, signs_of_collapse, stop_if_diverged
from .interrupts import StoppedError, StopSignals
from .loop import Training, build_training, check_fit, train_epoch
from .monitor import validate
from .optim import LARS, lr_at

__all__ = [
    "LARS",
    "DivergedError",
    "Keeper",
    "Progress",
    "StopSignals",
    "StoppedError",
    "Training",
    "build_training",
    "check_fit",
    "discard_checkpoints",
    "load_checkpoint",
    "lr_at",
    "make_fabric",
    "mixed_precision",
    "signs_of_collapse",
    "stop_if_diverged",
    "train_epoch",
    "validate",
]
