"""Memory needed against memory there: what does not fit is refused before it is allocated."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_helpers.data import load_dataset, memory


def with_files(monkeypatch: pytest.MonkeyPatch, folder: Path, meminfo: str, *limits: str) -> None:
    """The machine and one container as these texts describe them."""
    files = [folder / name for name in ("max", "current", "stat")]
    for file, text in zip(files, limits, strict=False):
        file.write_text(text)
    (folder / "meminfo").write_text(meminfo)
    monkeypatch.setattr(memory, "MEMINFO", folder / "meminfo")
    monkeypatch.setattr(memory, "LIMITS", (tuple(files),))


MACHINE = "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n"


def test_the_machines_available_memory_counts_where_no_container_limits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_files(monkeypatch, tmp_path, MACHINE)
    assert memory.available_bytes() == 8_000_000 * 1024
    with_files(monkeypatch, tmp_path, MACHINE, "max\n", "5\n", "inactive_file 0\n")
    assert memory.available_bytes() == 8_000_000 * 1024


def test_a_containers_limit_counts_less_what_it_uses_but_not_its_cache_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = "anon 100\ninactive_file 30\nactive_file 7\n"
    with_files(monkeypatch, tmp_path, MACHINE, "1000\n", "400\n", stat)
    assert memory.available_bytes() == 1000 - 400 + 30
    with_files(monkeypatch, tmp_path, MACHINE, "300\n", "400\n", stat)
    assert memory.available_bytes() == 0


def test_a_machine_that_says_nothing_has_all_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "LIMITS", ())
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}[name])
    assert memory.available_bytes() == 40960


def npz_with_header(path: Path, shape: tuple[int, ...]) -> None:
    """A file whose first array claims a shape that its bytes do not fill."""
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("train", "val", "test"):
            for part, true in (("images", (4, 28, 28)), ("labels", (4, 1))):
                buffer = io.BytesIO()
                claimed = shape if (split, part) == ("train", "images") else true
                np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": claimed})
                archive.writestr(f"{split}_{part}.npy", buffer.getvalue() + bytes(int(np.prod(true))))


def test_a_header_that_claims_terabytes_is_refused_without_allocating_them(tmp_path: Path) -> None:
    npz_with_header(tmp_path / "breastmnist.npz", (4, 28, 28))
    assert len(load_dataset("breastmnist", 28, tmp_path).train) == 4
    npz_with_header(tmp_path / "breastmnist.npz", (10**10, 28, 28))
    tracemalloc.start()
    with pytest.raises(ValueError, match="train_images is not as long as its header says"):
        load_dataset("breastmnist", 28, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_an_archive_that_does_not_fit_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"train": 2000, "val": 10, "test": 10}
    arrays = {f"{split}_images": np.zeros((count, 28, 28), np.uint8) for split, count in counts.items()}
    arrays |= {f"{split}_labels": np.zeros((count, 1), np.uint8) for split, count in counts.items()}
    np.savez_compressed(tmp_path / "breastmnist.npz", **arrays)  # a thousandth of its size
    monkeypatch.setattr(memory, "available_bytes", lambda: 3_000_000)
    with pytest.raises(ValueError, match=r"breastmnist\.npz .* 3\.15 MB needed and 3 MB available: take a smaller"):
        load_dataset("breastmnist", 28, tmp_path)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    assert len(load_dataset("breastmnist", 28, tmp_path).train) == 2000


@pytest.mark.parametrize(("mode", "factor"), [("L", 1), ("RGB", 3)])
def test_a_folder_that_does_not_fit_is_refused_by_its_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, factor: int
) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / "scans" / split / "a").mkdir(parents=True)
        Image.new(mode, (8, 8), 200 if mode == "L" else (200, 0, 0)).save(tmp_path / "scans" / split / "a" / "x.png")
    needed = 2 * 3 * factor * 100 * 100
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    assert len(load_dataset("scans", 100, tmp_path).train) == 1
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    with pytest.raises(ValueError, match="3 images of scans must fit into memory"):
        load_dataset("scans", 100, tmp_path)


def test_a_phantom_of_absurd_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"phantom at 1000000 px must fit .* 3e\+03 TB needed .* take a smaller size"):
        load_dataset("phantom", 10**6)
