"""Films with boxes: readers' tables in, one truth out; a detector on any backbone, and what it is worth."""

from .boxes import convert, fuse, readers_boxes
from .sampling import draw_films_of_round, labelled_part, repeat_factors
from .score import (
    CORNERS,
    coco_ap,
    constant_boxes,
    rare_findings,
    readers_in_turn,
    resample_ap,
    table_of,
    voc_ap,
    voc_hits,
)
from .training import films_of, find_boxes, score_detector, train_detector
