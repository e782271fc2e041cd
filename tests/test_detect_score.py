"""Average precision against closed forms and pycocotools; constant boxes; readers in turn."""

import io
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxr_helpers.detect import (
    coco_ap,
    constant_boxes,
    rare_findings,
    readers_in_turn,
    resample_ap,
    table_of,
    voc_ap,
    voc_hits,
)
from cxr_helpers.detect.score import PIXELS
from cxr_helpers.study.detection import Found, ap_table, compare_ap

CORNERS = ["left", "top", "right", "bottom"]
BOX = (0.2, 0.2, 0.4, 0.4)


def lines(*rows: tuple[float, ...]) -> pd.DataFrame:
    """film, finding, score, then corners (the same box if none are given)."""
    full = [(*row, *BOX) if len(row) == 3 else row for row in rows]
    return pd.DataFrame(full, columns=["film", "finding", "score", *CORNERS]).astype({"film": int, "finding": int})


def random_boxes(seed: int, films: int = 20, findings: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """True boxes, and detections near some of them among others that are nowhere near."""
    rng = np.random.default_rng(seed)
    truth = lines(*((film, rng.integers(findings), 1.0, *corner, *(corner + rng.uniform(0.1, 0.4, 2)))
                    for film in range(films) for corner in rng.uniform(0, 0.6, (rng.integers(1, 4), 2))))  # fmt: skip
    near = truth.sample(frac=0.8, random_state=seed)
    near[CORNERS] += rng.normal(0, 0.03, (len(near), 4))
    far = lines(*((film, rng.integers(findings), 1.0, *corner, *(corner + 0.2))
                  for film in range(films) for corner in rng.uniform(0, 0.8, (2, 2))))  # fmt: skip
    found = pd.concat([near, far, near.iloc[:7]], ignore_index=True)
    return found.assign(score=rng.permutation(len(found)) / len(found)), truth.drop(columns="score")


def test_a_box_is_hit_once_by_the_surest_detection_that_overlaps_it_most() -> None:
    truth = lines((0, 0, 1), (0, 1, 1), (1, 0, 1))
    shifted = (0, 0, 0.9, 0.25, 0.2, 0.45, 0.4)  # overlaps by .6
    found = lines((0, 0, 0.8), shifted, (0, 1, 0.1), (1, 1, 0.9), (0, 0, 0.7, 0.3, 0.3, 0.5, 0.5))
    assert voc_hits(found, truth).tolist() == [False, True, True, False, False]
    assert voc_hits(found, truth, iou=0.65).tolist() == [True, False, True, False, False]


def test_average_precision_in_closed_form() -> None:
    truth = lines(*((film, 0, 1) for film in range(4)))
    elsewhere = (0.7, 0.7, 0.9, 0.9)
    found = lines((0, 0, 0.9), (1, 0, 0.8, *elsewhere), (1, 0, 0.7), (2, 0, 0.6), (3, 0, 0.5, *elsewhere))
    ones = np.ones((1, 4))
    assert voc_ap(found, truth, ones, [0])[0, 0] == pytest.approx(0.25 * (1 + 3 / 4 + 3 / 4))  # the envelope
    assert np.isnan(voc_ap(found, truth, ones, [1])[0, 0])
    assert voc_ap(found.iloc[:0], truth, ones, [0])[0, 0] == 0
    tied = found.assign(score=1.0)
    assert voc_ap(tied, truth, ones, [0])[0, 0] == pytest.approx(3 / 5 * 3 / 4)  # precision times recall
    assert voc_ap(tied.iloc[::-1], truth, ones, [0]) == pytest.approx(voc_ap(tied, truth, ones, [0]))


def test_a_film_of_weight_two_counts_as_two_films() -> None:
    found, truth = random_boxes(0)
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 3, (5, 20))
    ours = voc_ap(found, truth, weights, [0, 1, 2])
    for row, times in zip(ours, weights, strict=True):
        copies = [(film, new) for new, film in enumerate(np.repeat(np.arange(20), times))]
        again = [pd.concat([table[table["film"] == film].assign(film=new) for film, new in copies], ignore_index=True)
                 for table in (found, truth)]  # fmt: skip
        assert row == pytest.approx(voc_ap(*again, np.ones((1, len(copies))), [0, 1, 2])[0], abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_coco_figures_are_those_of_pycocotools(seed: int) -> None:
    found, truth = random_boxes(seed)

    def boxes(table: pd.DataFrame) -> list[dict[str, object]]:
        at = table[CORNERS].to_numpy() * PIXELS
        sized = table.assign(width=table["right"] - table["left"], height=table["bottom"] - table["top"])
        at = PIXELS * sized[["left", "top", "width", "height"]].to_numpy()
        about = {"iscrowd": 0}
        return [
            {**about, "id": i + 1, "image_id": int(film) + 1, "category_id": int(kind) + 1, "bbox": list(box)}
            | {"area": float(box[2] * box[3])}
            for i, (film, kind, box) in enumerate(zip(table["film"], table["finding"], at, strict=True))
        ]

    known = COCO()
    known.dataset = {"info": {}, "images": [{"id": i + 1} for i in range(20)], "annotations": boxes(truth),
                     "categories": [{"id": i + 1} for i in range(3)]}  # fmt: skip
    with redirect_stdout(io.StringIO()):
        known.createIndex()
        scored = [one | {"score": score} for one, score in zip(boxes(found), found["score"], strict=True)]
        evaluation = COCOeval(known, known.loadRes(scored), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert coco_ap(found, truth, 20, 3) == pytest.approx({"ap50": evaluation.stats[1], "ap50_95": evaluation.stats[0]})
    assert coco_ap(found.iloc[:0], truth, 20, 3) == {"ap50": 0.0, "ap50_95": 0.0}


def test_intervals_are_over_films_and_seeds_are_kept_apart() -> None:
    found, truth = random_boxes(0)
    other = found.assign(score=found["score"].iloc[::-1].to_numpy())
    drawn = resample_ap([found, other], truth, np.arange(20), [0, 1, 2], num_resamples=300)
    ones = np.ones((1, 20))
    each = [voc_ap(one, truth, ones, [0, 1, 2])[0] for one in (found, other)]
    assert drawn.observed == pytest.approx(np.array(each)) and drawn.draws.shape == (300, 2, 3)
    assert drawn.num_groups == 20 and drawn.draws.std(axis=0).min() > 0.01
    row = Found(label="a", seeds=(found, other), truth=truth, films=np.arange(20)).ap([2, 0])
    assert row.observed == pytest.approx(np.array(each)[:, [2, 0]].mean(axis=1)) and row.draws.shape == (2000, 2)


def test_constant_boxes_are_the_medoids_with_the_findings_share() -> None:
    boxes = (torch.tensor([[*BOX, 0], [0.0, 0.0, 1.0, 1.0, 1]]), torch.tensor([[0.21, 0.2, 0.4, 0.4, 0]]),
             torch.tensor([[0.8, 0.8, 0.9, 0.9, 0]]))  # fmt: skip
    labels = torch.tensor([[1, 1], [1, 0], [1, 0]])
    made = constant_boxes(table_of(boxes), labels, 5)
    assert len(made) == 10 and set(made["film"]) == set(range(5))
    first = made[made["finding"] == 0]
    assert set(first["score"]) == {1.0} and first[CORNERS].iloc[0].tolist() in [
        pytest.approx(BOX),
        pytest.approx((0.21, 0.2, 0.4, 0.4)),
    ]
    assert made[made["finding"] == 1]["score"].tolist() == pytest.approx([1 / 3] * 5)
    assert rare_findings(torch.tensor([[1, 0, 1, 0], [1, 0, 0, 1], [1, 1, 0, 1]])) == (1, 2)


def test_each_reader_is_held_against_the_others_fused() -> None:
    rows = [
        (0, 0, "a", *BOX),
        (0, 0, "b", *BOX),
        (0, 0, "c", 0.22, 0.2, 0.42, 0.4),
        (0, 1, "c", *BOX),
        (1, 0, "a", *BOX),
    ]
    readers = pd.DataFrame(rows, columns=["film", "finding", "reader", *CORNERS])
    found, truth, films = readers_in_turn(readers, 0.4)
    assert films.tolist() == [0, 0, 0]  # the second film has one reader: nobody to hold against
    assert len(found) == 4 and len(truth) == 5 and set(found["score"]) == {1.0}
    first = truth[truth["film"] == 0]  # reader a's turn: b and c agree on finding 0, c alone saw finding 1
    assert first[first["finding"] == 0][CORNERS].to_numpy() == pytest.approx(np.array([[0.21, 0.2, 0.41, 0.4]]))
    assert voc_ap(found, truth, np.ones((1, 3)), [0, 1])[0] == pytest.approx([1.0, 0.0])


def test_differences_are_on_the_same_films_and_the_worse_is_worse() -> None:
    found, truth = random_boxes(0, films=60)
    hits = voc_hits(found, truth)
    good = found.assign(score=hits + found["score"])
    each = np.arange(60)
    both = [Found(label=n, seeds=(t,), truth=truth, films=each) for n, t in (("good", good), ("bad", found))]
    made = compare_ap(both, "good", "bad", [0, 1, 2])
    table = ap_table(both, {"all": [0, 1, 2], "rare": [0]}).set_index("encoder")
    assert made.better and made.difference == pytest.approx(100 * (table["value"]["good"] - table["value"]["bad"]))
    assert table["low"]["good"] < table["value"]["good"] < table["high"]["good"]
    assert np.isnan(compare_ap(both, "good", "none", [0]).difference)
