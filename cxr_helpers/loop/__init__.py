"""The training loop: any task's epochs, a batch's gradient in parts, its optimizer, device and monitors."""

from .devices import make_fabric, mixed_precision, place_images
from .fit import DivergedError, Task, discard_checkpoint, fit
from .monitor import BestEpoch, embedding_panel, validate
from .optim import LARS, build_optimizer, lr_at
from .record import seed_of, train_into
from .step import gather, step_gradient
