"""Pretrain one encoder, probe it, and print where the run lies and what the probe measured.

    python train.py --dataset pneumoniamnist --size 64 --method vicreg --policy ssl --epochs 50 --seed 0

The same command again returns the finished run at once, or resumes an interrupted one.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cxr_helpers.config import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.data import load_dataset
from cxr_helpers.evaluate import evaluate, summary_line
from cxr_helpers.pretrain import pretrain, resolve


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Pretrain one encoder on images alone, then probe it."""

    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)
    runtime: Annotated[RuntimeConfig, tyro.conf.arg(name="")] = field(default_factory=RuntimeConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    test: bool = False
    """Score the test split too; the run's record counts how often."""
    fresh: bool = False
    """Retrain from the start even if the run is there."""


def train(arguments: Arguments) -> str | None:
    """Train, probe, and return the closing line; None in processes other than torchrun's first, which only train."""
    config = resolve(arguments.config)
    dataset = load_dataset(config.dataset, config.size, arguments.runtime.root)
    run = pretrain(config, dataset, arguments.runtime, fresh=arguments.fresh)
    if int(os.environ.get("RANK", "0")):
        return None
    return summary_line(run, evaluate(run, dataset, arguments.runtime, arguments.probe, test=arguments.test))


def main() -> None:
    """The command: its last line on success, one line on stderr and a status of 1 on failure."""
    try:
        closing_line = train(tyro.cli(Arguments, description=__doc__))
        if closing_line is not None:
            print(closing_line)
    except (ValueError, OSError, RuntimeError) as error:  # the last: divergence, memory of the device
        sys.exit(f"train.py: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit("train.py: interrupted; the same command goes on from the last finished epoch")


if __name__ == "__main__":
    main()
