"""The benchmarks' own arithmetic: turns, median and range, counted memory; never a time."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import throughput
from benchmarks.throughput import table_of


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
