"""The benchmarks' own arithmetic: turns, medians, counted memory; never a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import pytest
import torch

from benchmarks import contenders, cost, scale
from benchmarks.contenders import Case
from benchmarks.throughput import Contender, Settings, cases, race, table_of, training_rows
from cxr_helpers.config import RuntimeConfig

CPU = torch.device("cpu")
CASE = Case(size=64, channels=1, batch=8)
QUIET = RuntimeConfig(device="cpu", precision="32-true", threads=1, progress=False)


def fake(name: str, log: list[str]) -> Contender:
    def build() -> Callable[[int], int]:
        def run(steps: int) -> int:
            log.append(name)
            return 10 * steps

        return run

    return Contender(name=name, build=build)


def absent() -> Contender:
    def build() -> Callable[[int], int]:
        raise ImportError("No module named 'peer'", name="peer")

    return Contender(name="peer", build=build)


def test_contenders_take_turns_and_an_absent_one_says_so() -> None:
    log: list[str] = []
    rows = [fake("a", log), absent(), fake("b", log)]
    race(rows, Settings(rounds=3, seconds=0.0), CPU, "test")
    assert log == ["a", "a", "b", "b"] + ["a", "b"] * 3  # two warm-up calls each
    table = table_of(rows, size=64)
    assert list(table.rounds) == [3, 0, 3] and list(table.note) == ["", "peer is not installed", ""]
    assert math.isnan(table.per_second[1]) and (table["size"] == 64).all()


def test_the_table_pairs_rounds_and_gives_median_and_range() -> None:
    a, b = Contender(name="a", build=lambda: len), Contender(name="b", build=lambda: len)  # type: ignore[arg-type]
    a.rates, b.rates = [10.0, 20.0, 60.0], [5.0, 5.0, 20.0]
    table = table_of([a, b])
    assert table.per_second.tolist() == [20, 5] and table.slowest.tolist() == [10, 5]
    assert table.fastest.tolist() == [60, 20] and table.ours_over_it.tolist() == [1, 3]


@pytest.mark.usefixtures("tiny_net")
@pytest.mark.parametrize("build", [contenders.ours, contenders.ceiling])
def test_a_training_contender_counts_images_and_learns(build: Callable[..., Callable[[int], int]]) -> None:
    run = build(CASE, QUIET)
    assert run(3) == 24 and run(9) == 72  # across the end of an epoch of 8 batches


def test_our_views_count_both_views_of_every_image() -> None:
    assert contenders.views_of_ours(CASE, CPU)(3) == 48
    assert contenders.views_of_torchvision(CASE, "pil")(1) == contenders.views_of_torchvision(CASE, "tensor")(1) == 16


def test_images_are_uint8_and_fill_their_range() -> None:
    images = contenders.images_of(Case(size=32, channels=3, batch=2), 5)
    assert images.shape == (5, 3, 32, 32) and images.dtype == torch.uint8
    assert images.min() < 10 and images.max() > 245


def test_both_precisions_and_loader_counts_of_lightly_are_rows() -> None:
    names = [row.name for row in training_rows(CASE, QUIET, CPU, "32-true")]
    assert len(names) == len(set(names)) == 6 and sum("default" in name for name in names) == 2
    on_gpu = [row.name for row in training_rows(CASE, QUIET, torch.device("cuda"), "bf16-mixed")]
    assert all(any(f"{n} loader processes" in name for name in on_gpu) for n in (4, 16))
    assert [case.channels for case in cases(CPU, (224, 32))] == [1, 3]


@pytest.mark.usefixtures("tiny_net")
def test_kept_memory_is_counted_once_and_grows_with_the_batch() -> None:
    """Convolution input (the views) and output, BatchNorm and ReLU of TinyNet: a hand count bounds it from below."""
    four, eight, twelve = (cost.kept_bytes(Case(size=64, channels=1, batch=b), "simclr", "32-true") for b in (4, 8, 12))
    assert twelve - eight == pytest.approx(eight - four, rel=1e-3)  # the loss' [2B, 2B] logits are all that bends it
    views, first, second = 2 * 64 * 64, 2 * 64 * 32 * 32, 2 * 32 * 4 * 4  # floats of an image's two views
    least = 4 * (views + 2 * first + first / 16 + 2 * second)  # conv1's input and output, ReLU's, pooled, conv2's
    assert least <= (eight - four) / 4 <= 1.5 * least


@pytest.mark.usefixtures("tiny_net")
def test_memory_is_in_proportion_to_the_micro_batch() -> None:
    settings = cost.Settings(sizes=(64,), batch=16, micro_batches=(8, 4))
    table: pd.DataFrame = cost.memory_table(settings, "32-true")
    for _, rows in table.groupby("method"):
        whole, half, quarter = rows.activations_gib
        assert whole == pytest.approx(2 * half) == pytest.approx(4 * quarter)
        parts = rows.activations_gib + rows.constant_mib / 1024 + rows.weights_gib + rows.views_gib
        assert rows.sum_gib.tolist() == pytest.approx(parts.tolist())


def test_the_large_studys_arithmetic() -> None:
    text = cost.estimate(cost.Settings(images=1_000_000, epochs=100, gpus=8, rate=2500, efficiency=0.9))
    assert "46.7 GiB" in text and "100,000,000" in text
    assert f"{1e8 / (8 * 2500 * 0.9) / 3600:.2f}" in text
    assert "pass --rate" in cost.estimate(cost.Settings())


@pytest.mark.usefixtures("tiny_net")
def test_scale_varies_one_thing_a_block() -> None:
    blocks = scale.blocks(CPU, QUIET)
    assert [row.name for row in blocks["data set size, 224 px"]] == ["1,024 images", "78,468 images"]
    assert [row.name for row in blocks["batch size, 64 px"]] == [f"{n} images a batch" for n in (64, 16, 128)]
    assert blocks["image size"][0].build()(2) == 32
