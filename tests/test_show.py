"""What a notebook shows says what it is given, in a form that pages and people read; nothing else is written."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from matplotlib.figure import Figure

from cxr_helpers.config import PretrainConfig
from cxr_helpers.report import show
from cxr_helpers.report.show import claim, provenance, save_figure, save_table, value_table

NAN, LONG = float("nan"), "python train.py --dataset pneumoniamnist --size 64 --method vicreg --seed 0"
SUMMARY = pd.DataFrame(
    {
        **{"encoder": ["SimCLR <b>", "Supervised"], "auc": [0.9651, 0.97], "low": [0.95, 0.96], "high": [0.98, 0.985]},
        **{"seeds": [3, 1], "seeds_known": [True, True], "images": [1624, 624]},
        **{"gain": [5.44, NAN], "gain_low": [-3.0, NAN], "gain_high": [7.0, NAN], "p_holm": [0.0002, 0.2]},
    }
)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Data and metadata of what is displayed; files go to a folder of the test's own."""
    outputs: list[tuple[dict[str, Any], dict[str, Any]]] = []
    monkeypatch.setattr(show, "display", lambda data, raw, metadata: outputs.append((data, metadata)))
    monkeypatch.setenv("CXR_REPORT", str(tmp_path))
    return outputs


def test_a_table_shows_figures_with_their_intervals_and_marks_one_seed(shown: list[Any], tmp_path: Path) -> None:
    titles = {"encoder": "Encoder", "auc": "AUC", "gain": "points", "p_holm": "p", "images": "n"}
    save_table(SUMMARY, "04_summary", caption="Two encoders.", columns=titles)
    (table, _), (caption, about) = shown
    cells = re.findall(r"<t[dh]>(.*?)</t[dh]>", table["text/html"])
    assert [text.replace("\u00a0", " ") for text in cells] == [
        *("Encoder", "AUC", "points", "p", "n"),
        *("SimCLR &lt;b&gt;", "0.965 [0.950, 0.980]", "+5.4 [−3.0, +7.0]", "&lt; 0.001", "1,624"),
        *("Supervised†", "0.970 [0.960, 0.985]", "–", "0.200", "624"),
    ]
    assert "max-width:700px" in table["text/html"]
    assert caption["text/markdown"] == "Two encoders. † One seed." and about["cxr"] == {"kind": "caption"}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tables/04_summary.csv"), SUMMARY)


def test_a_figure_is_shown_as_written_in_few_colours(shown: list[Any], tmp_path: Path) -> None:
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot(np.sin(np.arange(50)))
    save_figure(figure, "04_name", caption="A sine.")
    (data, about), (caption, _) = shown
    drawn = PIL.Image.open(tmp_path / "figures/04_name.png")
    assert data["image/png"] == (tmp_path / "figures/04_name.png").read_bytes() and drawn.mode == "P"
    assert about == {"image/png": {"alt": "A sine.", "width": 400}} and caption["text/markdown"] == "A sine."
    with pytest.raises(ValueError, match="slug must be"):
        save_figure(Figure(), "04_../x", caption="")


def test_a_claim_shows_whether_it_holds_and_says_so_to_the_page(shown: list[Any]) -> None:
    said = {True: "**✓** S.", False: "**✗ not borne out by these runs:** S.", None: "**– not measured in this"}
    for holds in said:
        claim("S.", holds)
        data, about = shown.pop()
        assert data["text/markdown"].startswith(said[holds])
        assert about["cxr"] == {"kind": "claim", "holds": holds, "sentence": "S."}
    with pytest.raises(ValueError, match="holds must be True, False or None"):
        claim("S.", 0.97)  # type: ignore[arg-type]


def test_the_provenance_lists_every_run(shown: list[Any]) -> None:
    made = {"commit": "0123456789abc", "dirty": True, "device_name": "CPU", "command": LONG}
    run = SimpleNamespace(environment=made, record={"dataset": "phantom", "size": 64, "seed": 0})
    provenance([SimpleNamespace(label="SimCLR", runs=[run] * 2)])
    text = shown[0][0]["text/html"]
    assert text.startswith("<details><summary>Provenance: 2 runs</summary>")
    assert text.count("0123456789+") == text.count(f"<td>{LONG}</td>") == 2


def test_values_stand_with_their_default_where_that_is_another() -> None:
    table = value_table(PretrainConfig(size=64, online_lr=1e-4)).set_index("name")
    assert table.loc["size", ["method", "value", "unit", "default"]].tolist() == ["simclr", "64", "px", "224"]
    assert table.loc["online_lr", "value"] == "0.0001" and table.loc["seed", "default"] == "" and all(table["why"])
