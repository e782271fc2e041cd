"""Data sets as checked uint8 splits with provenance, from files, folders, downloads or phantoms."""

from .dataset import Dataset, Split, Task, draw_images, keep_labels
from .films import boxes_of, on_square
from .phantom import PHANTOMS
from .sources import MEDMNIST_FLAGS, data_root, load_dataset
