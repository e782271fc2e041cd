"""DICOM films as grey images, if `pydicom` is there: through the film's own window, dense tissue bright."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["DICOM", "decode_dicom", "require_pydicom"]

DICOM = ".dcm"


def require_pydicom(folder: Path) -> None:
    """Raise a ValueError with the way out where DICOM films cannot be read."""
    if find_spec("pydicom") is None:
        raise ValueError(f"{folder} holds DICOM films, which need pydicom: pip install 'cxr-helpers[dicom]'")


def decode_dicom(content: bytes) -> Image.Image:
    """A film as "L" where it names a window (its first; PS3.3 C.11.2.1.2), else as "F" in its own units."""
    import pydicom
    from pydicom.pixels import apply_rescale

    film = pydicom.dcmread(io.BytesIO(content))
    stored, inverted = film.pixel_array, film.get("PhotometricInterpretation") == "MONOCHROME1"  # its lowest is white
    if film.get("WindowCenter") in (None, "") or film.get("WindowWidth") in (None, ""):
        stored = 2**film.BitsStored - 1 - stored if inverted else stored
        return Image.fromarray(np.asarray(apply_rescale(stored, film), np.float32))
    values = np.asarray(apply_rescale(stored, film), np.float32)
    centre, width = (np.ravel(film[name].value)[0] for name in ("WindowCenter", "WindowWidth"))
    shown = np.clip((values - (float(centre) - 0.5)) / max(float(width) - 1, 1.0) + 0.5, 0, 1)
    return Image.fromarray(np.rint(255 * (1 - shown if inverted else shown)).astype(np.uint8))
