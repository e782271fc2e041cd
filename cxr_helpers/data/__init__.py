"""Data sets as checked uint8 splits with provenance, from files, folders, downloads or phantoms."""

from .archives import SPLITS, SplitArrays, file_digests, read_npz
from .dataset import Dataset, Split, Task, draw_images, keep_labels, take_images
from .download import ChecksumError, DownloadError, download
from .folders import FolderData, read_folder
from .load import data_root, load_dataset
from .sources import MEDMNIST_FLAGS, PHANTOMS, Source, cifar10, image_folder, medmnist_file, phantom
from .stratify import carve, choose_labelled

__all__ = [
    "MEDMNIST_FLAGS",
    "PHANTOMS",
    "SPLITS",
    "ChecksumError",
    "Dataset",
    "DownloadError",
    "FolderData",
    "Source",
    "Split",
    "SplitArrays",
    "Task",
    "carve",
    "choose_labelled",
    "cifar10",
    "data_root",
    "download",
    "draw_images",
    "file_digests",
    "image_folder",
    "keep_labels",
    "load_dataset",
    "medmnist_file",
    "phantom",
    "read_folder",
    "read_npz",
    "take_images",
]
