"""Images on the device or copied a batch ahead: the same batches, and a limit that is respected and said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import texture_config

from cxr_helpers.config import RuntimeConfig
from cxr_helpers.data import Dataset
from cxr_helpers.loop import ImageFeed
from cxr_helpers.pretrain import pretrain

CPU = torch.device("cpu")
IMAGES = torch.arange(12 * 16, dtype=torch.uint8).view(12, 1, 4, 4)
ROWS = torch.tensor([[3, 1, 11], [0, 5, 5], [2, 7, 4]])


@pytest.mark.parametrize("limit", [None, 0.0, 1.0])
def test_batches_are_the_rows_asked_for_wherever_the_images_lie(limit: float | None) -> None:
    feed = ImageFeed(IMAGES, CPU, limit)
    assert feed.resident == (limit != 0)
    batches = list(feed.batches(ROWS))
    assert len(batches) == 3 and all(torch.equal(b, IMAGES[rows]) for b, rows in zip(batches, ROWS, strict=True))
    assert list(feed.batches(ROWS[:0])) == []


def test_a_batch_is_sent_while_the_one_before_it_is_in_use() -> None:
    asked = []

    def rows() -> object:
        for row in ROWS:
            asked.append(len(asked))
            yield row

    feed = ImageFeed(IMAGES, CPU, 0.0).batches(rows())  # type: ignore[arg-type]
    next(feed)
    assert asked == [0, 1]
    next(feed)
    assert asked == [0, 1, 2]


def test_the_limit_is_exact_and_said() -> None:
    exact = IMAGES.nbytes / 2**30
    assert ImageFeed(IMAGES, CPU, exact).resident and not ImageFeed(IMAGES, CPU, exact * 0.999).resident
    assert str(ImageFeed(IMAGES, CPU)) == "0.00 GiB in the memory of cpu"
    assert "copied a batch ahead: the limit on cpu is 0.00 GiB" in str(ImageFeed(IMAGES, CPU, 0.0))


@pytest.mark.usefixtures("tiny_net")
def test_a_run_is_the_same_wherever_its_images_lie(textures: Dataset, runtime: RuntimeConfig) -> None:
    near = pretrain(texture_config(), textures, runtime)
    far = pretrain(texture_config(), textures, replace(runtime, images_gib=0.0, results=f"{runtime.results}-far"))
    a, b = near.backbone().net.state_dict(), far.backbone().net.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert "in the memory of cpu" in near.environment["images"] and "copied a batch ahead" in far.environment["images"]
