"""The values this look at the data depends on, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EDA", "EdaOptions"]


@dataclass(frozen=True, kw_only=True)
class EdaOptions:
    """What was set, not measured. The notebook's last table shows these lines."""

    z: float = 1.959964  # standard normal quantile of two-sided 95 % intervals
    fewest_expected: float = 5.0  # pairs of labels below this many expected images get no lift: Cochran's rule
    duplicate_side_px: int = 32  # ribs and wires are still there; 16 px of unfiltered grey only shows the pose
    detail_window_px: int = 5  # box blur taken off the thumbnail: brightness and pose of the chest go, edges stay
    duplicate_r: float = 0.9  # above all but a handful of the 86 million pairs of two patients in the study's data
    similarity_bins: int = 200  # of correlations from -1 to 1: .01 each
    nearby_pairs: int = 6  # the most similar pairs below the threshold, kept to look at what the threshold leaves out
    level_bins: int = 32  # of the 256 grey levels: 8 levels each, below the noise of a smooth film
    leak_side_px: int = 16  # of the pixels that the nearest-neighbour check of the leak compares
    leak_neighbours: int = 20  # k of that check: that of the per-epoch kNN probe
    samples_per_class: int = 6  # one row of the sample sheet; half as many where classes stand in two blocks
    sample_seed: int = 0  # of the draw of samples: nobody chose them by eye
    image_block: int = 512  # images (or rows of pairs) worked on at a time: bounds memory at 224 px


EDA = EdaOptions()
