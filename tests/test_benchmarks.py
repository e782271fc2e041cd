"""The benchmarks' own arithmetic: turns, median and range, counted memory; never a time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import throughput
from benchmarks.contenders import Build, Case, Step, augmentation, training
from benchmarks.throughput import Settings, kept_bytes, memory, race, table_of
from cxr_helpers.config import RuntimeConfig

CPU = torch.device("cpu")
QUIET = RuntimeConfig(device="cpu", precision="32-true", threads=1, progress=False)


def test_contenders_take_turns_and_an_absent_one_is_left_out_with_a_sentence(capsys: pytest.CaptureFixture) -> None:
    log: list[str] = []

    def fake(name: str) -> Build:
        return lambda: lambda: log.append(name)

    def absent() -> Step:
        raise ImportError("No module named 'peer'", name="peer")

    rows = {"a": fake("a"), "peer": absent, "b": fake("b")}
    table = race(rows, 8, Settings(rounds=3, seconds=0.0), CPU)
    assert log == ["a"] * 3 + ["b"] * 3 + ["a", "a", "b", "b"] * 3  # three to warm up, then two steps a turn
    assert table.contender.tolist() == ["a", "b"] and table["rounds"].tolist() == [3, 3]
    assert "peer is left out: peer is not installed" in capsys.readouterr().out


def test_the_table_pairs_rounds_and_gives_median_and_range() -> None:
    table = table_of(pd.DataFrame({"a": [10.0, 20.0, 60.0], "b": [5.0, 5.0, 20.0]})).set_index("contender")
    assert table.loc["a"].tolist() == [20, 10, 60, 1, 1, 1, 3]
    assert table.loc["b"].tolist() == [5, 5, 20, 3, 2, 4, 3]


@pytest.mark.usefixtures("tiny_net")
@pytest.mark.parametrize("only", ["training", "augmentation"])
def test_a_table_is_written(only: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "FOLDER", tmp_path)
    few = "--rounds 1 --seconds 0 --methods simclr --sizes 64 --batch 4 --threads 1"
    throughput.main(["--only", only, *few.split()])
    (path,) = tmp_path.glob(f"throughput-*-{only}.csv")
    table = pd.read_csv(path)
    assert table.contender[0] == "this package" and (table.per_second > 0).all() and (table.batch == 4).all()
    assert '"command": "python -m benchmarks.throughput' in path.with_suffix(".json").read_text()


def test_lightly_has_its_default_and_our_precision_as_rows_with_processes_on_a_gpu_alone() -> None:
    here, gpu = (training(Case(size=64, batch=8), QUIET, torch.device(kind), "bf16-mixed") for kind in ("cpu", "cuda"))
    assert sum("lightly, 32-true, its default" in name for name in here) == 1 == sum("bf16" in name for name in here)
    assert all(any(f"{count} loader processes" in name for name in gpu) for count in (4, 16))
    assert len(augmentation(Case(size=64, batch=8), CPU)) == 5


@pytest.mark.usefixtures("tiny_net")
def test_kept_memory_is_counted_once_and_grows_with_the_micro_batch() -> None:
    """Convolution input (the views) and output, BatchNorm and ReLU of TinyNet: a hand count bounds it from below."""
    four, eight, twelve = (kept_bytes(Case(size=64, batch=images), "32-true") for images in (4, 8, 12))
    assert twelve - eight == pytest.approx(eight - four, rel=1e-3)  # the loss' [2B, 2B] logits are all that bends it
    views, first, second = 2 * 64 * 64, 2 * 64 * 32 * 32, 2 * 32 * 4 * 4  # floats of an image's two views
    least = 4 * (views + 2 * first + first / 16 + 2 * second)  # conv1's input and output, ReLU's, pooled, conv2's
    assert least <= (eight - four) / 4 <= 1.5 * least
    table = memory(Case(size=64, batch=16), "32-true")
    assert table.micro_batch.tolist() == [16, 8, 4, 2] and table.activations_gib[2] == pytest.approx(four / 2**30)
    assert (table.sum_gib - table.activations_gib).tolist() == pytest.approx([table.sum_gib[2] - four / 2**30] * 4)
