"""Pretrain one encoder, probe it, and print where the run lies and what the probe measured.

    python train.py --dataset pneumoniamnist --size 64 --method vicreg --policy ssl --epochs 50 --seed 0
    python train.py --encoder imagenet --dataset pneumoniamnist --size 64

The second line probes an encoder as it is. The same command again returns the finished run at once, or resumes an
interrupted one. Ctrl-C and SIGTERM save at the next step, print the command that goes on, and exit with 130 and 143; a
mistake exits with 1 and one line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from cxr_helpers.command import parse, run_command, say_notes
from cxr_helpers.config import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.fields import Checked, declare, require
from cxr_helpers.recipes import resolve


@dataclass(frozen=True, kw_only=True)
class Command(Checked):
    """What concerns the command line alone."""

    encoder: tuple[str, ...] = declare(
        (), "train nothing, probe this encoder as it is: random, imagenet or a file; several are read side by side"
    )
    stage: str | None = declare(None, "with --encoder: probe the mean of this stage's map, such as layer3")
    join: str | None = declare(None, "with several encoders: pca or logits; None probes them side by side")
    test: bool = declare(False, "score the test split too; the run's record counts how often")
    max_train_images: int | None = declare(None, "train on a fixed draw of so many images; None takes all", low=1)
    max_eval_images: int | None = declare(None, "probe on a fixed draw of so many of val, and of test", low=1)
    fresh: bool = declare(False, "retrain from the start even if the run is there")
    export: str | None = declare(None, "write the backbone to this folder, or to a .pth file as a plain state_dict")


KINDS = {PretrainConfig: "", RuntimeConfig: "", ProbeConfig: "probe.", Command: ""}  # with what their flags begin
OF_ANY_ENCODER = ("dataset", "size", "backbone", "seed")  # the fields that `--encoder` leaves a meaning


def train(words: list[str]) -> str | None:
    """Train, probe, and return the closing line; None in processes other than torchrun's first, which only train."""
    asked, runtime, probe, command = parse(KINDS, words, program="train.py", description=__doc__)
    config = resolve(asked)
    if command.encoder:
        for name, value in vars(asked).items():
            same = name in OF_ANY_ENCODER or value == getattr(PretrainConfig(), name)
            require(same, name, "left out where --encoder trains nothing", value)
    for name in () if command.encoder else ("stage", "join"):
        value = getattr(command, name)
        require(value is None, name, "left out without --encoder", value)

    from cxr_helpers.data import load_dataset  # torch is loaded here: a mistyped word has its answer by now
    from cxr_helpers.evaluate import evaluate, probe_of, require_folds, summary_line
    from cxr_helpers.models import export_run, require_target
    from cxr_helpers.pretrain import pretrain

    if command.export is not None:
        require_target(command.export)  # before hours of training, not after
    most = {"max_train_images": command.max_train_images, "max_eval_images": command.max_eval_images}
    dataset = load_dataset(config.dataset, config.size, runtime.root, **most)
    say_notes(dataset.name, dataset.provenance.get("notes", []))
    if command.encoder:
        read = {"stage": command.stage, "join": command.join}
        which: dict[str, Any] = {"backbone": config.backbone, "seed": config.seed, **read}
        metrics = evaluate(command.encoder, dataset, runtime, probe, test=command.test, **which)
        return summary_line(probe_of(command.encoder, dataset, runtime, **which), metrics)
    if dataset.has_labels:
        require_folds(dataset, config, probe)  # before hours of training
    run = pretrain(asked, dataset, runtime, fresh=command.fresh)
    if int(os.environ.get("RANK", "0")):
        return None
    lowest, top = run.environment.get("peak_lr", (1, 1))
    if lowest < top:
        print(f"the lowest layer's rate was {lowest:.1e} at most, the head's {top:.1e}")
    metrics = evaluate(run, dataset, runtime, probe, test=command.test) if dataset.has_labels else {}
    if command.export is not None:
        print(f"exported to {export_run(run, command.export)}")
    return summary_line(run, metrics)


if __name__ == "__main__":
    run_command("train.py", train)
