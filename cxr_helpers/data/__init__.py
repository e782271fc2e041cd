"""Data sets as checked uint8 splits with provenance, from files, folders, downloads or phantoms."""

from .archives import SPLITS, SplitArrays, file_digests, read_npz
from .chest import Array, Parameters, draw_anatomy, draw_texture, render_chest
from .dataset import Dataset, Split, Task, draw_images, keep_labels, take_images
from .download import ChecksumError, DownloadError, download
from .folders import FolderData, read_folder
from .load import data_root, load_dataset
from .phantom import PHANTOM_VARIANTS, PhantomData, PhantomSplit, phantom_arrays, phantom_counts
from .shapes import SHAPE_CLASSES, render_shapes
from .sources import MEDMNIST_FLAGS, PHANTOMS, Source, cifar10, image_folder, medmnist_file, phantom
from .stratify import carve, choose_labelled

__all__ = [
    "MEDMNIST_FLAGS",
    "PHANTOMS",
    "PHANTOM_VARIANTS",
    "SHAPE_CLASSES",
    "SPLITS",
    "Array",
    "ChecksumError",
    "Dataset",
    "DownloadError",
    "FolderData",
    "Parameters",
    "PhantomData",
    "PhantomSplit",
    "Source",
    "Split",
    "SplitArrays",
    "Task",
    "carve",
    "choose_labelled",
    "cifar10",
    "data_root",
    "download",
    "draw_anatomy",
    "draw_images",
    "draw_texture",
    "file_digests",
    "image_folder",
    "keep_labels",
    "load_dataset",
    "medmnist_file",
    "phantom",
    "phantom_arrays",
    "phantom_counts",
    "read_folder",
    "read_npz",
    "render_chest",
    "render_shapes",
    "take_images",
]
