"""What detections are worth: average precision by film, class and draw of films, and what needs no detector for it.

Boxes are tables, a line each: `film, finding` (rows and columns of the split's labels), `left, top, right, bottom` as
fractions of the film's square; detections have a `score` as well.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou

from ..probe import Resampled, redraw
from .boxes import fuse

__all__ = [
    "coco_ap",
    "constant_boxes",
    "rare_findings",
    "readers_in_turn",
    "resample_ap",
    "table_of",
    "voc_ap",
    "voc_hits",
]  # fmt: skip

CORNERS = ["left", "top", "right", "bottom"]
OVERLAP = 0.4  # intersection over union above which a detection is a hit, as in VinBigData's challenge
PIXELS = 1000  # of a side for the COCO tools, which count areas: no figure here depends on it


def table_of(boxes: Sequence[Tensor]) -> pd.DataFrame:
    """The boxes of every film, each [n, 5] with its finding last, as a table."""
    film = np.repeat(np.arange(len(boxes)), [len(own) for own in boxes])
    every = torch.cat([*boxes, torch.empty(0, 5)]).numpy()
    return pd.DataFrame({"film": film, "finding": every[:, 4].astype(int)}).join(
        pd.DataFrame(every[:, :4].astype(np.float64), columns=CORNERS)
    )


def _overlaps(a: pd.DataFrame, b: pd.DataFrame) -> NDArray[np.float64]:
    return np.asarray(box_iou(*(torch.tensor(one[CORNERS].to_numpy(float)) for one in (a, b))))


def voc_hits(found: pd.DataFrame, truth: pd.DataFrame, iou: float = OVERLAP) -> NDArray[np.bool_]:
    """Which detections [D] are hits: best scores first, each is held against the box of its film and finding that it
    overlaps most, and hits if that is by more than `iou` and no other has hit that box before (VOC 2010)."""
    hit = np.zeros(len(found), bool)
    there = dict(list(truth.groupby(["film", "finding"])))
    ranked = found.reset_index(drop=True).sort_values("score", ascending=False, kind="stable")
    for key, own in ranked.groupby(["film", "finding"], sort=False):
        if key not in there:
            continue
        taken = set[int]()
        for place, overlaps in zip(own.index, _overlaps(own, there[key]), strict=True):
            best = int(overlaps.argmax())
            if overlaps[best] > iou and best not in taken:
                taken.add(best)
                hit[place] = True
    return hit


def voc_ap(
    found: pd.DataFrame,
    truth: pd.DataFrame,
    weights: NDArray[Any],
    findings: Sequence[int],
    *,
    iou: float = OVERLAP,
) -> NDArray[np.float64]:
    """Area under the envelope of precision over recall (VOC 2010) of films that count `weights` times.

    Detections of equal score come together: an order among them would be luck.

    Args:
        weights: [R, N films].
    Returns:
        [R, len(findings)], nan where no film that counts has the finding.
    """
    hit, columns = voc_hits(found, truth, iou), []
    for finding in findings:
        total = weights[:, truth.loc[truth["finding"] == finding, "film"].to_numpy(int)].sum(axis=1)  # a box, a column
        own = np.flatnonzero(found["finding"] == finding)
        own = own[np.argsort(-found["score"].to_numpy()[own], kind="stable")]
        scores = found["score"].to_numpy()[own]
        counts = weights[:, found["film"].to_numpy(int)[own]].astype(np.float64)
        hits = np.cumsum(counts * hit[own], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.nan_to_num(hits / np.cumsum(counts, axis=1))
            recall = hits / total[:, None]
        precision[:, :-1][:, scores[:-1] == scores[1:]] = 0.0
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        area = (np.diff(recall, axis=1, prepend=0) * envelope).sum(axis=1)
        columns.append(np.where(total > 0, area, np.nan))
    return np.stack(columns, axis=1)


def resample_ap(
    seeds: Sequence[pd.DataFrame],
    truth: pd.DataFrame,
    groups: NDArray[np.int64],
    findings: Sequence[int],
    *,
    num_resamples: int = 2000,
    iou: float = OVERLAP,
) -> Resampled:
    """`voc_ap` of each finding [S, K], of each training seed's detections on the same draws of films.

    Args:
        groups: of each film [N] what is drawn together: itself, or the film that several readers saw.
    """

    def statistic(weights: NDArray[Any]) -> NDArray[np.float64]:
        return np.stack([voc_ap(found, truth, weights, findings, iou=iou) for found in seeds], axis=1)

    return redraw(statistic, groups, num_resamples)


def coco_ap(found: pd.DataFrame, truth: pd.DataFrame, num_films: int, num_findings: int) -> dict[str, float]:
    """`ap50` and `ap50_95` as COCO defines them, by faster-coco-eval: 101 points of recall, ties in the order given."""
    from faster_coco_eval import COCO, COCOeval_faster

    def boxes(table: pd.DataFrame) -> list[dict[str, Any]]:
        corners = PIXELS * table[CORNERS].to_numpy(float)
        sides = corners[:, 2:] - corners[:, :2]
        lines = zip(table["film"], table["finding"], corners, sides, strict=True)
        return [
            {"id": i, "image_id": int(film) + 1, "category_id": int(kind) + 1, "bbox": [*at[:2].tolist(), *wh.tolist()],
             "area": float(wh.prod()), "iscrowd": 0}
            for i, (film, kind, at, wh) in enumerate(lines, 1)
        ]  # fmt: skip

    if found.empty:
        return {"ap50": 0.0, "ap50_95": 0.0}
    scored = [one | {"score": float(score)} for one, score in zip(boxes(found), found["score"], strict=True)]
    films = [{"id": i + 1, "width": PIXELS, "height": PIXELS} for i in range(num_films)]
    kinds = [{"id": i + 1, "name": str(i)} for i in range(num_findings)]
    with redirect_stdout(io.StringIO()):
        known = COCO({"info": {}, "images": films, "categories": kinds, "annotations": boxes(truth)})
        evaluation = COCOeval_faster(known, known.loadRes(scored), "bbox", print_function=lambda *_: None)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"ap50": float(evaluation.stats[1]), "ap50_95": float(evaluation.stats[0])}


def rare_findings(labels: Tensor) -> tuple[int, ...]:
    """The half of the findings that fewest training films have; labels [N, L]."""
    order = labels.sum(dim=0).argsort(stable=True).tolist()
    return tuple(sorted(order[: len(order) // 2]))


# ---- what needs no detector


def constant_boxes(truth: pd.DataFrame, labels: Tensor, num_films: int) -> pd.DataFrame:
    """The same box of each finding on every film: what a detector of no use finds.

    It is the medoid of the training films' boxes, which overlaps the others most; its score is the finding's share.

    Args:
        truth: boxes of the training films. labels: theirs, [N, L]. num_films: of the films to be scored.
    """
    parts = []
    for finding, own in truth.groupby("finding"):
        medoid = own.iloc[[_overlaps(own, own).mean(axis=1).argmax()]]
        part = pd.concat([medoid] * num_films, ignore_index=True).assign(film=range(num_films))
        parts.append(part.assign(score=float(labels[:, int(str(finding))].float().mean())))
    return pd.concat(parts, ignore_index=True)


def readers_in_turn(readers: pd.DataFrame, threshold: float) -> tuple[pd.DataFrame, pd.DataFrame, NDArray[np.int64]]:
    """Each reader of each film against the others, whose boxes are fused: what people agree on.

    Args:
        readers: boxes as they were drawn, with their `reader`. threshold: see `fuse`.
    Returns:
        the boxes found, all of score 1, the boxes held against them, and the film [T] of each turn: `film` is the turn.
    """
    found, truth, films = list[pd.DataFrame](), list[pd.DataFrame](), list[int]()
    for film, own in readers.groupby("film"):
        for reader in own["reader"].unique() if own["reader"].nunique() > 1 else ():
            here = {"film": len(films)}
            films.append(int(str(film)))
            found.append(own[own["reader"] == reader].assign(score=1.0, **here))
            for finding, boxes in own[own["reader"] != reader].groupby("finding"):
                fused = fuse(boxes[CORNERS].to_numpy(float), np.ones(len(boxes)), threshold)[0]
                truth.append(pd.DataFrame(fused, columns=CORNERS).assign(finding=finding, **here))
    return *(pd.concat(part, ignore_index=True) for part in (found, truth)), np.array(films)  # type: ignore[return-value]
