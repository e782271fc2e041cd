"""Films with boxes: readers' tables in, one truth out."""

from .boxes import convert, fuse
