"""Files that are whole or not there: written aside, flushed, renamed."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # torch is loaded where it is needed, so that a command's mistake is answered at once
    from torch import Tensor

__all__ = ["PART", "read_json", "write_bytes", "write_json", "write_table", "write_tensors"]

PART = ".tmp"  # added to the name of a file that is being written


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all: beside its place first, flushed to the disk, then renamed.

    Raises:
        OSError: it cannot be written; the message names the file, the reason and the way out.
    """
    part = path.with_name(path.name + PART)
    try:
        with open(part, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{path} could not be written: {reason}; make room there, then repeat the command") from error
    finally:  # after an interruption, too
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole, keys in the order given; mappings and numpy's numbers are taken, too."""

    def plain(value: Any) -> Any:
        return value.item() if isinstance(value, np.generic) else dict(value)

    write_bytes(path, (json.dumps(value, indent=1, default=plain) + "\n").encode())


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV whole, seven significant digits; compressed where the name ends in `.gz`."""
    content = table.to_csv(index=False, float_format="%.7g", lineterminator="\n").encode()
    write_bytes(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors whole, with text beside them."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata))


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds, empty where there is none; a ValueError where it is damaged."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        way = f"restore {path.name}, or remove it and repeat the command with --fresh"
        raise ValueError(f"{path} must be a whole JSON file, got a damaged one: {way}")
    return found
