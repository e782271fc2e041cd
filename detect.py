"""Films with boxes, in VinBigData's layout, become a folder that `train.py --dataset` and any COCO tool read.

    python detect.py convert --source vinbigdata --target data/vindr

Boxes of several readers are fused, films without a finding left out, and the films divided once, without a film in two
parts. A mistake exits with 1 and one line, and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxr_helpers.command import parse, run_command
from cxr_helpers.fields import Checked, declare, require


@dataclass(frozen=True, kw_only=True)
class Convert(Checked):
    """How films and boxes are brought in."""

    source: str = declare("", "folder with train.csv, train/ and, if there is one, source_split.csv")
    target: str = declare("", "a new folder; in CXR_DATA its name is the data set's")
    threshold: float = declare(0.4, "boxes are one finding above this", unit="IoU", low=0, high=1, below=True)
    seed: int = declare(0, "of the split into test, unlabelled, val and train", low=0)


def detect(words: list[str]) -> str:
    """Do what the first word says, and return what was done in words."""
    require(words[:1] in (["convert"], ["--help"]), "the first word", "convert", " ".join(words[:1]))
    words = [word for word in words if word != "convert"]
    (asked,) = parse({Convert: ""}, words, program="detect.py", description=__doc__)
    for name in ("source", "target"):
        require(bool(getattr(asked, name)), name, "a folder", getattr(asked, name))

    from cxr_helpers.detect import convert

    return convert(Path(asked.source).expanduser(), Path(asked.target).expanduser(), asked.threshold, asked.seed)


if __name__ == "__main__":
    run_command("detect.py", detect)
