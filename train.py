"""Pretrain one encoder, probe it, and print where the run lies and what the probe measured.

    python train.py --dataset pneumoniamnist --size 64 --method vicreg --policy ssl --epochs 50 --seed 0

The same command again returns the finished run at once, or resumes an interrupted one. Ctrl-C and SIGTERM save at the
next step, print the command that goes on, and exit with 130 and 143; a mistake exits with 1 and one line.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import warnings
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from cxr_helpers.config import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.data import load_dataset
from cxr_helpers.evaluate import evaluate, summary_line
from cxr_helpers.export import export_run, require_target
from cxr_helpers.interrupts import StoppedError
from cxr_helpers.pretrain import pretrain, resolve
from cxr_helpers.runs import RunWarning


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
    export: str | None = None
    """Folder to write the probed backbone to, as backbone.safetensors with a model card (README.md)."""


def train(arguments: Arguments) -> str | None:
    """Train, probe, and return the closing line; None in processes other than torchrun's first, which only train."""
    config = resolve(arguments.config)
    if arguments.export is not None:
        require_target(arguments.export)  # before hours of training, not after
    dataset = load_dataset(config.dataset, config.size, arguments.runtime.root)
    run = pretrain(config, dataset, arguments.runtime, fresh=arguments.fresh)
    if int(os.environ.get("RANK", "0")):
        return None
    metrics = evaluate(run, dataset, arguments.runtime, arguments.probe, test=arguments.test)
    if arguments.export is not None:
        print(f"exported to {export_run(run, arguments.export)}")
    return summary_line(run, metrics)


def continuing(arguments: list[str]) -> str:
    """The command that goes on with an interrupted run: the same one, without what would throw its state away."""
    words = [word for word in arguments if word not in ("--fresh", "--no-fresh")]
    launcher = "torchrun [as before] " if "TORCHELASTIC_RUN_ID" in os.environ else "python "
    return launcher + shlex.join(words)


def _terminate(signum: int, frame: object) -> None:
    raise StoppedError(signum)


def _one_line(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning about the run as one line for its user, any other as Python shows it."""
    if issubclass(category, RunWarning):
        return f"train.py: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def main() -> None:
    """The command: its last line on success; one line on stderr and a status of 1, 130 or 143 otherwise."""
    formatted, warnings.formatwarning = warnings.formatwarning, _one_line
    before = signal.signal(signal.SIGTERM, _terminate)  # while data are read and probes fitted, at once
    try:
        closing_line = train(tyro.cli(Arguments, description=__doc__))
        if closing_line is not None:
            print(closing_line)
    except (ValueError, OSError, RuntimeError) as error:  # the last: divergence, a lock, memory of the device
        sys.exit(f"train.py: {' '.join(str(error).split())}")
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, StoppedError) else StoppedError(signal.SIGINT)
        if not int(os.environ.get("RANK", "0")):
            print(f"train.py: {stopped}; go on with: {continuing(sys.argv)}", file=sys.stderr)
        sys.exit(stopped.status)
    finally:
        signal.signal(signal.SIGTERM, before)
        warnings.formatwarning = formatted


if __name__ == "__main__":
    main()
