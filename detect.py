"""Detection: bring films with boxes in, train a detector on any encoder, score it and draw what it finds.

    python detect.py convert --source vinbigdata --target data/vindr
    python detect.py train --dataset vindr --init imagenet --label-fraction 0.25 --seed 0 [--test]
    python detect.py score --run results/runs/ID [--test]
    python detect.py draw --run results/runs/ID --target found.png [--films 4]

`train` also runs under torchrun. `detect.py WORD --help` lists a word's options. A mistake exits with 1 and one line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cxr_helpers.command import parse, run_command, say_notes
from cxr_helpers.config import DetectConfig, RuntimeConfig
from cxr_helpers.fields import Checked, declare, require


@dataclass(frozen=True, kw_only=True)
class Convert(Checked):
    """How films and boxes are brought in."""

    source: str = declare("", "folder with train.csv, train/ and, if there is one, source_split.csv")
    target: str = declare("", "a new folder; in CXR_DATA its name is the data set's")
    threshold: float = declare(0.4, "boxes are one finding above this", unit="IoU", low=0, high=1, below=True)
    seed: int = declare(0, "of the split into test, unlabelled, val and train", low=0)


@dataclass(frozen=True, kw_only=True)
class Train(Checked):
    """What else is asked of a training."""

    fresh: bool = declare(False, "train from the start even if the run is there")
    max_train_images: int | None = declare(None, "a fixed draw of at most so many films of train", low=2)
    max_eval_images: int | None = declare(None, "the same of val and of test, each", low=2)
    test: bool = declare(False, "score test as well; it is counted")


@dataclass(frozen=True, kw_only=True)
class Score(Checked):
    """Which run is scored."""

    run: str = declare("", "folder of a trained detector")
    test: bool = declare(False, "score test as well; it is counted")


@dataclass(frozen=True, kw_only=True)
class Draw(Checked):
    """Whose boxes are drawn."""

    run: str = declare("", "folder of a trained detector that has been scored on that split")
    target: str = declare("found.png", "the picture")
    split: str = declare("val", "of the films", choices=("val", "test"))
    films: int = declare(4, "the first so many", low=1, high=12)


KINDS: dict[str, list[type]] = {
    "convert": [Convert],
    "train": [DetectConfig, RuntimeConfig, Train],
    "score": [Score, RuntimeConfig],
    "draw": [Draw, RuntimeConfig],
}


def detect(words: list[str]) -> str | None:
    """Do what the first word says, and return what was done in words."""
    if words[:1] == ["--help"]:
        return __doc__
    require(words[:1] != [] and words[0] in KINDS, "the first word", f"one of {', '.join(KINDS)}", " ".join(words[:1]))
    word, *others = words
    asked = parse(dict.fromkeys(KINDS[word], ""), others, program=f"detect.py {word}", description=__doc__ or "")
    for name in ("source", "target", "run"):
        require(getattr(asked[0], name, "-") != "", name, "a folder", "none")

    from cxr_helpers.data import load_dataset
    from cxr_helpers.detect import convert, films_of, train_detector
    from cxr_helpers.report.detections import draw_run
    from cxr_helpers.runs import Run
    from cxr_helpers.study import score_in_words
    from cxr_helpers.writing import read_json

    if word == "convert":
        source, target = (Path(folder).expanduser() for folder in (asked[0].source, asked[0].target))
        return convert(source, target, asked[0].threshold, asked[0].seed)
    if word == "train":
        most = {name: getattr(asked[2], name) for name in ("max_train_images", "max_eval_images")}
        dataset = load_dataset(asked[0].dataset, asked[0].size, asked[1].root, **most)
        say_notes(dataset.name, dataset.provenance.get("notes", []))
        run = train_detector(asked[0], dataset, asked[1], fresh=asked[2].fresh)
        rank = int(os.environ.get("RANK", "0"))
        return None if rank else score_in_words(run, dataset, asked[1], test=asked[2].test)
    run = Run(path=Path(asked[0].run), record=read_json(Path(asked[0].run) / "config.json"))
    require(run.finished, "run", "the folder of a trained detector", asked[0].run)
    if word == "draw":
        return draw_run(run, asked[1], split=asked[0].split, count=asked[0].films, target=Path(asked[0].target))
    return score_in_words(run, films_of(run, asked[1]), asked[1], test=asked[0].test)


if __name__ == "__main__":
    run_command("detect.py", detect)
