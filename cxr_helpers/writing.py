"""Files that are whole or not there: written aside, flushed, renamed."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # torch is loaded where it is needed, so that a command's mistake is answered at once
    from torch import Tensor

__all__ = ["PART", "read_json", "whole_file", "write_bytes", "write_json", "write_table", "write_tensors"]

PART = ".tmp"  # added to the name of a file that is being written


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all: beside its place first, flushed to the disk, then renamed.

    Raises:
        OSError: it cannot be written; the message names the file, the reason and, on a full disk, the room left.
    """
    part = path.with_name(path.name + PART)
    try:
        with open(part, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"{path} could not be written: {error.strerror or error}{_way_out(error, path)}") from error
    finally:  # after an interruption, too
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _way_out(error: OSError, path: Path) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    return f" ({shutil.disk_usage(path.parent).free / 1e6:,.0f} MB free there); make room, then repeat the command"


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all (`whole_file`)."""
    with whole_file(path) as handle:
        handle.write(content)


def _json_default(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_bytes(path, (json.dumps(value, indent=1, default=_json_default) + "\n").encode())


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV atomically, seven significant digits; compressed where the name ends in `.gz`."""
    content = table.to_csv(index=False, float_format="%.7g", lineterminator="\n").encode()
    write_bytes(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors atomically, with text beside them."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata))


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds, empty where there is none."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
