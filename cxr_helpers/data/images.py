"""One image file as a square of 8 bits, or the reason why it is skipped.

Every image becomes 8-bit grey or RGB: the EXIF orientation is applied; 16-bit grey is divided by 257, of 16-bit
colour the high byte counts; palettes, CMYK and the like become RGB; transparency is laid over black; of several
frames the first counts. An image is grey where its channels differ by at most `GREY_TOLERANCE`. The largest centred
square is kept and resized with Pillow's antialiased bicubic filter.

Skipped (`SKIPPED`) are empty files; damaged or truncated ones (a PNG's checksums are verified, which Pillow does not
do; JPEG and WebP have none, so bits flipped inside cannot be seen); images above `MOST_PIXELS` and files above
`MOST_BYTES`, which are not decoded; files without permission to read; links that lead nowhere or in a circle, pipes
and folders called like images.
"""

from __future__ import annotations

__all__ = ["EXTENSIONS", "SKIPPED", "Decoded", "decode_image"]

import hashlib
import io
import stat
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
GREY_TOLERANCE = 3  # of 255: a lossy WebP of a grey image differs by 1
MOST_PIXELS = 1 << 26  # 8192 x 8192: four times the largest digital radiograph (43 cm at 100 µm); decoded 0.3 GB
MOST_BYTES = 1 << 29  # of a file: four bytes for each of those pixels, and as much again
SKIPPED = ("empty", "damaged or truncated", "too large", "not a file", "not readable")
BROKEN_IMAGE = (  # what Pillow's decoders raise, in practice, on a damaged file
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


class Decoded(NamedTuple):
    """An image as it was read."""

    pixels: np.ndarray  # uint8 [S, S] or [S, S, 3]
    digest: bytes
    side_px: int  # of the square before resizing


def decode_image(path: Path, size: int) -> Decoded | str:
    """A file as a square of uint8, or why it is skipped.

    Args:
        path: of the file, whatever it is.
        size: side of the square, px.

    Returns:
        The image, or one of `SKIPPED`.
    """
    content = _read(path)
    if isinstance(content, str):
        return content
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                return "too large"
            if opened.format == "PNG" and not _is_whole_png(content):
                return "damaged or truncated"
            opened.load()
            image = _eight_bit(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError:
        return "too large"
    except BROKEN_IMAGE:
        return "damaged or truncated"
    side_px = min(image.size)
    if image.size != (size, size):
        left, top = ((extent - side_px) // 2 for extent in image.size)
        square = image.crop((left, top, left + side_px, top + side_px))  # resize(box=…) would look beyond it
        image = square.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and _is_grey(pixels[::8, ::8]) and _is_grey(pixels):  # few pixels tell most colours
        pixels = np.asarray(image.convert("L"))
    return Decoded(pixels, hashlib.sha256(content).digest(), side_px)


def _read(path: Path) -> bytes | str:
    """The bytes of a file, or why there are none to decode."""
    try:
        about = path.stat()
    except OSError:  # a link that leads nowhere, or in a circle
        return "not a file"
    if not stat.S_ISREG(about.st_mode):
        return "not a file"
    if not 0 < about.st_size <= MOST_BYTES:
        return "too large" if about.st_size else "empty"
    try:
        return path.read_bytes()
    except OSError:
        return "not readable"


def _is_whole_png(content: bytes) -> bool:
    """Whether every chunk has its checksum and the last one is there."""
    place, name = 8, b""  # after the signature
    while name != b"IEND":
        if place + 12 > len(content):
            return False
        length, name = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        end = place + 8 + length
        if zlib.crc32(content[place + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        place = end + 4
    return True


def _is_grey(pixels: np.ndarray) -> bool:
    red, green, blue = (pixels[..., i].astype(np.int16) for i in range(3))
    lowest, highest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    return int((highest - lowest).max()) <= GREY_TOLERANCE


def _eight_bit(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as "L" or "RGB"."""
    if image.mode.startswith("I"):  # "I;16" and its kin, or 16 bits in "I"
        wide = np.asarray(image).astype(np.uint32).clip(0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), with_alpha).convert("RGB")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")
